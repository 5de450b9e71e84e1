/** What is tried with the installed packages. A case returns what it saw in a line, or throws. */
import { spawnSync } from "node:child_process";
import { chmodSync, cpSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { build } from "vite";

/** The program that the documentation begins with. */
const DRAW = `import { MiroPipeline } from "miro-t2i";
const pipe = await MiroPipeline.fromPretrained();
const { images } = await pipe.generate("a red apple on a light blue background", { seed: 7 });
await images[0].save("apple.png");
await pipe.dispose();
console.log("drawn");
`;

const MANIFEST = JSON.stringify({ name: "bilder", private: true, type: "module" });

/** Runs a program and expects it to end well. */
async function succeed(sandbox, cwd, env, ...command) {
  const result = await sandbox.run(cwd, env, ...command);
  if (result.code !== 0) throw new Error(`${command.join(" ")} ended with ${result.code}:\n${result.output}`);
  return result;
}

/** Runs a program and expects it to fail with a text in its message. */
async function refuse(sandbox, cwd, env, text, ...command) {
  const { code, output } = await sandbox.run(cwd, env, ...command);
  if (code === 0) throw new Error(`${command.join(" ")} was expected to fail`);
  if (!output.includes(text)) throw new Error(`expected "${text}" in the message of ${command.join(" ")}:\n${output}`);
}

/** The picture shows something red in the middle of light blue, and is the one that all other cases drew. */
async function checkApple({ root, pictures }, file) {
  const sharp = createRequire(path.join(root, "packages/miro/package.json"))("sharp");
  const { data, info } = await sharp(file).removeAlpha().raw().toBuffer({ resolveWithObject: true });
  if (info.width !== 256 || info.height !== 256) throw new Error(`${file} has ${info.width} x ${info.height} pixels`);
  const pixel = (x, y) => [...data.subarray((y * 256 + x) * 3, (y * 256 + x) * 3 + 3)];
  const [red, , blue] = pixel(128, 140);
  const [cornerRed, , cornerBlue] = pixel(6, 6);
  if (!(red > blue + 60 && cornerBlue > cornerRed)) {
    throw new Error(`${file} shows no red apple on blue: ${pixel(128, 140)} in the middle, ${pixel(6, 6)} in a corner`);
  }
  pictures.add(data.toString("base64"));
  if (pictures.size > 1) throw new Error(`${file} differs from the picture of another case`);
  rmSync(file);
}

/** Bytes of all files below a folder. */
function sizeOf(folder) {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .reduce((sum, { parentPath, name }) => sum + statSync(path.join(parentPath, name)).size, 0);
}

/** A project into which npm has installed the package; made once for all cases that only use it. */
async function installed(context, release = context.releases[0]) {
  context.projects ??= new Map();
  if (context.projects.has(release)) return context.projects.get(release);
  const { sandbox, binaries } = context;
  const bin = sandbox.path(release, binaries.get(release));
  const env = sandbox.environment(bin);
  const folder = sandbox.folder(`Bilder für Zwerge ${release}`, "app");
  sandbox.write(path.join(folder, "package.json"), MANIFEST);
  const { seconds } = await succeed(sandbox, folder, env, "npm", "install", "miro-t2i");
  const project = { folder, env, seconds };
  context.projects.set(release, project);
  return project;
}

/** Installs and draws on one release of Node; the download is measured where the cache is empty. */
async function npmOn(context, release) {
  const { sandbox } = context;
  const first = !context.projects?.size;
  const { folder, env, seconds } = await installed(context, release);
  const download = first
    ? `, ${(sizeOf(path.join(env.npm_config_cache, "_cacache", "content-v2")) / 1e6).toFixed(0)} MB`
    : "";
  sandbox.write(path.join(folder, "draw.mjs"), DRAW);
  const drawing = await succeed(sandbox, folder, env, "node", "draw.mjs");
  await checkApple(context, path.join(folder, "apple.png"));
  const { output } = await succeed(sandbox, folder, env, "node", "--version");
  const total = (seconds + drawing.seconds).toFixed(1);
  return `${output.trim()}: npm install ${seconds.toFixed(1)} s${download}, first picture after ${total} s`;
}

/** Another package manager in a project of its own. */
async function otherManager(context, name, ...install) {
  const { sandbox, binaries, releases } = context;
  const release = releases.find((release) => Number.parseInt(release, 10) >= 22) ?? releases[0];
  const env = sandbox.environment(sandbox.path(release, binaries.get(release)), `cache-${name}`);
  const folder = sandbox.folder(`Bilder für ${name}`, "app");
  sandbox.write(path.join(folder, "package.json"), MANIFEST);
  sandbox.write(path.join(folder, "draw.mjs"), DRAW);
  const { seconds } = await succeed(sandbox, folder, env, name, ...install, "miro-t2i");
  await succeed(sandbox, folder, env, "node", "draw.mjs");
  await checkApple(context, path.join(folder, "apple.png"));
  rmSync(folder, { recursive: true, force: true });
  return `${install.join(" ")} in ${seconds.toFixed(1)} s`;
}

/** Runs a program in the installed project and looks at the apple. */
async function drawWith(context, name, text, ...args) {
  const { sandbox } = context;
  const { folder, env } = await installed(context);
  sandbox.write(path.join(folder, name), text);
  await succeed(sandbox, folder, env, "node", ...args, name);
  await checkApple(context, path.join(folder, "apple.png"));
}

/** Bundles with the package outside and inside: the first draws, the second says how it should have been done. */
async function bundled(context, bundle) {
  const { sandbox } = context;
  const { folder, env } = await installed(context);
  sandbox.write(path.join(folder, "draw.mjs"), DRAW);
  for (const external of [true, false]) {
    const output = path.join(folder, "dist");
    rmSync(output, { recursive: true, force: true });
    mkdirSync(output);
    await bundle({ folder, entry: path.join(folder, "draw.mjs"), output: path.join(output, "app.mjs"), external });
    chmodSync(output, 0o755);
    if (external) {
      await succeed(sandbox, folder, env, "node", "dist/app.mjs");
      await checkApple(context, path.join(folder, "apple.png"));
    } else await refuse(sandbox, folder, env, "mark it as external", "node", "dist/app.mjs");
  }
}

/** A module of the tools. */
function importTool({ tools }, name) {
  const file = createRequire(path.join(tools, "package.json")).resolve(name);
  return import(pathToFileURL(file).href);
}

/** What a plugin that bundles packages would take of this package; what that needs stays outside. */
function sourceOf(folder, id) {
  return id === "miro-t2i" ? path.join(folder, "node_modules", id, "dist", "index.js") : null;
}

/** Every case by its name, in the order in which they run. */
export const CASES = {
  npm: async (context) => {
    const said = [];
    for (const release of context.releases) said.push(await npmOn(context, release));
    return said.join("\n                     ");
  },
  pnpm: (context) => otherManager(context, "pnpm", "add"),
  yarn: (context) => otherManager(context, "yarn", "add", "--non-interactive"),
  commonjs: async (context) => {
    const text = DRAW.replace('import { MiroPipeline } from "miro-t2i";\n', "").replaceAll(/^/gm, "  ").trimEnd();
    await drawWith(
      context,
      "draw.cjs",
      `(async () => {\n  const { MiroPipeline } = await import("miro-t2i");\n${text}\n})();\n`,
    );
    return "await import() in CommonJS";
  },
  worker: async (context) => {
    const { sandbox } = context;
    const { folder } = await installed(context);
    sandbox.write(path.join(folder, "draw.mjs"), DRAW);
    await drawWith(
      context,
      "main.mjs",
      'import { Worker } from "node:worker_threads";\nnew Worker(new URL("draw.mjs", import.meta.url));\n',
    );
    const inside = DRAW.replace("fromPretrained()", "fromPretrained(undefined, { worker: true })");
    await drawWith(context, "inside.mjs", inside);
    return "in a thread of the caller, and in one of its own ({ worker: true })";
  },
  esbuild: async (context) => {
    const program = path.join(context.tools, "node_modules", ".bin", "esbuild");
    await bundled(context, ({ folder, entry, output, external }) => {
      const args = [entry, "--bundle", "--platform=node", "--format=esm", `--outfile=${output}`, "--log-level=error"];
      if (external) args.push("--external:miro-t2i");
      else args.push("--loader:.node=file");
      const { status, stderr } = spawnSync(program, args, { cwd: folder, encoding: "utf8" });
      if (status !== 0) throw new Error(`esbuild failed:\n${stderr}`);
    });
    return "external draws; inside is refused with what to do";
  },
  vite: async (context) => {
    await bundled(context, async ({ folder, entry, output, external }) => {
      await build({
        root: folder,
        logLevel: "silent",
        configFile: false,
        ssr: external ? { external: ["miro-t2i"] } : { noExternal: true },
        build: {
          ssr: entry,
          outDir: path.dirname(output),
          rolldownOptions: { output: { entryFileNames: path.basename(output) } },
        },
      });
    });
    return "external draws; inside is refused with what to do";
  },
  webpack: async (context) => {
    const { default: webpack } = await importTool(context, "webpack");
    await bundled(context, async ({ folder, entry, output, external }) => {
      const stats = await promisify(webpack)({
        mode: "production",
        target: "node20",
        context: folder,
        entry,
        experiments: { outputModule: true },
        optimization: { minimize: false },
        output: { path: path.dirname(output), filename: path.basename(output), module: true },
        externals: external ? { "miro-t2i": "import miro-t2i" } : {},
        // What an application does that bundles native code: binaries are files beside the bundle.
        module: { rules: [{ test: /\.(node|wasm|so[\d.]*)$/, type: "asset/resource" }] },
      });
      const errors = stats.toJson({ all: false, errors: true }).errors;
      if (errors.length > 0) throw new Error(`webpack failed:\n${errors[0].message}`);
    });
    return "external draws; inside is refused with what to do";
  },
  rollup: async (context) => {
    const { rollup } = await importTool(context, "rollup");
    await bundled(context, async ({ folder, entry, output, external }) => {
      const inside = { name: "inside", resolveId: (id) => (external ? null : sourceOf(folder, id)) };
      const bundle = await rollup({
        input: entry,
        external: external ? ["miro-t2i"] : [],
        plugins: [inside],
        onwarn: () => {},
      });
      await bundle.write({ file: output, format: "es", inlineDynamicImports: true });
      await bundle.close();
    });
    return "external draws; inside is refused with what to do";
  },
  npx: async (context) => {
    const { sandbox, binaries, releases, version } = context;
    const env = sandbox.environment(sandbox.path(releases[0], binaries.get(releases[0])));
    const folder = sandbox.folder("außerhalb von allem");
    const { output } = await succeed(sandbox, folder, env, "npx", "--yes", "miro-t2i", "--version");
    if (!output.includes(version)) throw new Error(`expected the version ${version}, got ${output}`);
    const apple = ["a red apple on a light blue background", "--seed", "7", "--output", "."];
    await succeed(sandbox, folder, env, "npx", "--yes", "miro-t2i", "generate", ...apple);
    const picture = readdirSync(folder).find((name) => name.endsWith(".png"));
    if (!picture) throw new Error(`no picture in ${readdirSync(folder)}`);
    await checkApple(context, path.join(folder, picture));
    return "npx miro-t2i generate outside of a project";
  },
  doctor: async (context) => {
    const { sandbox } = context;
    const { folder, env } = await installed(context);
    const { output } = await succeed(sandbox, folder, env, "npx", "miro", "doctor");
    return (
      output
        .split("\n")
        .find((line) => line.includes("libtorch"))
        ?.trim() ?? ""
    );
  },
  incomplete: async (context) => {
    const { sandbox } = context;
    const { folder, env } = await installed(context);
    sandbox.write(path.join(folder, "draw.mjs"), DRAW);
    const scope = path.join(folder, "node_modules", "@miro-t2i");
    const parts = {
      "torch-linux-x64-gnu": "npm install --include=optional",
      "libtorch-linux-x64-gnu": "libtorch is a package",
    };
    for (const [name, advice] of Object.entries(parts)) {
      renameSync(path.join(scope, name), path.join(folder, "away"));
      await refuse(sandbox, folder, env, advice, "node", "draw.mjs");
      renameSync(path.join(folder, "away"), path.join(scope, name));
    }
    return "without the addon or libtorch, the message says how to get them";
  },
  platforms: async (context) => {
    const { sandbox } = context;
    const { folder, env } = await installed(context);
    sandbox.write(path.join(folder, "draw.mjs"), DRAW);
    const said = [];
    for (const [platform, arch] of [
      ["linux", "arm64"],
      ["darwin", "arm64"],
      ["win32", "x64"],
    ]) {
      const text = `for (const [name, value] of Object.entries(${JSON.stringify({ platform, arch })}))
  Object.defineProperty(process, name, { value });
`;
      sandbox.write(path.join(folder, "elsewhere.cjs"), text);
      const message = `no prebuilt native addon for ${platform} ${arch}, only for Linux x64 with glibc 2.28 or newer; build it from a clone`;
      // The file that draws is loaded there as it is here: what differs is what it sees of the machine.
      await refuse(sandbox, folder, env, message, "node", "--require", "./elsewhere.cjs", "draw.mjs");
      said.push(`${platform} ${arch}`);
    }
    return `as if on ${said.join(", ")}, the message says what there is and what to do`;
  },
  libtorch: async (context) => {
    const { sandbox } = context;
    const { folder, env } = await installed(context);
    sandbox.write(path.join(folder, "draw.mjs"), DRAW);
    const packaged = path.join(folder, "node_modules", "@miro-t2i", "libtorch-linux-x64-gnu");
    // Another folder than npm's, with what archives of libtorch have beside the libraries.
    const other = sandbox.folder("eine andere", "libtorch");
    cpSync(path.join(packaged, "lib"), path.join(other, "lib"), { recursive: true });
    const { libtorch: version } = JSON.parse(readFileSync(path.join(packaged, "package.json"), "utf8"));
    sandbox.write(path.join(other, "build-version"), `${version}+cpu\n`);
    const named = { ...env, LIBTORCH: other };
    // Nothing of npm's own can be loaded: what draws is what was named.
    renameSync(packaged, path.join(folder, "away"));
    try {
      await succeed(sandbox, folder, named, "node", "draw.mjs");
      await checkApple(context, path.join(folder, "apple.png"));
      const { output } = await succeed(sandbox, folder, named, "npx", "miro", "doctor");
      if (!output.includes(path.join(other, "lib", "libtorch_cpu.so")))
        throw new Error(`miro doctor names another libtorch than ${other}:\n${output}`);
      const inside = DRAW.replace("fromPretrained()", "fromPretrained(undefined, { worker: true })");
      sandbox.write(path.join(folder, "inside.mjs"), inside);
      await succeed(sandbox, folder, named, "node", "inside.mjs");
      await checkApple(context, path.join(folder, "apple.png"));
    } finally {
      renameSync(path.join(folder, "away"), packaged);
    }
    for (const [text, reason] of [
      ["2.11.0+cpu\n", "libtorch 2.11.0; the installed addon was compiled for"],
      ["", "a libtorch of unknown version"],
    ]) {
      sandbox.write(path.join(other, "build-version"), text);
      await refuse(sandbox, folder, named, reason, "node", "draw.mjs");
    }
    await refuse(sandbox, folder, { ...env, LIBTORCH: folder }, "is no folder of libtorch", "node", "draw.mjs");
    sandbox.write(path.join(other, "lib", "libtorch_cuda.so"), "");
    const install = `npm install @miro-t2i/torch-linux-x64-cuda@${context.version}`;
    await refuse(sandbox, folder, named, install, "node", "draw.mjs");
    return "LIBTORCH names another libtorch, which draws; one of another version is refused, one for CUDA needs its addon";
  },
  cuda: async (context) => {
    const { sandbox, version, cuda } = context;
    if (cuda === null) throw new Error("needs --cuda, the folder of a torch with CUDA");
    const { folder, env } = await installed(context);
    sandbox.write(path.join(folder, "draw.mjs"), DRAW);
    const named = { ...env, LIBTORCH: cuda };
    await refuse(sandbox, folder, named, "@miro-t2i/torch-linux-x64-cuda", "node", "draw.mjs");
    await succeed(sandbox, folder, env, "npm", "install", `@miro-t2i/torch-linux-x64-cuda@${version}`);
    await succeed(sandbox, folder, named, "node", "draw.mjs");
    await checkApple(context, path.join(folder, "apple.png"));
    const { output } = await succeed(sandbox, folder, named, "npx", "miro", "doctor");
    const library = output.split("\n").find((line) => line.includes(path.join(cuda, "lib", "libtorch_cpu.so")));
    if (!library?.includes("CUDA")) throw new Error(`miro doctor names another libtorch than ${cuda}:\n${output}`);
    const devices = /^. devices +(.*)$/m.exec(output)?.[1] ?? "";
    if (!devices.includes("cuda"))
      await refuse(sandbox, folder, named, "cuda", "npx", "miro", "generate", "a fox", "--device", "cuda");
    // Without the variable the installation is what it was.
    await succeed(sandbox, folder, env, "node", "draw.mjs");
    await checkApple(context, path.join(folder, "apple.png"));
    return `${library.trim()}; devices: ${devices}${devices.includes("cuda") ? "" : "; --device cuda is refused"}`;
  },
};
