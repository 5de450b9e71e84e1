/** Parquet by hand, with whatever it is to be wrong in. */

/** A number as Thrift writes it: seven bits a byte, the lowest first. */
export function varint(value: number): number[] {
  return value < 128 ? [value] : [(value % 128) + 128, ...varint(Math.floor(value / 128))];
}
export const int = (value: number) => varint(value < 0 ? -2 * value - 1 : 2 * value);
export const text = (value: string) => [...varint(value.length), ...Buffer.from(value)];
export const uint32 = (value: number) => [0, 8, 16, 24].map((shift) => (value >>> shift) & 255);

export type Field = readonly [id: number, type: number, bytes: number[]];

/** A struct of Thrift: [number of the field, its type, its bytes], in order. */
export function struct(...fields: Field[]): number[] {
  return [...fields.flatMap(([id, type, bytes], i) => [((id - (fields[i - 1]?.[0] ?? 0)) << 4) + type, ...bytes]), 0];
}
export const [INT, LONG, TEXT, LIST, STRUCT] = [5, 6, 8, 9, 12];
export const list = (type: number, ...items: number[][]) => [
  ...(items.length < 15 ? [(items.length << 4) + type] : [0xf0 + type, ...varint(items.length)]),
  ...items.flat(),
];

/** Description of a data page of the first version, which is field 5 of its header. */
export const describes = (count: number, encoding: number): Field => [
  ...([5, STRUCT] as const),
  struct([1, INT, int(count)], [2, INT, int(encoding)], [3, INT, int(3)], [4, INT, int(3)]),
];

/** A page: its header with sizes, and its bytes. */
export function page(data: number[], description: Field, { type = 0, size = data.length } = {}): number[] {
  return [...struct([1, INT, int(type)], [2, INT, int(size)], [3, INT, int(data.length)], description), ...data];
}
export const dictionary = page([...uint32(1), 97], [7, STRUCT, struct([1, INT, int(1)], [2, INT, int(0)])], {
  type: 2,
});

/** A data page of the second version: values, missing ones, rows, encoding, bytes of both levels. */
export const page2 = (data: number[], ...counts: number[]) =>
  page(data, [8, STRUCT, struct(...counts.map((count, i): Field => [i + 1, INT, int(count)]))], { type: 3 });

/** What the schema says of a column of one value a row. */
export const column = ({ type = 6, isOptional = false, name = text("image"), more = [] as Field[] } = {}) =>
  struct([1, INT, int(type)], [3, INT, int(isOptional ? 1 : 0)], [4, TEXT, name], ...more);

interface TableOptions {
  type?: number;
  isOptional?: boolean;
  codec?: number;
  name?: number[];
  /** What stands in the schema beside its root, and how many of it are the root's. */
  schema?: number[][];
  columns?: number;
  /** Where the directory says that the pages begin. */
  start?: number;
}

/** A table of one column `image`, of texts that are never missing, unless told otherwise. */
export function table(rows: number, pages: number[][], options: TableOptions = {}) {
  const { type = 6, isOptional = false, codec = 0, name = text("image"), start = 4 } = options;
  const { schema = [column({ type, isOptional, name })], columns = schema.length } = options;
  const body = pages.flat();
  const description = struct(
    ...([
      [1, INT, int(type)],
      [2, LIST, list(INT, int(0))],
      [3, LIST, list(TEXT, name)],
      [4, INT, int(codec)],
    ] as const),
    ...([
      [5, LONG, int(rows)],
      [6, LONG, int(body.length)],
      [7, LONG, int(body.length)],
      [9, LONG, int(start)],
    ] as const),
  );
  const directory = struct(
    [1, INT, int(2)],
    [...([2, LIST] as const), list(STRUCT, struct([4, TEXT, text("schema")], [5, INT, int(columns)]), ...schema)],
    [3, LONG, int(rows)],
    [
      ...([4, LIST] as const),
      list(
        STRUCT,
        struct([1, LIST, list(STRUCT, struct([2, LONG, int(4)], [3, STRUCT, description]))], [3, LONG, int(rows)]),
      ),
    ],
  );
  const mark = [...Buffer.from("PAR1")];
  return Buffer.from([...mark, ...body, ...directory, ...uint32(directory.length), ...mark]);
}
