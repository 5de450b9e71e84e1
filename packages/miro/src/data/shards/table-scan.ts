/** Makes the table of a shard: reads all headers of the tar, those of its arrays, and the numbers of its metadata. */
import { FormatError, readNpyHeader } from "@miro-t2i/torch/io";
import { numberField, parseMetadata } from "./metadata.js";
import type { TarMember } from "./sample-key.js";
import { type ArrayLayout, type MemberColumn, probeOf, type TableParts, type TableProblem } from "./table-file.js";
import type { TarFile } from "./tar-file.js";
import { BLOCK_BYTES } from "./tar-header.js";

/** Metadata of a sample are some kilobytes; more is an attack on the reader's memory. */
const MAX_JSON_BYTES = 16 * 2 ** 20;
/** Numeric fields that are kept, in order of appearance. */
const MAX_COLUMNS = 256;
const MAX_EXTENSIONS = 256;
const MAX_LAYOUTS = 255;
/** Problems that are kept; more of them are counted. */
const MAX_PROBLEMS = 100;

/** Reads what there is to know in a shard. */
export function scanTable(tar: TarFile): TableParts {
  const { path } = tar;
  const problems: TableProblem[] = [];
  let problemCount = 0;
  const report = (problem: TableProblem): void => {
    if (problemCount++ < MAX_PROBLEMS) problems.push({ ...problem, message: problem.message.slice(0, 300) });
  };
  for (const problem of tar.problems) report(problem);

  const samples = tar.samples();
  const columns = new Map<string, Float64Array>();
  const members = new Map<string, MemberColumn & { known: LayoutList }>();
  for (const [i, sample] of samples.entries()) {
    for (const { name, offset } of sample.duplicates) {
      const message = "another member of the sample has this extension; the first one counts";
      report({ path, rule: "DuplicateMember", message, member: name, byteOffset: offset });
    }
    for (const [extension, member] of sample.members) {
      const bad = (rule: string, message: string, byteOffset = member.offset): void =>
        report({ path, rule, message, member: member.name, byteOffset, extension });
      let column = members.get(extension);
      if (column === undefined) {
        if (members.size === MAX_EXTENSIONS) {
          bad("TooManyExtensions", `more than ${MAX_EXTENSIONS} different extensions; this one is left out`);
          continue;
        }
        const n = samples.length;
        column = {
          blocks: new Uint32Array(n),
          sizes: new Uint32Array(n),
          layouts: new Uint8Array(n),
          known: new LayoutList(),
        };
        members.set(extension, column);
      }
      if (member.size >= 2 ** 32 || member.offset >= 2 ** 32 * BLOCK_BYTES) {
        bad("MemberTooLarge", `a member of ${member.size} bytes at ${member.offset}`);
        continue;
      }
      if (extension.endsWith(".npy") || extension === "npy") {
        const layout = column.known.of(tar, member, bad);
        if (layout === 0) continue;
        column.layouts[i] = layout;
      } else if (extension === "json" && !addNumbers(columns, samples.length, i, tar, member, bad)) continue;
      column.blocks[i] = member.offset / BLOCK_BYTES;
      column.sizes[i] = member.size;
    }
  }
  const keys = samples.map(({ key }) => Buffer.from(key));
  const keyEnds = new Uint32Array(keys.length);
  for (let i = 0, end = 0; i < keys.length; i++) keyEnds[i] = end += keys[i]!.length;
  const keyBytes = Buffer.concat(keys);
  const file = { read: (offset: number, size: number) => tar.read({ name: "", offset, size }) };
  return {
    header: {
      fingerprint: tar.fingerprint,
      probe: probeOf(samples.length, [...members.values()], file),
      count: samples.length,
      keyBytes: keyBytes.length,
      extensions: [...members].map(([name, { blocks, known }]) => ({
        name,
        present: blocks.reduce((sum, block) => sum + (block > 0 ? 1 : 0), 0),
        layouts: known.list,
      })),
      columns: [...columns.keys()],
      problems,
      problemCount,
    },
    members,
    columns,
    keyEnds,
    keyBytes,
  };
}

type Bad = (rule: string, message: string, byteOffset?: number) => void;

/** The different layouts of one extension's arrays. */
class LayoutList {
  readonly list: ArrayLayout[] = [];
  /** By header and size of the member: nearly all repeat. */
  readonly #seen = new Map<string, number>();

  /** 1 + the index of an array's layout, 0 when it cannot be used. */
  of(tar: TarFile, member: TarMember, bad: Bad): number {
    const start = tar.readStart(member, 128);
    const key = `${member.size} ${start.toString("latin1")}`;
    const known = this.#seen.get(key);
    if (known !== undefined) return known;
    const index = this.#read(tar, member, bad);
    const whole = start.length === 128 && start[6] === 1 && start.readUInt16LE(8) + 10 <= 128;
    if (index > 0 && whole && this.#seen.size < 10_000) this.#seen.set(key, index);
    return index;
  }

  #read(tar: TarFile, member: TarMember, bad: Bad): number {
    let layout: ArrayLayout;
    try {
      const { dtype, fortranOrder, shape, dataStart } = readNpyHeader({
        path: tar.path,
        sizeBytes: member.size,
        read: (offset, length) => tar.readStart(member, offset + length).subarray(offset),
      });
      if (fortranOrder && shape.filter((size) => size !== 1).length > 1) {
        bad("FortranOrder", "an array in Fortran order; store it in C order (numpy.ascontiguousarray)");
        return 0;
      }
      const row = shape.length === 0 ? null : shape.slice(1);
      if (row?.includes(0)) {
        bad("EmptyArray", `an array of shape (${shape}) holds nothing`);
        return 0;
      }
      layout = { dtype: dtype as ArrayLayout["dtype"], row, dataStart };
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
      bad(error.rule, `${error.reason} (${error.rule})`, member.offset + (error.byteOffset ?? 0));
      return 0;
    }
    const text = JSON.stringify(layout);
    const index = this.list.findIndex((other) => JSON.stringify(other) === text);
    if (index >= 0) return index + 1;
    if (this.list.length === MAX_LAYOUTS) {
      bad("TooManyLayouts", `more than ${MAX_LAYOUTS} different shapes or types of one member`);
      return 0;
    }
    return this.list.push(layout);
  }
}

/** Takes the numbers of a sample's metadata into the columns. */
function addNumbers(
  columns: Map<string, Float64Array>,
  count: number,
  sample: number,
  tar: TarFile,
  member: TarMember,
  bad: Bad,
): boolean {
  if (member.size > MAX_JSON_BYTES) {
    bad("JsonTooLarge", `metadata of ${member.size} bytes, at most ${MAX_JSON_BYTES}`);
    return false;
  }
  let metadata: Record<string, unknown>;
  try {
    metadata = parseMetadata(tar.readStart(member, member.size));
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    bad("BadJson", `the metadata cannot be read: ${error.message.split("\n")[0]}`);
    return false;
  }
  for (const name of Object.keys(metadata)) {
    const number = numberField(metadata, name);
    if (Number.isNaN(number)) continue;
    let column = columns.get(name);
    if (column === undefined) {
      if (columns.size === MAX_COLUMNS) {
        bad(
          "TooManyFields",
          `more than ${MAX_COLUMNS} numeric fields; ${JSON.stringify(name.slice(0, 60))} is left out`,
        );
        break;
      }
      column = new Float64Array(count).fill(Number.NaN);
      columns.set(name, column);
    }
    column[sample] = number;
  }
  return true;
}
