// A GPU that has failed for the whole process: it is told once, clearly, and nothing more is tried. No GPU is needed.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { cuda, TorchError } from "@miro-t2i/torch";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { run } from "../../cli/main.js";
import { startStudio } from "./start.js";

const ASSERT =
  "CUDA error: device-side assert triggered\nSearch for `cudaErrorAssert' in https://docs.nvidia.com/cuda/ for more.\n" +
  "CUDA kernel errors might be asynchronously reported at some other API call.";
const FAILED =
  "the GPU has failed (device-side assert triggered) and computes nothing more in this process; start the studio again";
/** What a call of each method throws; nothing: it does what it should. */
const throwing: Record<string, Error | undefined> = {};
/** The calls that came, and what lets those of `draw` end. */
const calls: string[] = [];
let letDraw: (() => void)[] = [];

vi.mock("../../threads/thread.js", () => ({
  Thread: class {
    hasEnded = false;
    async call(method: string): Promise<unknown> {
      calls.push(method);
      if (method === "draw") await new Promise<void>((resolve) => void letDraw.push(resolve));
      if (throwing[method]) throw throwing[method];
      return method === "load" ? "cuda" : undefined;
    }
    async end(): Promise<void> {}
  },
}));

let output: string;
beforeEach(() => {
  output = mkdtempSync(join(tmpdir(), "miro-failed-"));
  vi.spyOn(cuda, "isAvailable").mockReturnValue(true);
  vi.spyOn(cuda, "deviceCount").mockReturnValue(1);
  vi.spyOn(cuda, "devices").mockReturnValue([{ name: "GPU", memoryBytes: 80 * 2 ** 30, capability: [9, 0] }]);
});
afterEach(() => {
  vi.restoreAllMocks();
  rmSync(output, { recursive: true, force: true });
  calls.length = 0;
  letDraw = [];
  for (const method of Object.keys(throwing)) delete throwing[method];
});

const post = (url: string, path: string, body: object) =>
  fetch(`${url}${path}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
const submit = async (url: string, seed: number): Promise<string> =>
  ((await (await post(url, "/api/jobs", { prompt: "a cat", seed })).json()) as { id: string }).id;
const view = async (url: string, id: string) =>
  (await (await fetch(`${url}/api/jobs/${id}`)).json()) as { status: string; error: string | null };
const drawings = (count: number) => expect.poll(() => letDraw.length).toBe(count);

it("fails every job and request with what to do, and draws nothing more", async () => {
  await using studio = await startStudio({ port: 0, output, device: "cuda" });
  const { url } = studio;
  const [first, second] = [await submit(url, 1), await submit(url, 2)];
  await drawings(1);
  Object.assign(throwing, { draw: new TorchError(`aten::mm: ${ASSERT}`), synchronize: new TorchError(ASSERT) });
  letDraw[0]!();
  expect((await studio.failed).message).toBe(FAILED);
  await expect.poll(async () => (await view(url, second)).status).toBe("failed");
  expect([await view(url, first), await view(url, second)]).toMatchObject([
    { status: "failed", error: FAILED },
    { status: "failed", error: FAILED },
  ]);
  const before = calls.length;
  for (const [path, told] of [
    ["/api/jobs", { error: { message: FAILED } }],
    ["/v1/images/generations", { error: { message: FAILED, type: "server_error" } }],
    ["/sdapi/v1/txt2img", { errors: FAILED }],
  ] as const) {
    const answer = await post(url, path, { prompt: "a cat" });
    expect([path, answer.status, await answer.json()]).toMatchObject([path, 503, told]);
  }
  expect(calls.length).toBe(before);
  const health = await fetch(`${url}/health`);
  expect([health.status, await health.json()]).toMatchObject([503, { status: "failed", error: { message: FAILED } }]);
  expect((await fetch(`${url}/api/pictures`)).status).toBe(200);
});

it("is what loading finds out, too", async () => {
  throwing.load = new TorchError(ASSERT);
  throwing.synchronize = new TorchError(ASSERT);
  const warning = vi.spyOn(process.stderr, "write").mockReturnValue(true);
  await using studio = await startStudio({ port: 0, output, device: "cuda" });
  expect((await studio.failed).message).toBe(FAILED);
  await expect.poll(() => warning.mock.calls.join()).toContain(FAILED);
});

it.each([
  ["the GPU is well", undefined],
  ["nothing but memory is missing", new TorchError("CUDA out of memory. Tried to allocate 2.00 MiB")],
])("is not said of an error after which %s: the next job is drawn", async (_, synchronize) => {
  await using studio = await startStudio({ port: 0, output, device: "cuda" });
  const first = await submit(studio.url, 1);
  await drawings(1);
  Object.assign(throwing, { draw: new TorchError("aten::mm: a shape is wrong"), synchronize });
  letDraw[0]!();
  await expect.poll(async () => (await view(studio.url, first)).error).toBe("aten::mm: a shape is wrong");
  delete throwing.draw;
  const second = await submit(studio.url, 2);
  await drawings(2);
  letDraw[1]!();
  await expect.poll(async () => (await view(studio.url, second)).status).toBe("done");
  expect((await fetch(`${studio.url}/health`)).status).toBe(200);
});

it("ends the command with its message, so that what watches over it begins it anew", async () => {
  const said = { stdout: "", stderr: "" };
  const code = run(["studio", "--port", "0", "--output", output, "--device", "cuda"], {
    stdout: (text) => {
      said.stdout += text;
    },
    stderr: (text) => {
      said.stderr += text;
    },
    interactive: false,
    signal: new AbortController().signal,
  });
  await expect.poll(() => said.stdout).toMatch(/^http:.*\n/);
  const url = said.stdout.trim();
  const ids = [await submit(url, 1), await submit(url, 2)];
  const streams = await Promise.all(ids.map((id) => fetch(`${url}/api/jobs/${id}/events`)));
  await drawings(1);
  Object.assign(throwing, { draw: new TorchError(ASSERT), synchronize: new TorchError(ASSERT) });
  letDraw[0]!();
  expect(await code).toBe(1);
  expect(said.stderr).toBe(`error: ${FAILED}\n`);
  for (const stream of streams) expect(await stream.text()).toContain(`event: failed\ndata: {"message":"${FAILED}"}`);
});
