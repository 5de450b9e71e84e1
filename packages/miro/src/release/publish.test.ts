import { execFile } from "node:child_process";
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { runCaptured } from "../cli/testing/run-captured.js";
import { planPublication, publish as publishPlan } from "./publish.js";
import { UploadServer } from "./testing/upload-server.js";

let server: UploadServer;
let root: string;
let release: string;

beforeEach(async () => {
  server = await new UploadServer().start();
  root = mkdtempSync(join(tmpdir(), "miro-publish-"));
  release = join(root, "release");
  mkdirSync(join(release, "vae"), { recursive: true });
  writeFileSync(join(release, "config.json"), "{}\n");
  writeFileSync(join(release, "README.md"), "# A model\n");
  writeFileSync(join(release, "model.safetensors"), Buffer.alloc(5000, 1));
  writeFileSync(join(release, "vae", "weights.safetensors"), Buffer.alloc(3000, 2));
  writeFileSync(join(release, ".hidden"), "not this");
  vi.stubEnv("HF_ENDPOINT", server.endpoint);
  vi.stubEnv("HF_HOME", join(root, "home"));
  vi.stubEnv("HF_TOKEN", "hf_writer");
});

afterEach(async () => {
  vi.unstubAllEnvs();
  await server.stop();
  rmSync(root, { recursive: true, force: true });
});

async function publish(...args: string[]) {
  const result = await runCaptured("publish", release, "me/model", ...args);
  expect(result.stdout + result.stderr).not.toContain("hf_writer");
  return result;
}

const actions = (stderr: string) =>
  Object.fromEntries(
    [...stderr.matchAll(/^(create|update|unchanged|delete) +(\S+)/gm)].map(([, a, path]) => [path, a]),
  );
const sent = () => server.requests.filter((request) => request.startsWith("PUT /object/")).length;

