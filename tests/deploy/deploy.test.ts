// deploy/: its files are well formed, name this version, and start what they say they start.
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { DockerfileParser } from "dockerfile-ast";
import { validate } from "dockerfile-utils";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { parse } from "yaml";

const root = fileURLToPath(new URL("../../", import.meta.url));
const read = (name: string) => readFileSync(path.join(root, "deploy", name), "utf8");
const { version } = JSON.parse(readFileSync(path.join(root, "packages/miro/package.json"), "utf8"));
const miro = path.join(root, "packages/miro/bin/miro.mjs");

let folder: string;
let server: ChildProcess | null = null;
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), "deploy "));
});
afterEach(async () => {
  const running = server;
  server = null;
  if (running && running.exitCode === null) {
    const ended = new Promise((resolve) => running.once("exit", resolve));
    running.kill("SIGKILL");
    await ended;
  }
  rmSync(folder, { recursive: true, force: true });
});

/** A folder for PATH in which `miro` is this clone's. */
function programs(): string {
  const bin = path.join(folder, "bin");
  mkdirSync(bin);
  writeFileSync(path.join(bin, "miro"), `#!/bin/sh\nexec "${process.execPath}" "${miro}" "$@"\n`);
  chmodSync(path.join(bin, "miro"), 0o755);
  return `${bin}:${process.env.PATH}`;
}

/** Starts a server on a free port and asks whether it is well. It ends cleanly when it is interrupted. */
async function serves(command: string, args: string[], env: Record<string, string>): Promise<string> {
  const child = spawn(command, args, { env: { ...process.env, PATH: programs(), ...env }, cwd: folder });
  server = child;
  let output = "";
  const url = await new Promise<string>((resolve, reject) => {
    for (const stream of [child.stdout, child.stderr]) {
      stream.on("data", (part) => {
        output += part;
        const found = /http:\/\/\S+:\d+/.exec(output);
        if (found) resolve(found[0]);
      });
    }
    child.once("exit", (code) => reject(new Error(`it ended with ${code}: ${output}`)));
  });
  const { port } = new URL(url);
  expect((await fetch(`http://127.0.0.1:${port}/health`)).status).toBe(200);
  return port;
}

async function interrupted(): Promise<number | null> {
  const running = server!;
  const ended = new Promise<number | null>((resolve) => running.once("exit", resolve));
  running.kill("SIGINT");
  return ended;
}

/** The instructions of a Dockerfile, by keyword. */
const instructionsOf = (name: string) =>
  DockerfileParser.parse(read(name))
    .getInstructions()
    .map((instruction) => ({
      keyword: instruction.getKeyword(),
      text: instruction.getRawArgumentsContent() ?? "",
    }));

describe.each(["Dockerfile", "space/Dockerfile"])("%s", (name) => {
  const instructions = instructionsOf(name);
  const all = (keyword: string) => instructions.filter((one) => one.keyword === keyword).map(({ text }) => text);

  test("has no fault that the linter of Dockerfiles finds", () => {
    expect(validate(read(name))).toEqual([]);
  });
  test("installs this version, from images of a release that is tested", () => {
    expect(all("ARG")).toContain(`MIRO_VERSION=${version}`);
    for (const image of all("FROM")) expect(image).toMatch(/^(node:(\$\{NODE_VERSION\}|22)-bookworm|\$\{VARIANT\})/);
  });
  test("does not run as root, and leaves no package lists or caches", () => {
    const users = instructions.findIndex(({ keyword }) => keyword === "USER");
    expect(instructions[users]!.text).toBe("1000");
    expect(instructions.slice(users).some(({ keyword }) => keyword === "RUN")).toBe(false);
    for (const run of all("RUN")) {
      if (run.includes("apt-get install"))
        expect(run).toMatch(/--no-install-recommends[\s\S]*rm -rf \/var\/lib\/apt\/lists/);
      if (run.includes("npm install")) expect(run).toMatch(/--ignore-scripts[\s\S]*npm cache clean/);
      if (run.includes("pip install")) expect(run).toContain("--no-cache-dir");
    }
  });
});

