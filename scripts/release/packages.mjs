/** What each published package holds: paths within the package, and the file or text that lies there. */
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { fingerprint, listFiles, readJson, run, SetupError } from "../setup/report.mjs";
import { optionsOfFolder, publishedDeclaration } from "./declarations.mjs";

/** The platform that the binary packages are for. */
const PLATFORM = "linux-x64-gnu";
export const ADDON_PACKAGE = `@miro-t2i/torch-${PLATFORM}`;
export const LIBTORCH_PACKAGE = `@miro-t2i/libtorch-${PLATFORM}`;
export const CUDA_PACKAGE = "@miro-t2i/torch-linux-x64-cuda";

/** What the addon loads of libtorch; headers, tests, Python's parts and static libraries stay behind. */
const LIBRARIES = ["libc10.so", "libgomp.so.1", "libtorch.so", "libtorch_cpu.so"];

/** The prompts that runs draw for comparison. */
const TESTBED = "datasets/text_prompt_testbed";

/** The models that come with the program. */
const MODELS = ["miro-emoji", "emoji-clip", "emoji-classifier"];

/**
 * A package.json as it is published. npm attests where a package was made only where the repository is named in it; a
 * workflow of GitHub names its own.
 */
function json(manifest) {
  const { GITHUB_SERVER_URL: server, GITHUB_REPOSITORY: name } = process.env;
  const repository = server && name ? { repository: { type: "git", url: `git+${server}/${name}.git` } } : {};
  return `${JSON.stringify({ ...manifest, ...repository }, null, 2)}\n`;
}

/**
 * The files that npm would pack of a workspace, without the comments that name source maps, which are not packed;
 * declarations as declarations.mjs publishes them.
 */
