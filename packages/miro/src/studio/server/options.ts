/** Options of the studio, declared once for programs and for `miro studio`. */
import { z } from "zod";
import { abortSignal, field, flag, type OptionsOf } from "../../options.js";
import { loadSchema } from "../../pipeline/loading/load-options.js";
import { KEY_WORDS } from "./security.js";

/** Others than those of the web have none: browsers would call each of them `null`. */
const origin = z.url({ protocol: /^https?$/ });
const { device, dtype, lowMemory, quantization, cacheDir, threads } = loadSchema.shape;

export const studioSchema = z.strictObject({
  /** Address to listen on. Others than this machine's own want a key. Default: 127.0.0.1. */
  host: field(z.string().min(1).default("127.0.0.1"), {
    expected: "an address",
    help: "address to listen on; others than this machine's own want a key",
    flag: "--host <address>",
  }),
  /** Port to listen on; 0 takes a free one. Default: 7860. */
  port: field(z.int().min(0).max(65535).default(7860), {
    expected: "a port from 0 to 65535",
    help: "port to listen on; 0 takes a free one",
    flag: "--port <n>",
  }),
  /** Models to offer: a repository or a folder each, or `NAME@VARIANT`. Default: the bundled model. */
  models: field(z.array(z.string().min(1)).default([]), {
    expected: "models",
    help: "a model to offer; may be given several times",
    flag: "--model <repo|dir[@variant]>",
    otherwise: "the bundled model",
  }),
  /** Folder of the pictures. One studio alone can have it. Default: pictures. */
  output: field(z.string().min(1).default("pictures"), {
    expected: "a folder",
    help: "folder of the pictures",
    flag: "--output <dir>",
    writes: "folder",
  }),
  /** Most jobs that may wait. Default: 64. */
  queue: field(z.int().min(1).max(100_000).default(64), {
    expected: "an integer of at least 1",
    help: "most jobs that may wait",
    flag: "--queue <n>",
  }),
  /** Most pictures of a job. Default: 16. */
  maxImages: field(z.int().min(1).max(10_000).default(16), {
    expected: "an integer of at least 1",
    help: "most pictures of a job",
    flag: "--max-images <n>",
  }),
  /** The key that requests must give, of 8 to 200 printable ASCII characters. Default: none is wanted. */
  key: field(z.string().optional(), {
    expected: KEY_WORDS,
    help: "the key that requests must give",
  }),
  /** Pages of these origins may ask too. */
  allowOrigins: field(z.array(origin).default([]), {
    expected: "an origin such as https://example.org",
    help: "pages of this origin may ask too; may be given several times",
    flag: "--allow-origin <url>",
  }),
  /** Pages of these origins may show the studio's page in a frame. */
  allowFrames: field(z.array(origin).default([]), {
    expected: "an origin such as https://example.org",
    help: "pages of this origin may show the studio in a frame; may be given several times",
    flag: "--allow-frame <url>",
  }),
  /** Serve others than this machine without a key. */
  insecure: flag("serve others than this machine without a key", "--insecure"),
  device,
  dtype,
  lowMemory,
  quantization,
  cacheDir,
  threads,
  /** Stops the start. */
  signal: abortSignal("stops the start"),
});

/** Options of {@link startStudio}. */
export type StudioOptions = OptionsOf<typeof studioSchema>;
