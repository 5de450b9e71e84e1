/** Writes release folders, in the layout that checkpoint.ts reads. */
import { join } from "node:path";
import { type DType, isFloatingPoint, scope, type Tensor } from "@miro-t2i/torch";
import { writeNpy, writeSafetensors } from "@miro-t2i/torch/io";
import { checkName, checkObject } from "../../arguments.js";
import type { LatentNormalization } from "../../autoencoder/normalization.js";
import { createFolder } from "../../files/make-folder.js";
import { writeFileAtomic } from "../../files/whole-files.js";
import type { Checkpoint } from "./checkpoint.js";
import { releaseConfigToJson } from "./release-config.js";

/** What {@link saveCheckpoint} writes. */
export interface SaveCheckpointOptions extends Omit<Checkpoint, "preprocessing"> {
  /** Default: the same map as `postprocessing`. */
  preprocessing?: LatentNormalization | undefined;
  /**
   * Dtype of the parameters in the file, default float32. Buffers (Fourier frequencies, constants) stay as they are.
   */
  dtype?: "float32" | "float16" | undefined;
}

/** Writes a release folder. Each file appears whole; `config.json`, the one that readers look for, comes last. */
export function saveCheckpoint(folder: string, checkpoint: SaveCheckpointOptions): void {
  checkName("folder", folder, "the name of a folder");
  checkObject("checkpoint", checkpoint, "{ config, network, … }", ["config", "network", "preconditioning"]);
  const {
    config,
    network,
    preconditioning,
    postprocessing,
    preprocessing = postprocessing,
    dtype = "float32",
  } = checkpoint;
  createFolder(folder);
  scope(() => {
    const tensors = new Map<string, Tensor>();
    for (const [prefix, module] of [
      ["network", network],
      ["preconditioning", preconditioning],
    ] as const) {
      const parameters = new Set(module.parameters());
      for (const [name, tensor] of module.stateDict()) {
        tensors.set(`${prefix}.${name}`, hostCopy(tensor, parameters.has(tensor) ? dtype : "float32"));
      }
    }
    for (const [prefix, { scale, bias }] of [
      ["data_preprocessing", preprocessing],
      ["postprocessing", postprocessing],
    ] as const) {
      tensors.set(`${prefix}.scale`, hostCopy(scale, "float32"));
      tensors.set(`${prefix}.bias`, hostCopy(bias, "float32"));
    }
    writeSafetensors(join(folder, "model.safetensors"), tensors, { format: "pt" });
    writeNpy(join(folder, "uncond_embedding.npy"), hostCopy(checkpoint.uncondEmbedding, "float32"));
  });
  writeFileAtomic(join(folder, "config.json"), `${JSON.stringify(releaseConfigToJson(config), null, 2)}\n`, {
    overwrite: true,
  });
}

/** Floating tensors in `dtype`, others as they are; contiguous, on the host. */
function hostCopy(tensor: Tensor, dtype: DType): Tensor {
  const host = tensor.detach().to({ device: "cpu" });
  return (isFloatingPoint(host.dtype) ? host.to(dtype) : host).contiguous();
}
