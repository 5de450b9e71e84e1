// How deep in scope() this thread is; tensors that none owns are followed by weak references instead.
import { native } from "./native.js";

let depth = 0;

/** How many scopes this thread is in. */
export function scopeDepth(): number {
  return depth;
}

/** Begins a scope. */
export function enterScope(): void {
  native.beginScope();
  depth++;
}

/** Ends a scope: its tensors are freed, except those whose handles are given and those that are kept. */
export function leaveScope(escaping: number[]): void {
  depth--;
  native.endScope(escaping);
}
