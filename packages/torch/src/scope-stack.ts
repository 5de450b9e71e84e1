// How deep in scope() this thread is; tensors made at depth 0 are followed by weak references instead.
import { native } from "./native.js";

let depth = 0;

export function scopeDepth(): number {
  return depth;
}

export function enterScope(): void {
  native.beginScope();
  depth++;
}

export function leaveScope(escaping: number[]): void {
  depth--;
  native.endScope(escaping);
}