function workspaceEntries(root, folder) {
  const home = path.join(root, folder);
  const listing = execFileSync("npm", ["pack", "--dry-run", "--json", "--silent", "--ignore-scripts"], {
    cwd: home,
    encoding: "utf8",
    maxBuffer: 2 ** 26,
  });
  const [{ files }] = JSON.parse(listing);
  const entries = new Map();
  const options = optionsOfFolder(path.join(home, "src"));
  for (const { path: name } of files) {
    const file = path.join(home, name);
    const mapped = /\.(js|ts)$/.test(name) && name.startsWith("dist/");
    if (!mapped) entries.set(name, { file });
    else if (isCompiled(home, name)) {
      const content = readFileSync(file, "utf8").replace(/\n\/\/# sourceMappingURL=\S+\s*$/, "\n");
      const source = path.join(home, name.replace(/^dist\/(.*)\.d\.ts$/, "src/$1.ts"));
      entries.set(name, { content: source.endsWith(".ts") ? publishedDeclaration(content, options(source)) : content });
    }
  }
  if (!entries.has("dist/index.js")) throw new SetupError(`${folder} is not built: run npm run build`);
  return entries;
}

/** Whether what was compiled still has its source: tsc leaves what it made of files that were moved or removed. */
export function isCompiled(home, name) {
  return existsSync(path.join(home, name.replace(/^dist\/(.*?)(\.d\.ts|\.js)$/, "src/$1.ts")));
}

/** `@miro-t2i/torch`: JavaScript, and the addon's sources. */
export function torchPackage({ root }) {
  const entries = workspaceEntries(root, "packages/torch");
  const manifest = readJson(path.join(root, "packages/torch/package.json"));
  const optionalDependencies = { [ADDON_PACKAGE]: manifest.version };
  entries.set("package.json", { content: json({ ...manifest, optionalDependencies }) });
  entries.set("LICENSE", { file: path.join(root, "LICENSE") });
  return { name: manifest.name, version: manifest.version, entries };
}

/** `miro-t2i`: the program with its models, recipes, prompts and manual page. */
export async function miroPackage({ root }) {
  const entries = workspaceEntries(root, "packages/miro");
  const manifest = readJson(path.join(root, "packages/miro/package.json"));
  const built = (file) => import(pathToFileURL(path.join(root, "packages/miro/dist/cli", file)).href);
  const [{ wholeProgram }, { manPage }] = await Promise.all([built("main.js"), built("man-page.js")]);
  entries.set("man/miro.1", { content: manPage(await wholeProgram(), manifest.version) });
  entries.set("package.json", { content: json({ ...manifest, man: ["./man/miro.1"] }) });
  for (const name of ["LICENSE", "THIRD_PARTY_NOTICES.md"]) entries.set(name, { file: path.join(root, name) });
  for (const folder of ["recipes", TESTBED, ...MODELS.map((name) => `models/${name}`)]) {
    const files = listFiles(path.join(root, folder), () => true);
    if (files.length === 0) throw new SetupError(`${folder} is empty: it is part of miro-t2i`);
    for (const file of files) entries.set(path.relative(root, file), { file });
  }
  return { name: manifest.name, version: manifest.version, entries };
}

const platformFields = (version, description) => ({
  version,
  description,
  engines: { node: ">=20.19" },
  os: ["linux"],
  cpu: ["x64"],
  libc: ["glibc"],
  // Yarn's Plug'n'Play would leave it in an archive, where the system's loader cannot read it.
  preferUnplugged: true,
});

/** The compiled addon. It depends on libtorch, so that every package manager puts the two beside each other. */
export function addonPackage(context) {
  const description = "The native addon of @miro-t2i/torch for Linux on x64 with glibc 2.28 or newer.";
  const readme = `${description} npm installs it with \`@miro-t2i/torch\`.`;
  const { version } = readJson(path.join(context.root, "packages/torch/package.json"));
  return addonOf(context, ADDON_PACKAGE, description, readme, { dependencies: { [LIBTORCH_PACKAGE]: version } });
}

/**
 * The addon for a libtorch with CUDA, which has several GB: it is no package, LIBTORCH names what pip has installed.
 */
export function cudaPackage({ cuda, ...context }) {
  const description = `The native addon of @miro-t2i/torch for CUDA ${cuda}, for Linux on x64 with glibc 2.28 or newer.`;
  const readme =
    `${description} libtorch is not part of it: \`LIBTORCH\` names the folder of a torch ` +
    `${context.torchVersion.replace(/\.\d+$/, "")} for CUDA, such as that of Python's torch.`;
  return addonOf(context, CUDA_PACKAGE, description, readme, { cuda });
}

function addonOf({ root, addon, torchVersion }, name, description, readme, more) {
  const { version } = readJson(path.join(root, "packages/torch/package.json"));
  const manifest = {
    name,
    ...platformFields(version, description),
    license: "MIT",
    exports: { "./miro_torch.node": "./miro_torch.node", "./package.json": "./package.json" },
    // What it was compiled for: another libtorch that LIBTORCH names must be of the same release.
    libtorch: torchVersion,
    ...more,
  };
  const entries = new Map([
    ["package.json", { content: json(manifest) }],
    ["README.md", { content: `# ${name}\n\n${readme}\n` }],
    ["LICENSE", { file: path.join(root, "LICENSE") }],
    ["miro_torch.node", { file: addon }],
  ]);
  return { name, version, entries };
}

/** libtorch for CPUs. */
export async function libtorchPackage(context) {
  const { root, torch, torchVersion } = context;
  const { version } = readJson(path.join(root, "packages/torch/package.json"));
  const manifest = {
    name: LIBTORCH_PACKAGE,
    ...platformFields(version, `libtorch ${torchVersion} for CPUs, as @miro-t2i/torch needs it: Linux, x64, glibc.`),
    license: "BSD-3-Clause AND GPL-3.0-or-later WITH GCC-exception-3.1",
    exports: { "./package.json": "./package.json", "./lib/*": "./lib/*" },
    libtorch: torchVersion,
  };
  const notices = path.join(root, "scripts", "release", "libtorch-notices.md");
  const entries = new Map([
    ["package.json", { content: json(manifest) }],
    ["README.md", { content: `# ${LIBTORCH_PACKAGE}\n\n${manifest.description} npm installs it.\n` }],
    ["LICENSE", { file: licenseOf(torch) }],
    ["THIRD_PARTY_NOTICES.md", { file: notices }],
  ]);
  for (const name of LIBRARIES) entries.set(`lib/${name}`, { file: await strippedLibrary(context, name) });
  return { name: LIBTORCH_PACKAGE, version, entries };
}

/** PyTorch's licence, which lies beside the libraries of the official wheel. */
function licenseOf(torch) {
  const file = listFiles(path.dirname(torch), (name) => /\.dist-info\/(licenses\/)?LICENSE$/.test(name))[0];
  if (!file) throw new SetupError(`the licence of libtorch was not found beside ${torch}`);
  return file;
}

/** A library of libtorch without symbols for debuggers (a fifth of its size), kept in .cache/release. */
async function strippedLibrary({ root, torch, env }, name) {
  const source = path.join(torch, "lib", name);
  if (!existsSync(source)) throw new SetupError(`${source} is missing: packages are made from the official CPU wheel`);
  if (name === "libgomp.so.1") return source; // its tables were moved by the wheel's makers: strip would damage them
  const folder = path.join(root, ".cache", "release", `lib-${fingerprint(torch, [source]).slice(0, 16)}`);
  const target = path.join(folder, name);
  if (existsSync(target)) return target;
  mkdirSync(folder, { recursive: true });
  const unfinished = `${target}.part`;
  rmSync(unfinished, { force: true });
  await run(`Stripping ${name}`, "strip", ["--strip-unneeded", "-o", unfinished, source], { env });
  renameSync(unfinished, target);
  return target;
}
