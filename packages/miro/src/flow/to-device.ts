/**
 * Batches and noise on their way to a GPU: all tensors of a batch in one pinned buffer and one copy, which runs while
 * the GPU still computes the step before. One by one they would be a dozen copies, each of which stops host and GPU.
 */
import { copyBeside, itemSize, pinnedMemory, scope, Tensor } from "@miro-t2i/torch";

/** Where each tensor begins: a multiple of this, which suits every dtype and kernel. */
const ALIGNMENT = 256;

/**
 * The same structure of plain objects with its tensors on a device. What lies there already stays; what comes from the
 * CPU are views of one new buffer, owned by the caller's scope, for which the host does not wait.
 */
export function toDevice<T extends object>(structure: T, device: string): T {
  if ([...tensorsIn(structure)].every((tensor) => tensor.device === device)) return structure;
  const sent = device === "cpu" ? structure : packed(structure, pinnedMemory, (buffer) => copyBeside(buffer, device));
  return replaced(sent, (tensor) => tensor.to({ device }));
}

/**
 * The same structure with its tensors of the CPU sent as one buffer.
 * @param allocate a uint8 tensor of so many bytes on the CPU
 * @param send the buffer where it is to lie
 */
export function packed<T extends object>(
  structure: T,
  allocate: (bytes: number) => Tensor,
  send: (buffer: Tensor) => Tensor,
): T {
  return scope(() => {
    const places = new Map<Tensor, { start: number; bytes: number }>();
    let size = 0;
    for (const tensor of tensorsIn(structure)) {
      if (tensor.device !== "cpu" || places.has(tensor)) continue;
      const bytes = tensor.numel * itemSize(tensor.dtype);
      places.set(tensor, { start: size, bytes });
      size += Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
    }
    if (size === 0) return structure;
    const view = (buffer: Tensor, { dtype, shape }: Tensor, { start, bytes }: { start: number; bytes: number }) =>
      buffer.narrow(0, start, bytes).viewDtype(dtype).view(shape);
    const staged = allocate(size);
    for (const [tensor, place] of places) view(staged, tensor, place).copy_(tensor.detach());
    const sent = send(staged);
    return replaced(structure, (tensor) => {
      const place = places.get(tensor);
      return place === undefined ? tensor : view(sent, tensor, place);
    });
  });
}

function* tensorsIn(value: unknown): Generator<Tensor> {
  if (value instanceof Tensor) yield value;
  else if (typeof value === "object" && value !== null) for (const item of Object.values(value)) yield* tensorsIn(item);
}

function replaced<T>(value: T, of: (tensor: Tensor) => Tensor): T {
  if (value instanceof Tensor) return of(value) as T;
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, replaced(item, of)])) as T;
}
