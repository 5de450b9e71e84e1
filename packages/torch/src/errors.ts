// Errors of the engine.

/**
 * Every failure of the engine: wrong arguments (refused before libtorch is called) and libtorch's own errors.
 * The message is one line that names the operator and the shapes of its tensors.
 */
export class TorchError extends Error {
  override name = "TorchError";
}
