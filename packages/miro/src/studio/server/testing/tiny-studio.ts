/** A studio of small random weights for tests. */
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { StudioOptions } from "../options.js";
import { Studio } from "../studio.js";

const tiny = fileURLToPath(new URL("../../../../../../tests/reference/fixtures/tiny", import.meta.url));

/** Studios and folders that are given up together. */
export class TinyStudios {
  readonly #folders: string[] = [];
  readonly #studios: Studio[] = [];

  folder(): string {
    const made = mkdtempSync(join(tmpdir(), "miro-studio-"));
    this.#folders.push(made);
    return made;
  }

  /** A folder with a checkpoint and its parts beside it. */
  model(name = "tiny"): string {
    const model = join(this.folder(), name);
    cpSync(`${tiny}/checkpoint`, model, { recursive: true });
    for (const part of ["text_encoder", "vae"]) cpSync(`${tiny}/${part}`, join(model, part), { recursive: true });
    return model;
  }

  async start(options: StudioOptions = {}): Promise<Studio> {
    const studio = await Studio.start({ port: 0, output: this.folder(), dtype: "float32", ...options });
    this.#studios.push(studio);
    return studio;
  }

  async end(): Promise<void> {
    for (const studio of this.#studios) await studio.close();
    for (const folder of this.#folders) rmSync(folder, { recursive: true, force: true });
  }
}
