#!/usr/bin/env node
/**
 * Makes the packages as they are published, with a manifest of sizes and hashes. The same sources, compiler and
 * libtorch give the same bytes.
 *
 *   npm run pack:release                    all, into build/release
 *   npm run pack:release -- --js            the packages of JavaScript alone, without compiler and libtorch
 *   npm run pack:release -- --cuda FOLDER   also the addon for CUDA, compiled against the torch in FOLDER, which pip
 *                                           has installed with CUDA and the headers of its libraries
 *   npm run pack:release -- --output DIR
 *
 * The addon is compiled against the set-up's private copy of libtorch, fetched where it is not there yet (or what
 * LIBTORCH names, which must be the official CPU build), for an old glibc: a newer symbol in a binary is an error.
 */
import { createReadStream, existsSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { removeKilledWrites, writeFileAtomically } from "../../packages/torch/dist/io/atomic-write.js";
import { cudaOf } from "../../packages/torch/dist/named-libtorch.js";
import { argumentsOf } from "../setup/command-line.mjs";
import { coreLibrary, headerVersion, privateCopy, version as wanted } from "../setup/libtorch.mjs";
import { fingerprint, SetupError } from "../setup/report.mjs";
import { releaseAddon, tooNew } from "./addon.mjs";
import {
  addonPackage,
  cudaPackage,
  LIBTORCH_PACKAGE,
  libtorchPackage,
  miroPackage,
  torchPackage,
} from "./packages.mjs";
import { digests, packPackage, writeWhole } from "./tarball.mjs";

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "..", "..");
const log = (text) => process.stderr.write(text);

/** The official CPU build whose libraries are published. */
async function officialLibtorch(context) {
  const { env } = context;
  const named = env.MIRO_LIBTORCH || env.LIBTORCH;
  const folder = named ? path.resolve(named) : await privateCopy(context);
  const found = coreLibrary(folder) && headerVersion(folder)?.join(".");
  if (found !== wanted || existsSync(path.join(folder, "lib", "libtorch_cuda.so"))) {
    const hint = "unset LIBTORCH, and the official wheel is fetched, or name that wheel's folder";
    throw new SetupError(
      `expected the CPU build of libtorch ${wanted} in ${folder}, found ${found || "none"}; ${hint}`,
    );
  }
  return { torch: folder, torchVersion: wanted };
}

/** A torch with CUDA, as pip has installed it: what the addon for CUDA is compiled against. */
function cudaLibtorch(named) {
  const folder = path.resolve(named);
  const found = coreLibrary(folder) && headerVersion(folder)?.join(".");
  const cuda = cudaOf(folder);
  if (found !== wanted || !existsSync(path.join(folder, "lib", "libtorch_cuda.so")) || cuda === null)
    throw new SetupError(
      `--cuda ${folder}: expected the folder of a torch ${wanted} with CUDA that pip has installed, found ` +
        `${found ? `${found}${cuda === null ? " for CPUs" : ""}` : "none"}`,
    );
  return { torch: folder, torchVersion: wanted, cuda };
}

/** Packs one package. libtorch takes a minute to compress: its tarball is kept by its content. */
async function pack(output, { name, version, entries }) {
  const file = `${name.replace("@", "").replace("/", "-")}-${version}.tgz`;
  const target = path.join(output, file);
  let sizes;
  if (name === LIBTORCH_PACKAGE) {
    const texts = JSON.stringify([...entries].filter(([, entry]) => "content" in entry));
    const files = [...entries.values()].flatMap((entry) => ("file" in entry ? [entry.file] : []));
    const tool = fileURLToPath(new URL("tarball.mjs", import.meta.url));
    const kept = path.join(root, ".cache", "release", `${fingerprint("/", [...files, tool], texts).slice(0, 16)}.tgz`);
    if (!existsSync(kept)) {
      log(`pack: ${file} (a minute or two) ...\n`);
      mkdirSync(path.dirname(kept), { recursive: true });
      removeKilledWrites(path.dirname(kept));
      await packPackage(kept, entries);
    }
    await writeWhole(target, createReadStream(kept));
    sizes = await digests(target);
  } else {
    sizes = await packPackage(target, entries);
  }
  return { name, version, file, files: entries.size, ...sizes };
}

async function main() {
  const { values } = argumentsOf(import.meta.url, {
    js: { type: "boolean" },
    cuda: { type: "string" },
    output: { type: "string" },
  });
  if (values.js && values.cuda !== undefined) throw new SetupError("--js and --cuda: choose one of them");
  const withCuda = values.cuda === undefined ? null : cudaLibtorch(values.cuda);
  const output = path.resolve(values.output ?? path.join(root, "build", "release"));
  mkdirSync(output, { recursive: true });
  removeKilledWrites(output);
  // It says that all packages are there, so it is the first to go and the last to come.
  const list = path.join(output, "manifest.json");
  rmSync(list, { force: true });
  for (const name of readdirSync(output)) if (name.endsWith(".tgz")) rmSync(path.join(output, name));
  const context = { root, env: process.env, log };
  const packages = [torchPackage(context), await miroPackage(context)];
  if (!values.js) {
    const libtorch = await officialLibtorch(context);
    const addon = await releaseAddon({ ...context, ...libtorch, libtorch: LIBTORCH_PACKAGE });
    const binary = { ...context, ...libtorch };
    packages.push(addonPackage({ ...binary, addon }), await libtorchPackage(binary));
    if (withCuda !== null) {
      const { cuda, ...its } = withCuda;
      const addon = await releaseAddon({ ...context, ...its, libtorch: null, cuda: true });
      packages.push(cudaPackage({ root, ...withCuda, addon }));
    }
    for (const { name, entries } of packages) {
      for (const [inside, entry] of entries) {
        if (!("file" in entry) || !/\.(node|so(\.\d+)*)$/.test(inside)) continue;
        const symbols = tooNew(entry.file);
        if (symbols.length === 0) continue;
        const cure = "build on an older system, or give them an old version in scripts/release/old-glibc.h";
        throw new SetupError(
          `${name}: ${inside} needs a newer system than is promised: ${symbols.join(", ")}; ${cure}`,
        );
      }
    }
  }
  const manifest = [];
  for (const one of packages) manifest.push(await pack(output, one));
  const text = `${JSON.stringify({ packages: manifest }, null, 2)}\n`;
  writeFileAtomically(list, (write) => write(Buffer.from(text)));
  for (const { file, bytes, files, sha256 } of manifest) {
    console.log(`${file}  ${(bytes / 1e6).toFixed(1)} MB, ${files} files, sha256 ${sha256.slice(0, 16)}`);
  }
  console.log(`${path.relative(process.cwd(), output) || "."}: ${manifest.length} packages and manifest.json`);
}

try {
  await main();
} catch (error) {
  // A full disk and the like are errors of the system, or of the writer of whole files.
  if (!(error instanceof SetupError || error.name === "TorchError" || "syscall" in error)) throw error;
  log(`pack: ${error.message}\n`);
  process.exitCode = 1;
}