describe("Dockerfile", () => {
  const instructions = instructionsOf("Dockerfile");
  const last = (keyword: string) => JSON.parse(instructions.findLast((one) => one.keyword === keyword)!.text);

  test("serves the studio, and its health check finds it well", async () => {
    expect(last("ENTRYPOINT")).toEqual(["miro"]);
    const args = last("CMD").map((arg: string) => arg.replace("/data/", `${folder}/`));
    const port = await serves("miro", [...args, "--port", "0"], { MIRO_STUDIO_API_KEY: "a-key-for-tests" });
    const health = instructions.find(({ keyword }) => keyword === "HEALTHCHECK")!.text;
    const [program, ...check] = JSON.parse(health.slice(health.indexOf("CMD") + 3)) as string[];
    const ask = (at: string) =>
      spawnSync(
        program!,
        check.map((arg) => arg.replace("7860", at)),
      );
    expect(ask(port).status).toBe(0);
    expect(await interrupted()).toBeOneOf([0, 130]);
    expect(ask(port).status).toBe(1);
  });
});

describe("miro.def", () => {
  const text = read("miro.def");
  /** The stages, each with its header, and its sections by name. */
  const stages = text.split(/^(?=Bootstrap: )/m).slice(1);
  const section = (stage: string, name: string) =>
    new RegExp(`^%${name}\\n((?:[ ]{4}.*\\n|\\n)*)`, "m").exec(stage)?.[1]?.replace(/^ {4}/gm, "") ?? "";

  test("has the images, the torch and the tools of the Dockerfile", () => {
    const docker = read("Dockerfile");
    expect(stages.map((stage) => /^From: (.*)$/m.exec(stage)?.[1])).toEqual(
      ["", "-slim"].map((end) => `node:{{ NODE_VERSION }}-bookworm${end}`),
    );
    const given = stages.flatMap((stage) => section(stage, "arguments").trim().split("\n"));
    for (const argument of given) expect(docker).toContain(`ARG ${argument}\n`);
    for (const [, name] of text.matchAll(/\{\{ (\w+) \}\}/g)) expect(given.join("\n")).toContain(`${name}=`);
    const tools = /--no-install-recommends (.*?)(?: \\)?\n/;
    expect(tools.exec(text)![1]).toBe(tools.exec(docker.slice(docker.indexOf("AS cuda-build")))![1]);
  });
  test("has no section that Apptainer would not know", () => {
    for (const [, name] of text.matchAll(/^%(.+)$/gm))
      expect(["arguments", "files", "files from build", "post", "runscript", "test", "labels"]).toContain(name);
    const inside = /^(#.*|Bootstrap: docker|From: .+|Stage: \w+|%[\w ]+|[ ]{4}.+|)$/;
    for (const line of text.split("\n")) expect(line).toMatch(inside);
  });
  test("its scripts are ones that a shell reads", () => {
    for (const stage of stages)
      for (const name of ["post", "runscript", "test"]) {
        const { status, stderr } = spawnSync("sh", ["-n"], { input: section(stage, name), encoding: "utf8" });
        expect([status, stderr]).toEqual([0, ""]);
      }
  });
  test("copies all that the set-up of a clone needs, to where it builds", () => {
    const copied = section(stages[0]!, "files")
      .trim()
      .split("\n")
      .map((line) => line.split(" "));
    for (const [from, to] of copied) {
      expect(existsSync(path.join(root, from!)), from).toBe(true);
      expect(to).toBe(`/opt/miro/${from}`);
    }
    const { references } = JSON.parse(readFileSync(path.join(root, "tsconfig.json"), "utf8"));
    const folders = references.map(({ path }: { path: string }) => path.split("/")[0]);
    expect(copied.map(([from]) => from)).toEqual(expect.arrayContaining([...folders, "scripts", "package-lock.json"]));
  });
});

describe("compose.yaml", () => {
  const { services, volumes } = parse(read("compose.yaml"), { merge: true });

  test("keeps what is written in a volume, and listens on this machine alone, with a key", () => {
    expect(Object.keys(services)).toEqual(["studio", "studio-cuda"]);
    for (const service of Object.values<Record<string, any>>(services)) {
      expect(service.volumes).toEqual(["data:/data"]);
      expect(service.environment.MIRO_STUDIO_API_KEY).toContain(":?");
      for (const port of service.ports) expect(port).toMatch(/^127\.0\.0\.1:\d+:7860$/);
      const { context, dockerfile } = service.build;
      expect(existsSync(path.join(root, "deploy", context, dockerfile))).toBe(true);
    }
    expect(Object.keys(volumes)).toEqual(["data"]);
  });
  test("the arguments for a GPU are those of the Dockerfile, and a device", () => {
    const usual = instructionsOf("Dockerfile").findLast(({ keyword }) => keyword === "CMD")!.text;
    expect(services["studio-cuda"].command).toEqual([...JSON.parse(usual), "--device", "cuda"]);
    expect(services["studio-cuda"].build.args).toEqual({ VARIANT: "cuda" });
  });
});

describe("miro-studio.service", () => {
  const unit = read("miro-studio.service");
  const command = /^ExecStart=(.+)$/m.exec(unit)![1]!.split(" ");

  test("starts the studio with a key from a file", async () => {
    writeFileSync(path.join(folder, "api-key"), "a-key-for-tests\n");
    const args = command.slice(1).map((arg) => arg.replace("%d", folder).replace("/var/lib/miro", folder));
    await serves("miro", [...args.map((arg) => (arg === "7860" ? "0" : arg))], {});
    expect(await interrupted()).toBeOneOf([0, 130]);
  });
  test("is a unit that systemd would load", () => {
    const settings = unit.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
    for (const line of settings) expect(line).toMatch(/^(\[(Unit|Service|Install)\]|[A-Z][A-Za-z]+=.*)$/);
    const file = path.join(folder, "miro-studio.service");
    writeFileSync(file, unit.replace(/^Documentation=.*\n/m, "").replace(command[0]!, process.execPath));
    const { error, status, stderr } = spawnSync("systemd-analyze", ["verify", file], { encoding: "utf8" });
    // Machines without systemd are left with the check above.
    if (error === undefined) expect(status, stderr).toBe(0);
  });
});

describe("space", () => {
  test("has a header by the Hub's rules", () => {
    const [, header] = read("space/README.md").split("---\n");
    const { title, emoji, colorFrom, colorTo, sdk, app_port, license, pinned, models, tags, ...others } = parse(
      header!,
    );
    expect(others).toEqual({});
    expect(title).toMatch(/^\S.*$/);
    expect(emoji).toMatch(/^\p{Extended_Pictographic}$/u);
    for (const colour of [colorFrom, colorTo])
      expect("red yellow green blue indigo purple pink gray".split(" ")).toContain(colour);
    expect({ sdk, app_port, license, pinned }).toEqual({
      sdk: "docker",
      app_port: 7860,
      license: "mit",
      pinned: false,
    });
    expect(models).toEqual(["nicolas-dufour/miro", "nicolas-dufour/miro-ablations"]);
    for (const tag of tags) expect(tag).toMatch(/^[a-z][a-z-]+$/);
  });
  test("has every file that its Dockerfile copies", () => {
    const copied = instructionsOf("space/Dockerfile").filter(({ keyword }) => keyword === "COPY");
    const files = readdirSync(path.join(root, "deploy/space"));
    expect(copied.map(({ text }) => text.split(" ").find((word) => files.includes(word)))).toEqual(["start.sh"]);
  });
  test("starts, and answers under its name at the Hub", async () => {
    const env = { MIRO_OUTPUT: folder, SPACE_HOST: "owner-miro.hf.space" };
    const port = await serves("sh", [path.join(root, "deploy/space/start.sh"), "--port", "0"], env);
    const response = await fetch(`http://127.0.0.1:${port}/api/models`, {
      headers: { origin: "https://owner-miro.hf.space" },
    });
    expect(response.status).toBe(200);
    // The Hub's own page shows it in a frame.
    expect(response.headers.get("content-security-policy")).toMatch(/frame-ancestors https:\/\/huggingface\.co$/);
    expect(response.headers.get("x-frame-options")).toBe(null);
    expect(await interrupted()).toBeOneOf([0, 130]);
  });
});
