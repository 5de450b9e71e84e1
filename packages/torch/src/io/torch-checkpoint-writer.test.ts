import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { arange, empty, tensor, zeros } from "../creation.js";
import { scope } from "../scope.js";
import { TorchCheckpoint } from "./torch-checkpoint.js";
import { PythonFloat, PythonTuple, writeTorchCheckpoint } from "./torch-checkpoint-writer.js";

const folder = mkdtempSync(join(tmpdir(), "torch-writer-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const PLAIN = {
  none: null,
  yes: true,
  no: false,
  small: 7,
  negative: -3,
  wide: 2 ** 31,
  long: -(2 ** 45),
  fraction: 0.1,
  text: "naïve ☃",
  bound: -(2n ** 63n),
  beyond: 2n ** 63n,
  large: -(3n ** 200n),
  list: [1, [2, "three"]],
};

describe("checkpoints that were written here", () => {
  const path = join(folder, "values.ckpt");
  const write = () =>
    scope(() =>
      writeTorchCheckpoint(path, {
        ...PLAIN,
        one: new PythonFloat(1),
        pair: new PythonTuple([1, 2]),
        numbers: new Map([[3, "three"]]),
        state_dict: new Map([
          ["a", arange(24).float().view(4, 6)],
          ["turned", arange(6).float().view(2, 3).t()],
          ["half", tensor([1.5, -2]).half()],
          ["brain", tensor([1.5, -2]).to("bfloat16")],
          ["mask", tensor([true, false, true])],
          ["long", tensor([1, 2], { dtype: "int64" })],
          ["scalar", tensor(2.5)],
          ["empty", zeros([0, 4])],
        ]),
      }),
    );

  it("hold what was given, for the restricted reader", () => {
    write();
    using file = TorchCheckpoint.open(path);
    const root = file.root as Map<string, unknown>;
    for (const [key, value] of Object.entries(PLAIN)) expect(root.get(key)).toEqual(value);
    expect([root.get("one"), root.get("pair"), root.get("numbers")]).toEqual([1, [1, 2], new Map([[3, "three"]])]);
    scope(() => {
      const values = file.tensors(
        new Map([...(root.get("state_dict") as Map<string, never>)].map(([key, value]) => [key, value])),
      );
      const read = (key: string) => {
        const { shape, dtype } = values.info(key);
        const target = empty([...shape], { dtype: dtype! });
        values.copyTo(key, target);
        return target;
      };
      expect(read("a").toList()).toEqual(arange(24).float().view(4, 6).toList());
      expect(read("turned").toList()).toEqual([
        [0, 3],
        [1, 4],
        [2, 5],
      ]);
      expect([read("half").dtype, read("half").toList()]).toEqual(["float16", [1.5, -2]]);
      expect([read("brain").dtype, read("brain").float().toList()]).toEqual(["bfloat16", [1.5, -2]]);
      expect(read("mask").toList()).toEqual([true, false, true]);
      expect(read("scalar").item()).toBe(2.5);
      expect(read("empty").shape).toEqual([0, 4]);
    });
  });

  it("need no room for tensors that are deferred, and are the same bytes each time", () => {
    const deferred = () => ({ dtype: "float32" as const, shape: [3], read: () => tensor([1, 2, 3]) });
    const [one, two] = [join(folder, "one.ckpt"), join(folder, "two.ckpt")];
    writeTorchCheckpoint(one, { a: deferred() });
    scope(() => writeTorchCheckpoint(two, { a: tensor([1, 2, 3]) }));
    expect(spawnSync("cmp", [one, two]).status).toBe(0);
  });

  it("refuse what they would not hold, by its place", () => {
    const itself: { list: unknown[] } = { list: [] };
    itself.list.push(itself);
    const cases: [string, unknown][] = [
      ["a.b: expected null, a boolean, number, .* got undefined", { a: { b: undefined } }],
      ["when: expected .* got an instance of Date", { when: new Date(0) }],
      ["list\\[1\\]: expected .* got a function", { list: [1, () => 1] }],
      ["set: expected .* got an instance of Set", { set: new Set([1]) }],
      ["bytes: expected .* got an instance of Uint8Array", { bytes: new Uint8Array(2) }],
      ["the root: expected .* got undefined", undefined],
      ["list\\[0\\]: is held by itself", itself],
      ["n: an integer of more than 1024 bits", { n: 2n ** 2000n }],
    ];
    for (const [said, value] of cases)
      expect(() => writeTorchCheckpoint(join(folder, "unfit.ckpt"), value as never)).toThrow(new RegExp(`: ${said}$`));
    const twice = [1];
    writeTorchCheckpoint(join(folder, "twice.ckpt"), { a: twice, b: twice, whole: 1e300 });
    using file = TorchCheckpoint.open(join(folder, "twice.ckpt"));
    expect(file.root).toEqual(new Map<string, unknown>(Object.entries({ a: [1], b: [1], whole: BigInt(1e300) })));
  });

  it("are not there when a tensor is not what was announced", () => {
    const wrong = { dtype: "float32" as const, shape: [4], read: () => tensor([1, 2, 3]) };
    expect(() => writeTorchCheckpoint(join(folder, "wrong.ckpt"), { state_dict: { a: wrong } })).toThrow(
      /state_dict\.a: announced as float32 \[4\], made as float32 \[3\]/,
    );
    expect(readdirSync(folder).some((name) => name.includes("wrong"))).toBe(false);
  });

  it.runIf(process.env.MIRO_PYTHON)("are read by torch.load, which may build nothing but weights", () => {
    write();
    const program = `
import sys, torch, zipfile
assert zipfile.ZipFile(sys.argv[1]).testzip() is None
for mapped in (False, True):
    c = torch.load(sys.argv[1], weights_only=True, mmap=mapped)
    s = c["state_dict"]
    assert c["one"] == 1.0 and isinstance(c["one"], float) and c["pair"] == (1, 2) and c["numbers"] == {3: "three"}
    assert c["long"] == -(2 ** 45) and c["wide"] == 2 ** 31 and c["fraction"] == 0.1 and c["text"] == "naïve ☃"
    assert c["bound"] == -(2 ** 63) and c["beyond"] == 2 ** 63 and c["large"] == -(3 ** 200)
    assert torch.equal(s["a"], torch.arange(24.).view(4, 6)) and torch.equal(s["turned"], torch.arange(6.).view(2, 3).T)
    assert s["half"].dtype == torch.float16 and s["brain"].tolist() == [1.5, -2.0] and s["mask"].tolist() == [True, False, True]
    assert s["scalar"].item() == 2.5 and s["empty"].shape == (0, 4) and s["long"].dtype == torch.int64
`;
    const { status, stderr } = spawnSync(process.env.MIRO_PYTHON!, ["-c", program, path], { encoding: "utf8" });
    expect(stderr).toBe("");
    expect(status).toBe(0);
  });
});
