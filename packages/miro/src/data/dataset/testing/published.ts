/**
 * The committed data set of the published layout and what the published code recorded of it
 * (tests/reference/record_shards.py).
 */
import { cpSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { buildInfo, type Tensor } from "@miro-t2i/torch";
import { readSafetensors } from "@miro-t2i/torch/io";

export const PUBLISHED = fileURLToPath(new URL("../../../../../../tests/reference/fixtures/shards", import.meta.url));

/** The recorded data set's shards in order, below a folder that `copyPublished` made. */
export const SHARDS = ["cc12m/00000.tar", "cc12m/00001.tar", "laion/00002.tar"];
export const COUNTS = [13, 11, 8];

/** One recorded batch. */
export interface RecordedBatch {
  options: {
    bin_coherence?: boolean;
    num_bins: number;
    bin_strategy?: "uniform" | "quantile" | "refined_quantile";
    refine_last_n_bins?: number;
    refine_factor?: number;
    synthetic_embedding_prob?: number;
    clip_filter_threshold?: number;
    aesthetic_threshold?: number;
  };
  /** Tokens that texts were padded to. */
  max_length: number;
  /** Samples of the batch. */
  indices: number[];
  /** Samples that pass the filters, and what the published code estimates their number to be. */
  passing: number[];
  length: number;
  bins: Record<string, number[]>;
}

/** recorded.json */
export interface Recorded {
  scores: string[];
  keys: string[];
  batches: Record<string, RecordedBatch>;
}

export function recorded(): Recorded {
  return JSON.parse(readFileSync(join(PUBLISHED, "recorded", "recorded.json"), "utf8"));
}

/** Tensors by `BATCH/KEY`; the caller owns them. */
export function recordedTensors(): Map<string, Tensor> {
  return readSafetensors(join(PUBLISHED, "recorded", "batches.safetensors"));
}

/** The enriched shards in a new temporary folder: `path` holds cc12m/ and laion/. */
export function copyPublished(): { path: string; remove(): void } {
  const path = mkdtempSync(join(tmpdir(), "miro-published-"));
  cpSync(join(PUBLISHED, "enriched"), path, { recursive: true, preserveTimestamps: true });
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) };
}

/**
 * Edges of bins, to be compared with recorded ones. libtorch up to 2.13, which recorded them, gives them to the bit;
 * from 2.14 on `quantile` rounds differently, and an edge one float32 beside the recorded one comes back as that.
 */
export function edgesAsRecorded(edges: Float32Array | null, recorded: readonly number[] | null): number[] | null {
  const [, minor = 0] = buildInfo().torchVersion.split(".").map(Number);
  if (edges === null || recorded === null || minor <= 13) return edges && [...edges];
  const ordinals = (floats: Float32Array) => new Int32Array(floats.buffer);
  const [found, wanted] = [ordinals(Float32Array.from(edges)), ordinals(Float32Array.from(recorded))];
  return Array.from(edges, (edge, i) => (Math.abs(found[i]! - wanted[i]!) <= 1 ? recorded[i]! : edge));
}
