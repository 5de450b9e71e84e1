// A signal that the process handles writes over nothing: Ctrl-C, a window of another size, a child that has ended. A
// kernel whose stack lies on the heap would let it.
import { spawnSync } from "node:child_process";
import { resolve } from "node:path";
import { expect, it } from "vitest";

const root = resolve(import.meta.dirname, "../../../..");
const tiny = resolve(root, "tests/reference/fixtures/tiny");

/** Between any two places that are as large as a kernel's working memory lies a buffer whose values are known. */
const PROGRAM = `
  import { spawn } from "node:child_process";
  import { setFlagsFromString } from "node:v8";
  import { runInNewContext } from "node:vm";
  import { setNumThreads } from "@miro-t2i/torch";
  import { MiroPipeline } from "miro-t2i";

  let signals = 0;
  process.on("SIGUSR2", () => void signals++);
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc");
  setNumThreads(1); // several take turns with the sender
  const folder = (name) => ${JSON.stringify(tiny)} + "/" + name;
  const parts = { textEncoder: folder("text_encoder"), vae: folder("vae") };
  const pipe = await MiroPipeline.fromPretrained(folder("checkpoint"), { ...parts, device: "cpu" });
  const draw = () => pipe.generate("a cat", { steps: 4, seed: 1 });
  const [{ data: expected }] = (await draw()).images;
  const known = [];
  const places = [];
  for (let i = 0; i < 64; i++) {
    known.push(new Uint8Array(new ArrayBuffer(6000)).fill(0xa5));
    places.push(new ArrayBuffer(79_000));
  }
  places.length = 0;
  collect();
  collect();
  const sender = spawn("bash", ["-c", "while kill -USR2 " + process.pid + "; do :; done"], { stdio: "ignore" });
  let other = 0;
  for (let drawn = 0; drawn < 20 || signals <= 1000; drawn++) {
    const [{ data }] = (await draw()).images;
    if (Buffer.compare(data, expected) !== 0) other++;
  }
  sender.kill();
  const overwritten = known.filter((bytes) => bytes.some((value) => value !== 0xa5)).length;
  console.log(JSON.stringify({ overwritten, other }));
  process.exit(0);
`;

it.skipIf(process.platform === "win32")("signals leave the memory alone", { timeout: 120_000 }, () => {
  const args = ["--input-type=module", "--eval", PROGRAM];
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, args, { cwd: root, encoding: "utf8" });
  expect({ status, signal, stderr }).toEqual({ status: 0, signal: null, stderr: "" });
  expect(JSON.parse(stdout)).toEqual({ overwritten: 0, other: 0 });
});
