/** Random numbers that a seed decides. */

/** Marsaglia's xorshift32. */
export function randomNumbers(seed: number): () => number {
  let state = seed | 0 || 1;
  for (let i = 0; i < 8; i++) next();
  function next(): number {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  }
  return next;
}

/** FNV-1a: each subject has random numbers of its own, whatever runs before it. */
export function hash(text: string): number {
  let value = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193);
  return value;
}