describe("publishing", () => {
  it("shows a plan and does nothing with --dry-run", async () => {
    const { code, stderr } = await publish("--dry-run");
    expect([code, actions(stderr)["model.safetensors"]]).toEqual([0, "create"]);
    expect(stderr).toMatch(/^create {4}me\/model, private$/m);
    expect(server.repositories).toEqual({});
  });

  it("puts every file there in one commit, and then only what differs", async () => {
    const first = await publish();
    expect(first.code, first.stderr).toBe(0);
    const { files } = server.repositories["me/model"]!;
    expect(Object.keys(files).sort()).toEqual([
      "README.md",
      "config.json",
      "model.safetensors",
      "vae/weights.safetensors",
    ]);
    expect(files["model.safetensors"]!.equals(Buffer.alloc(5000, 1))).toBe(true);
    expect([server.visibility["me/model"], sent()]).toEqual([true, 2]);
    expect((await publish()).stdout).toBe("nothing differs\n");
    writeFileSync(join(release, "README.md"), "# Another\n");
    const again = await publish("--public");
    expect(actions(again.stderr)).toEqual({
      "README.md": "update",
      "config.json": "unchanged",
      "model.safetensors": "unchanged",
      "vae/weights.safetensors": "unchanged",
    });
    expect([files["README.md"]!.toString(), server.visibility["me/model"], sent()]).toEqual(["# Another\n", false, 2]);
  });

  it("puts a variant into its folder, and removes weights that it no longer has", async () => {
    await publish("--variant", "one");
    const { files } = server.repositories["me/model"]!;
    for (const others of ["one/notes.md", "one/vae/model.safetensors", "model.safetensors"])
      files[others] = Buffer.from("x");
    rmSync(join(release, "model.safetensors"));
    writeFileSync(join(release, "model-00001-of-00001.safetensors"), Buffer.alloc(2000, 3));
    const { code, stderr } = await publish("--variant", "one");
    expect([code, actions(stderr)["one/model.safetensors"]]).toEqual([0, "delete"]);
    // What others have put there stays.
    expect(Object.keys(server.repositories["me/model"]!.files).sort()).toEqual([
      "model.safetensors",
      "one/README.md",
      "one/config.json",
      "one/model-00001-of-00001.safetensors",
      "one/notes.md",
      "one/vae/model.safetensors",
      "one/vae/weights.safetensors",
    ]);
  });

  it("uploads what links within the folder lead to, and refuses others", async () => {
    renameSync(join(release, "model.safetensors"), join(release, ".blob"));
    symlinkSync(".blob", join(release, "model.safetensors"));
    expect(actions((await publish("--dry-run")).stderr)["model.safetensors"]).toBe("create");
    expect((await publish()).code).toBe(0);
    expect(server.repositories["me/model"]!.files["model.safetensors"]).toEqual(Buffer.alloc(5000, 1));
    writeFileSync(join(root, "passwords"), "secret");
    for (const [target, refusal] of [
      ["nowhere", /vae\/link: is a link to what is not there\n$/],
      ["..", /vae\/link: is a link to a folder that it lies in\n$/],
      [join(root, "passwords"), /vae\/link is a link out of the folder, to .*passwords; copy the file there/],
    ] as const) {
      symlinkSync(target, join(release, "vae", "link"));
      expect(await publish()).toMatchObject({ code: 2, stderr: expect.stringMatching(refusal) });
      rmSync(join(release, "vae", "link"));
    }
  });

  it("that breaks off shows nothing, and goes on without sending twice", async () => {
    server.breaks = true;
    const { code, stderr } = await publish();
    expect([code, stderr]).toEqual([1, expect.stringMatching(/the upload broke off .*run the command again/)]);
    expect(server.repositories["me/model"]!.files).toEqual({});
    expect(server.objects.size).toBe(1);
    const before = sent();
    expect((await publish()).code).toBe(0);
    expect(sent() - before).toBe(1);
    expect(Object.keys(server.repositories["me/model"]!.files).length).toBe(4);
  });

  it("that reaches no Hub says where it was tried, that nothing was uploaded, and what to look at", async () => {
    const closed = server.endpoint;
    await server.stop();
    for (const args of [["--dry-run"], []]) {
      const { code, stderr } = await publish(...args);
      expect(code).toBe(1);
      expect(stderr).toBe(
        `error: me/model: ${closed} cannot be reached (connect ECONNREFUSED ${closed.slice(7)}), and nothing was uploaded; check the network and HF_ENDPOINT\n`,
      );
    }
  });

  it.each([
    ["of the plan", /\/revision\//],
    ["to make the repository", /\/create$/],
  ])("does not wait for a Hub that takes the request %s and never answers", async (_, silent) => {
    vi.stubEnv("HF_HUB_ETAG_TIMEOUT", "1");
    server.silent = silent;
    const { code, stderr } = await publish();
    expect([code, stderr]).toEqual([
      1,
      expect.stringContaining("cannot be reached (no answer within 1 s), and nothing was uploaded"),
    ]);
  });

  it.each([/\/create$/, /\/preupload\//, /\/object\//, /\/commit\//])(
    "stops at once while %s is waited for",
    async (silent) => {
      const stop = new AbortController();
      const options = { repo: "me/model", signal: stop.signal };
      const plan = await planPublication(release, options);
      server.silent = silent;
      const published = publishPlan(plan, options);
      await Promise.race([
        published,
        vi.waitFor(() => expect(server.requests.some((one) => silent.test(one))).toBe(true)),
      ]);
      stop.abort();
      await expect(published).rejects.toMatchObject({ name: "AbortError" });
      expect(Object.keys(server.repositories["me/model"]?.files ?? {})).toEqual([]);
    },
  );

  it("goes on where the Hub is busy for a moment", async () => {
    const paths = [/\/revision\//, /\/create$/, /\/preupload\//, /info\/lfs/, /\/object\//, /\/commit\//];
    server.busy.push(...paths.map((path, i): [RegExp, number] => [path, i % 2 === 0 ? 429 : 503]));
    const { code, stderr } = await publish();
    expect([code, server.busy], stderr).toEqual([0, []]);
    expect(server.requests.filter((request) => request.includes("/commit/")).length).toBe(2);
    expect(Object.keys(server.repositories["me/model"]!.files).length).toBe(4);
  });

  it("sends no commit twice that may have been made", async () => {
    server.busy.push([/\/commit\//, 500]);
    const { code, stderr } = await publish();
    expect([code, stderr]).toEqual([1, expect.stringMatching(/the Hub answers 500 .*run the command again/)]);
    expect(server.requests.filter((request) => request.includes("/commit/")).length).toBe(1);
  });

  it.each(["<html>Log in</html>", "{}", "[]"])("uploads nothing to a server that answers %j", async (answer) => {
    server.answers = answer;
    const { code, stderr } = await publish();
    expect([code, stderr]).toEqual([1, expect.stringContaining("did not answer as the Hub does")]);
    expect(new Set(server.requests)).toEqual(new Set(["GET /api/models/me/model/revision/main"]));
  });

  it("goes by the proxy that the environment names, and says which one does not answer", async () => {
    // A proxy is asked for whole addresses, and the server takes them too.
    vi.stubEnv("HF_ENDPOINT", "http://hub.invalid");
    vi.stubEnv("http_proxy", server.endpoint);
    vi.stubEnv("no_proxy", "127.0.0.1");
    const { code, stderr } = await publish();
    expect(code, stderr).toBe(0);
    expect(Object.keys(server.repositories["me/model"]!.files).length).toBe(4);
    vi.stubEnv("http_proxy", "http://127.0.0.1:9");
    const refused = await publish();
    expect([refused.code, refused.stderr]).toEqual([
      1,
      expect.stringMatching(/nothing was uploaded; check http_proxy, the proxy http:\/\/127\.0\.0\.1:9/),
    ]);
  });

  it("shows that the visibility changes; a repository becomes public when its files are there", async () => {
    await publish();
    const plan = await publish("--public", "--dry-run");
    expect(plan.stderr).toMatch(/^change {4}me\/model, public$/m);
    expect(server.visibility["me/model"]).toBe(true);
    writeFileSync(join(release, "README.md"), "# Another\n");
    server.interferes = true;
    expect((await publish("--public")).code).toBe(1);
    expect(server.visibility["me/model"]).toBe(true);
    expect((await publish("--public")).code).toBe(0);
    expect(server.visibility["me/model"]).toBe(false);
    expect((await publish("--private")).stdout).toBe("no file differs; me/model is private now\n");
    expect(server.visibility["me/model"]).toBe(true);
    expect((await publish("--private", "--json")).stdout).toContain('"becomes":null');
  });

  it("says that a repository is there which the token does not see", async () => {
    server.busy.push([/\/api\/repos\/create$/, 409]);
    const { code, stderr } = await publish();
    expect([code, stderr]).toEqual([1, expect.stringMatching(/is there, but the access token does not see it/)]);
  });

  it("does not undo a commit that came in between", async () => {
    await publish();
    writeFileSync(join(release, "README.md"), "# Another\n");
    server.interferes = true;
    const { code, stderr } = await publish();
    expect([code, stderr]).toEqual([1, expect.stringMatching(/me\/model: the repository has changed since the plan/)]);
    expect(server.repositories["me/model"]!.files["README.md"]!.toString()).toBe("# A model\n");
    expect((await publish()).code).toBe(0);
  });

  it.each([
    ["hf_reader", /may not write there \(no right to write\)/],
    ["hf_nobody", /does not know the access token/],
    ["", /needs an access token that may write/],
  ])("with the token %j says what is wrong with it", async (token, words) => {
    vi.stubEnv("HF_TOKEN", token);
    const { code, stderr } = await publish();
    expect(code).toBeGreaterThan(0);
    expect(stderr).toMatch(words);
    if (token !== "") expect(stderr).not.toContain(token);
    expect(server.repositories).toEqual({});
  });

  it("refuses what is no release, and two visibilities", async () => {
    expect((await publish("--private", "--public")).stderr).toMatch(/exclude each other/);
    rmSync(join(release, "config.json"));
    expect((await publish()).stderr).toMatch(/holds no release/);
  });

  it.runIf(process.env.MIRO_PYTHON)("is read back by Python's huggingface_hub", async () => {
    copyFileSync(join(release, "config.json"), join(release, "release.json"));
    expect((await publish()).code).toBe(0);
    const names = ["model.safetensors", "vae/weights.safetensors", "README.md"];
    const program =
      "import sys, huggingface_hub as h; [h.hf_hub_download('me/model', f, local_dir=sys.argv[1]) for f in sys.argv[2:]]";
    const { status, stderr } = await new Promise<{ status: number | null; stderr: string }>((resolve) => {
      execFile(
        process.env.MIRO_PYTHON!,
        ["-c", program, join(root, "copy"), ...names],
        { env: { ...process.env, HF_ENDPOINT: server.downloads.endpoint, HF_HUB_DISABLE_XET: "1" } },
        (error, _, stderr) => resolve({ status: error === null ? 0 : 1, stderr }),
      );
    });
    expect(status, stderr).toBe(0);
    for (const name of names)
      expect(readFileSync(join(root, "copy", name)).equals(readFileSync(join(release, name)))).toBe(true);
  });
});
