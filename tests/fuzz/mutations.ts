/** Files as damage and malice make them: bits and numbers changed, parts cut out, put twice, taken from other files. */

const WORDS = [0, 1, -1, 2, 7, 8, 127, 128, 255, 256, 32767, 65535, 65536, 2 ** 31 - 1, -(2 ** 31), 1e9];
const LONGS = [0n, 1n, -1n, 2n ** 31n, 2n ** 32n, 2n ** 53n, 2n ** 62n, 2n ** 63n - 1n, -(2n ** 63n)];
const TEXTS = [
  ...['"', "\\", "{", "}", "[", "]", ",", ":", "\t", "\n", "\r\n", "\0", "\ufeff", "-", "'", "(", "../", "/", "=", " "],
  ...["NaN", "Infinity", "null", "true", "1e999", "-0", "0x10", '""', "\\ud800", "\\u0000", "__proto__", "١", "é"],
  ...["9".repeat(400), "[".repeat(1000), '{"a":'.repeat(1000), '"a":1,"a":2,', "&x [*x, *x]", "18446744073709551616"],
];

/**
 * A file with one to four changes.
 * @param random from 0 to below 1
 * @param others whose parts may come into it
 */
export function mutated(file: Uint8Array, random: () => number, others: readonly Uint8Array[]): Buffer {
  const integer = (below: number): number => Math.floor(random() * below);
  const pick = <T>(choices: readonly T[]): T => choices[integer(choices.length)]!;
  let bytes = Buffer.from(file);
  const splice = (at: number, removed: number, put: Uint8Array): void => {
    bytes = Buffer.concat([bytes.subarray(0, at), put, bytes.subarray(Math.min(bytes.length, at + removed))]);
  };
  /** A part of a file. */
  const part = (of: Uint8Array, most: number): Uint8Array => {
    const start = integer(of.length);
    return of.subarray(start, start + integer(most));
  };
  for (let left = 1 + integer(4); left > 0 && bytes.length > 0; left--) {
    // Beginnings and ends say what lies between them.
    const near = pick([200, bytes.length, 400]);
    const at = near === 400 ? Math.max(0, bytes.length - 1 - integer(near)) : integer(Math.min(near, bytes.length));
    const changes: (() => void)[] = [
      () => bytes.writeUInt8(bytes[at]! ^ (1 << integer(8)), at),
      () => bytes.writeUInt8(pick([0, 1, 0x7f, 0x80, 0xff, integer(256)]), at),
      () => bytes.writeUInt8((bytes[at]! + pick([1, 2, 16, 240, 255])) % 256, at),
      () => splice(at, 4, pick([little, big])(4, BigInt(pick(WORDS)))),
      () => splice(at, 8, pick([little, big])(8, pick(LONGS))),
      () => splice(at, bytes.length, new Uint8Array(0)),
      () => splice(at, integer(32), new Uint8Array(0)),
      () => splice(at, 0, part(bytes, 64)),
      () => splice(at, 0, part(pick(others), 200)),
      () => splice(at, pick([0, integer(4)]), Buffer.from(pick(TEXTS))),
      () => void bytes.copy(bytes, at, integer(bytes.length)),
    ];
    pick(changes)();
  }
  return bytes;
}

function little(size: number, value: bigint): Buffer {
  return big(size, value).reverse();
}

function big(size: number, value: bigint): Buffer {
  return Buffer.from(Array.from({ length: size }, (_, i) => Number((value >> BigInt(8 * (size - 1 - i))) & 255n)));
}
