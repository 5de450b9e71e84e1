import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  appendFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";
import fc from "fast-check";
import { packTar } from "modern-tar";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { groupSamples, splitMemberName } from "./sample-key.js";
import { ShardError } from "./shard-error.js";
import { TarFile } from "./tar-file.js";
import { BLOCK_BYTES, encodeHeader } from "./tar-header.js";
import { TarWriter } from "./tar-writer.js";

/** Written and read by Python; tests/reference/record_tars.py */
interface Recorded {
  tar: string;
  members: { name: string; offset: number; size: number; sha256: string }[];
  webdataset: { key: string; extensions: string[] }[];
  wids: { key: string; extensions: string[] }[] | null;
}
const recorded = JSON.parse(
  gunzipSync(readFileSync(fileURLToPath(new URL("./fixtures/tars.json.gz", import.meta.url)))).toString(),
) as Record<string, Recorded>;
const bytesOf = (name: string): Buffer => Buffer.from(recorded[name]!.tar, "base64");
const REFUSED = ["hard link", "symbolic link", "device", "absolute", "parent"];
const sha256 = (bytes: Uint8Array): string => createHash("sha256").update(bytes).digest("hex");

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "shards-"));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

let files = 0;
function fileOf(bytes: Uint8Array): string {
  const path = join(folder, `${++files}.tar`);
  writeFileSync(path, bytes);
  return path;
}
function read(path: string, policy: "error" | "skip" = "error") {
  const tar = TarFile.open(path, { policy });
  try {
    return {
      members: tar.members.map((member) => ({ ...member, sha256: sha256(tar.read(member)) })),
      samples: tar.samples(),
      problems: tar.problems,
    };
  } finally {
    tar.close();
  }
}
function ruleOf(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    if (error instanceof ShardError) return error.rule;
    throw error;
  }
  return "none";
}
const stripped = (name: string): string => name.replace(/^\.\//, "");

const STAMP = { mtime: 0, mode: 0o444, owner: "bigdata" };
/** A header with bytes replaced and, unless told otherwise, its checksum made right again. */
function header(name: string, size: number, changes: Record<number, string | Buffer> = {}, sum = true): Buffer {
  const block = Buffer.from(encodeHeader(name, size, STAMP));
  for (const [at, value] of Object.entries(changes)) Buffer.from(value as string, "latin1").copy(block, Number(at));
  if (sum) {
    block.fill(" ", 148, 156);
    block.write(
      `${block
        .reduce((a, b) => a + b, 0)
        .toString(8)
        .padStart(6, "0")}\0`,
      148,
      "latin1",
    );
  }
  return block;
}
const padded = (content: string | Buffer): Buffer => {
  const bytes = Buffer.from(content as string);
  return Buffer.concat([bytes, Buffer.alloc(-bytes.length & 511)]);
};
const END = Buffer.alloc(1024);
const tar = (...parts: Buffer[]): string => fileOf(Buffer.concat([...parts, END]));

describe("archives that Python wrote", () => {
  test.each(Object.keys(recorded).filter((name) => !REFUSED.includes(name)))(
    "%s: the same members, contents and samples",
    (name) => {
      const { members, samples, problems } = read(fileOf(bytesOf(name)));
      expect(problems).toEqual([]);
      expect(members).toEqual(recorded[name]!.members.map((m) => ({ ...m, name: stripped(m.name) })));
      expect(samples.map((s) => ({ key: s.key, extensions: [...s.members.keys()] }))).toEqual(
        recorded[name]!.webdataset.map((s) => ({ ...s, key: stripped(s.key) })),
      );
    },
  );

  test("upstream's writer: wids finds the same samples too", () => {
    const { samples } = read(fileOf(bytesOf("webdataset")));
    expect(samples.map((s) => ({ key: s.key, extensions: [...s.members.keys()] }))).toEqual(recorded.webdataset!.wids);
  });

  test.each(REFUSED)("a %s is refused, or left out and reported", (name) => {
    const path = fileOf(bytesOf(name));
    const rule = ruleOf(() => read(path));
    expect(["NotAFile", "AbsolutePath", "ParentPath"]).toContain(rule);
    const { members, problems } = read(path, "skip");
    expect(problems.map((p) => p.rule)).toEqual([rule]);
    expect(members.map((m) => m.name)).toEqual(name === "hard link" ? ["a.txt"] : []);
  });
});

describe("what other programs write", () => {
  test("modern-tar's archives are read as they were meant, long names included", async () => {
    const entries = ["a.txt", `${"long/".repeat(60)}b.json`, "ünï/ç.jpg"].map((name) => ({
      header: { name, size: name.length, type: "file" as const },
      body: "x".repeat(name.length),
    }));
    const { members } = read(fileOf(await packTar(entries)));
    expect(members.map(({ name, size }) => ({ name, size }))).toEqual(
      entries.map(({ header: { name, size } }) => ({ name, size })),
    );
  });

  test("sizes in base 256 count, and larger ones than the file are refused", () => {
    const size = (value: bigint): Record<number, Buffer> => {
      const bytes = Buffer.alloc(12);
      bytes.writeBigUInt64BE(value, 4);
      bytes[0] = 0x80;
      return { 124: bytes };
    };
    expect(read(tar(header("a.txt", 0, size(3n)), padded("abc"))).members[0]).toMatchObject({ size: 3 });
    expect(ruleOf(() => read(tar(header("a.txt", 0, size(2n ** 40n)), padded("abc"))))).toBe("TruncatedMember");
    expect(ruleOf(() => read(tar(header("a.txt", 0, size(2n ** 60n)), padded("abc"))))).toBe("NumberTooLarge");
    expect(ruleOf(() => read(tar(header("a.txt", 0, { 124: Buffer.alloc(12, 0xff) }))))).toBe("NegativeNumber");
  });

  test("an extended size counts for the one member behind it", () => {
    const record = "10 size=5\n";
    const parts = [header("././@PaxHeader", record.length, { 156: "x" }), padded(record)];
    const path = tar(...parts, header("a.txt", 0), padded("hello"), header("b.txt", 2), padded("hi"));
    expect(read(path).members.map((m) => m.size)).toEqual([5, 2]);
  });
});

describe("what is refused", () => {
  const pax = (record: string): Buffer[] => [header("././@PaxHeader", record.length, { 156: "x" }), padded(record)];
  const cases: [string, () => string, rule: string, byteOffset: number][] = [
    ["an empty file", () => fileOf(Buffer.alloc(0)), "MissingEnd", 0],
    ["a file that is no tar", () => fileOf(Buffer.alloc(2048, "no tar ")), "BadNumber", 148],
    ["a wrong checksum", () => tar(header("a.txt", 0, { 0: "b" }, false)), "HeaderChecksum", 148],
    ["a size that is no number", () => tar(header("a.txt", 0, { 124: "12x45678901\0" })), "BadNumber", 124],
    ["a header that is cut", () => fileOf(header("a.txt", 0).subarray(0, 300)), "TruncatedHeader", 0],
    [
      "content that is cut",
      () => fileOf(Buffer.concat([header("a.txt", 600), Buffer.alloc(512)])),
      "TruncatedMember",
      0,
    ],
    [
      "an archive without its end",
      () => fileOf(Buffer.concat([header("a.txt", 3), padded("abc")])),
      "MissingEnd",
      1024,
    ],
    ["a second archive behind the first", () => tar(header("a.txt", 0), END, header("b.txt", 0)), "TrailingData", 1536],
    [
      "an extended header that is too large",
      () => tar(header("x", 2 ** 21, { 156: "x" }), Buffer.alloc(2 ** 21)),
      "ExtendedTooLarge",
      124,
    ],
    ["an extended record without its length", () => tar(...pax("path=x\n"), header("a.txt", 0)), "PaxRecord", 512],
    ["an extended record that is too long", () => tar(...pax("99 path=x\n"), header("a.txt", 0)), "PaxRecord", 512],
    ["an extended size that is no number", () => tar(...pax("11 size=-5\n"), header("a.txt", 0)), "BadNumber", 512],
    [
      "an absolute extended path",
      () => tar(...pax("14 path=/a.txt\n".replace("14", "15")), header("a.txt", 0)),
      "AbsolutePath",
      1024,
    ],
    [
      "a NUL in an extended path",
      () => tar(...pax("14 path=a\0.txt\n".replace("14", "15")), header("a.txt", 0)),
      "BadName",
      1024,
    ],
    ["a sparse file of GNU tar", () => tar(header("a.txt", 0, { 156: "S" })), "Sparse", 0],
    [
      "a sparse file in an extended header",
      () => tar(...pax("22 GNU.sparse.major=1\n"), header("a.txt", 0)),
      "Sparse",
      1024,
    ],
    ["an unknown type", () => tar(header("a.txt", 0, { 156: "Q" })), "UnknownType", 0],
    ["a name that is not UTF-8", () => tar(header("a.txt", 0, { 0: Buffer.from([0xff]) })), "NameNotUtf8", 0],
    [
      "a path for all members",
      () => tar(header("g", 10, { 156: "g" }), padded("10 path=x\n"), header("a.txt", 0)),
      "GlobalPath",
      512,
    ],
  ];
  test.each(cases)("%s: %s", (_, make, rule, byteOffset) => {
    const path = make();
    let error: unknown;
    try {
      read(path);
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toBeInstanceOf(ShardError);
    expect(error).toMatchObject({ rule, byteOffset, path });
    expect((error as Error).message).not.toContain("\n");
    expect(read(path, "skip").problems.map((p) => p.rule)).toContain(rule);
  });

  test("a missing file, and a folder", () => {
    expect(ruleOf(() => read(join(folder, "missing.tar")))).toBe("Unreadable");
    expect(ruleOf(() => read(folder, "skip"))).toBe("Unreadable");
  });
});

describe("what cannot be read costs itself alone", () => {
  const extended = (type: string, content: Buffer | string): Buffer[] => {
    const bytes = Buffer.from(content as string);
    return [header("././@LongLink", bytes.length, { 156: type }), padded(bytes)];
  };
  const binaryPath = Buffer.from("15 path=a\xff.txt\n", "latin1");
  const member = [header("b.txt", 3), padded("lost")];
  const cases: [string, Buffer[], rule: string][] = [
    [
      "a long name that is not UTF-8",
      [...extended("L", Buffer.from("caf\xe9.txt\0", "latin1")), ...member],
      "NameNotUtf8",
    ],
    ["an extended path that is not UTF-8", [...extended("x", binaryPath), ...member], "NameNotUtf8"],
    ["an extended header that is malformed", [...extended("x", "path=x\n"), ...member], "PaxRecord"],
    ["an extended size that is no number", [...extended("x", "11 size=-5\n"), ...member], "BadNumber"],
    [
      "an extended header that is too large",
      [...extended("x", Buffer.alloc(2 ** 20 + 1)), ...member],
      "ExtendedTooLarge",
    ],
    ["a damaged checksum", [header("b.txt", 3, { 0: "c" }, false), padded("lost")], "HeaderChecksum"],
    ["a size that is no number", [header("b.txt", 3, { 124: "x" }), padded("lost")], "BadNumber"],
    ["a size beyond the file", [header("b.txt", 2 ** 30), padded("lost")], "TruncatedMember"],
    [
      "a damaged header of a name that follows",
      [header("x", 9, { 0: "c", 156: "L" }, false), padded("long.txt"), ...member],
      "HeaderChecksum",
    ],
  ];
  test.each(cases)("%s", (name, parts, rule) => {
    const path = tar(header("a.txt", 1), padded("a"), ...parts, header("z.txt", 1), padded("z"));
    const { members, problems } = read(path, "skip");
    const names = members.map((found) => found.name);
    expect(names.filter((found) => found !== "b.txt")).toEqual(["a.txt", "z.txt"]);
    expect(names).toHaveLength(name.endsWith("a name that follows") ? 3 : 2);
    expect(problems.map((p) => p.rule)).toEqual([rule]);
  });

  test("a broken record does not hide the size that stands behind it", () => {
    const records = Buffer.concat([binaryPath, Buffer.from("12 size=600\n")]);
    const path = tar(
      ...extended("x", records),
      header("b.txt", 0),
      Buffer.alloc(1024, "b"),
      header("z.txt", 1),
      padded("z"),
    );
    expect(read(path, "skip").members.map(({ name }) => name)).toEqual(["z.txt"]);
  });

  test("a header for all members that cannot be read costs no member", () => {
    const { members, problems } = read(tar(...extended("g", "10 path=x\n"), header("z.txt", 1), padded("z")), "skip");
    expect(members.map(({ name }) => name)).toEqual(["z.txt"]);
    expect(problems.map((p) => p.rule)).toEqual(["GlobalPath"]);
  });
});

describe("members without content", () => {
  // Python's tarfile ignores these sizes; other writers have put content behind them.
  test.each([
    ["a folder", "5", "f/"],
    ["a folder of before ustar", "\0", "f/"],
    ["a hard link", "1", "f"],
    ["a symbolic link", "2", "f"],
    ["a character device", "3", "f"],
    ["a pipe", "6", "f"],
  ])(
    "%s with a size does not swallow what follows, and its content is stepped over where there is some",
    (_, type, name) => {
      const entry = header(name, 1024, { 156: type });
      for (const content of [Buffer.alloc(0), Buffer.alloc(1024, "c")]) {
        const path = tar(entry, content, header("a.txt", 1), padded("a"), header("z.txt", 1), padded("z"));
        expect(read(path, "skip").members.map((member) => member.name)).toEqual(["a.txt", "z.txt"]);
      }
      expect(read(fileOf(Buffer.concat([header("a.txt", 0), entry, END])), "skip").members).toHaveLength(1);
      expect(read(fileOf(Buffer.concat([header("a.txt", 0), entry])), "skip").members).toHaveLength(1);
    },
  );
});

describe("a file that changes while it is open", () => {
  test("cut short: an error with the byte, and the process lives on", () => {
    const path = tar(header("a.txt", 100_000), Buffer.alloc(100_352, "x"));
    const open = TarFile.open(path);
    truncateSync(path, 5000);
    expect(ruleOf(() => open.read(open.members[0]!))).toBe("ShortRead");
    expect(open.isStale()).toBe(true);
    open.close();
    expect(ruleOf(() => open.read(open.members[0]!))).toBe("Closed");
  });

  test("replaced by another: noticed, and the old content is still read", () => {
    const path = tar(header("a.txt", 3), padded("old"));
    const open = TarFile.open(path);
    expect(open.isStale()).toBe(false);
    rmSync(path);
    writeFileSync(path, Buffer.concat([header("a.txt", 3), padded("new"), END, END]));
    expect(open.isStale()).toBe(true);
    expect(Buffer.from(open.read(open.members[0]!)).toString()).toBe("old");
    open.close();
  });

  test("growing: the end is missing until it is written", () => {
    const path = fileOf(Buffer.concat([header("a.txt", 3), padded("abc")]));
    expect(ruleOf(() => read(path))).toBe("MissingEnd");
    appendFileSync(path, END);
    expect(ruleOf(() => read(path))).toBe("none");
  });
});

describe("corruption", () => {
  const whole = bytesOf("gnu");
  test("of any bytes gives an error or members inside the file, never anything else", () => {
    const path = join(folder, "fuzz.tar");
    const change = fc.tuple(fc.nat(whole.length - 1), fc.uint8Array({ minLength: 1, maxLength: 20 }));
    fc.assert(
      fc.property(
        fc.array(change, { minLength: 1, maxLength: 8 }),
        fc.nat(whole.length),
        fc.boolean(),
        (changes, end, cut) => {
          const bytes = Buffer.from(whole);
          for (const [at, values] of changes) bytes.set(values.subarray(0, bytes.length - at), at);
          writeFileSync(path, cut ? bytes.subarray(0, end) : bytes);
          const skipping = read(path, "skip"); // never throws, whatever the content
          const size = cut ? end : bytes.length;
          for (const { offset, size: length, name } of skipping.members) {
            expect(offset >= BLOCK_BYTES && offset + length <= size).toBe(true);
            expect(name.startsWith("/") || name.split("/").includes("..")).toBe(false);
          }
          expect(ruleOf(() => read(path)) === "none").toBe(skipping.problems.length === 0);
        },
      ),
      { numRuns: 400 },
    );
  });

  test("of a header is never believed: every changed byte of it is noticed", () => {
    const path = join(folder, "flip.tar");
    for (let at = 0; at < 512; at++) {
      const bytes = Buffer.concat([header("folder/name.txt", 3), padded("abc"), END]);
      bytes[at]! ^= 0x11;
      writeFileSync(path, bytes);
      // The checksum field is spelt in more than one way; all others count in the sum.
      if (at < 148 || at >= 156)
        expect(
          ruleOf(() => read(path)),
          `byte ${at}`,
        ).not.toBe("none");
    }
  });
});

describe("TarWriter", () => {
  test("equal samples give equal archives, and reading gives them back", async () => {
    const name = fc.stringMatching(/^[a-zA-Zäß日][a-zA-Z0-9 _äß日-]{0,60}$/);
    const key = fc.array(name, { minLength: 1, maxLength: 6 }).map((parts) => parts.join("/"));
    const extension = fc.stringMatching(/^[a-z0-9_]{1,20}(\.[a-z0-9]{1,5})?$/);
    const fields = fc.dictionary(extension, fc.uint8Array({ maxLength: 2000 }), {
      minKeys: 1,
      maxKeys: 4,
      noNullPrototype: true,
    });
    const samples = fc.uniqueArray(
      fc.tuple(
        key.filter((k) => !/^__.*__/.test(k)),
        fields,
      ),
      { selector: ([k]) => k, minLength: 1, maxLength: 4 },
    );
    await fc.assert(
      fc.asyncProperty(samples, async (content) => {
        const paths = [join(folder, "a.tar"), join(folder, "b.tar")];
        const sums = await Promise.all(
          paths.map(async (path) => {
            const writer = await TarWriter.create(path);
            for (const [k, f] of content) await writer.addSample(k, f);
            return writer.finish();
          }),
        );
        expect(sums[0]).toEqual(sums[1]);
        expect(sums[0]!.sha256).toBe(sha256(readFileSync(paths[0]!)));
        expect(sums[0]!.bytes % 10240).toBe(0);
        const open = TarFile.open(paths[0]!);
        const back = open.samples();
        expect(back.map((s) => s.key)).toEqual(content.map(([k]) => k));
        for (const [i, [, f]] of content.entries()) {
          const extensions = Object.keys(f).sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
          expect([...back[i]!.members.keys()]).toEqual(extensions);
          for (const [e, member] of back[i]!.members) expect(Buffer.compare(open.read(member), f[e]!)).toBe(0);
        }
        open.close();
      }),
      { numRuns: 60 },
    );
  });

  test("GNU tar reads its archives", async () => {
    const path = join(folder, "for-gnu.tar");
    const names = [
      "a.txt",
      `${"n".repeat(99)}/${"m".repeat(99)}.txt`,
      `${"é".repeat(120)}.txt`,
      `${"p".repeat(156)}/${"q".repeat(60)}.txt`, // a folder of one byte more than the field for it has
      `${"r".repeat(155)}/${"s".repeat(96)}.txt`, // both fields full
    ];
    const writer = await TarWriter.create(path);
    for (const name of names) await writer.add(name, Buffer.from(name));
    await writer.finish();
    const list = spawnSync("tar", ["--quoting-style=literal", "-tf", path], {
      encoding: "utf8",
      env: { ...process.env, LC_ALL: "C.UTF-8" },
    });
    expect(list.stderr).toBe("");
    expect(list.stdout.trim().split("\n")).toEqual(names);
    const content = spawnSync("tar", ["-xOf", path, names[2]!], { encoding: "utf8" });
    expect(content.stdout).toBe(names[2]);
  });

  test("until it is finished nothing is there; aborted or failed, nothing is left", async () => {
    const home = mkdtempSync(join(folder, "home-"));
    const path = join(home, "a.tar");
    const writer = await TarWriter.create(path);
    await writer.add("a.txt", Buffer.alloc(5e6));
    expect(existsSync(path)).toBe(false);
    await writer.abort();
    expect(readdirSync(home)).toEqual([]);
    await expect(writer.add("b.txt", Buffer.alloc(1))).rejects.toThrow(/aborted/);

    writeFileSync(path, "old");
    const second = await TarWriter.create(path);
    await second.add("a.txt", Buffer.from("new"));
    rmSync(second.temporary);
    await expect(second.finish()).rejects.toThrow(/a\.tar: cannot be written/);
    expect(readFileSync(path, "utf8")).toBe("old");
    await expect(TarWriter.create(join(home, "missing", "a.tar"))).rejects.toThrow(/no such file/);
  });

  test.each(["", "/a.txt", "../a.txt", "a/../b.txt", "a//b.txt", "./a.txt", "a/", "a\0.txt", "\ud800.txt"])(
    "refuses the name %j",
    async (name) => {
      const writer = await TarWriter.create(join(folder, "names.tar"));
      await expect(writer.add(name, Buffer.alloc(1))).rejects.toThrow(/member name/);
      await writer.abort();
    },
  );

  test("refuses a name twice and keys that would not come back", async () => {
    const writer = await TarWriter.create(join(folder, "names.tar"));
    await writer.add("a.txt", Buffer.alloc(1));
    await expect(writer.add("a.txt", Buffer.alloc(1))).rejects.toThrow(/twice/);
    await expect(writer.addSample("a.b", { txt: Buffer.alloc(1) })).rejects.toThrow(/last component/);
    await expect(writer.addSample("a", { TXT: Buffer.alloc(1) })).rejects.toThrow(/capitals/);
    await writer.abort();
  });
});

describe("the rule for keys", () => {
  test.each([
    ["0001.jpg", "0001", "jpg"],
    ["./0001.jpg", "0001", "jpg"],
    ["a.b/0001.Seg.PNG", "a.b/0001", "seg.png"],
    ["x/y/z.vae_embeddings_mean_256.npy", "x/y/z", "vae_embeddings_mean_256.npy"],
    ["a.", "a", ""],
  ])("%s is %s and %s", (name, key, extension) => {
    expect(splitMemberName(name)).toEqual({ key, extension });
  });
  test.each(["README", "a.b/README", ".hidden", "a/._0001.jpg", "__meta__/a.txt", "__info__"])(
    "%s belongs to no sample",
    (name) => {
      expect(splitMemberName(name)).toBe(null);
    },
  );

  test("members of a key need not be neighbours; what repeats is told", () => {
    const member = (name: string) => ({ name, offset: 0, size: 0 });
    const samples = groupSamples(["a.jpg", "b.jpg", "a.txt", "a.JPG"].map(member));
    expect(samples.map((s) => [s.key, [...s.members.keys()], s.duplicates.map((d) => d.name)])).toEqual([
      ["a", ["jpg", "txt"], ["a.JPG"]],
      ["b", ["jpg"], []],
    ]);
  });
});
