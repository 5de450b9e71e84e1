/**
 * The files with which `miro` runs on a machine that sees neither this clone (or installation) nor its Node nor its
 * libtorch: Node itself, this package and the packages that it needs in turn, and the libraries that the addon loads.
 */
import { existsSync, readdirSync, readFileSync, realpathSync, statSync } from "node:fs";
import { basename, dirname, join, relative, sep } from "node:path";
import { MiroError } from "../../errors.js";

/** A file, or a link between packages, and its place in the copy. */
export interface RuntimeFile {
  source: string;
  target: string;
  /** Of a link: where it leads, from its own folder. */
  link?: string;
  sizeBytes: number;
  modifiedMs: number;
}

/** All files, and the places in the copy that are needed to start. */
export interface RuntimeFiles {
  files: RuntimeFile[];
  /** Node's program. */
  node: string;
  /** The file of the `miro` command. */
  miro: string;
  /** Folder of libtorch's libraries, where they are no package's. */
  libraries: string | null;
}

/** What of a clone's packages is run; the rest is sources, tests and what building has left. */
const RUN = ["package.json", "bin", "dist", "assets", "web", "build"];

const NOT_RUN = /\.(?:[cm]?ts|map|md|tsbuildinfo|test\.js)$/;

/**
 * Collects them.
 * @param home folder of this package
 * @param node the running Node
 * @param libtorch the file of libtorch that the addon has loaded
 */
export function runtimeFiles(home: string, node: string, libtorch: string): RuntimeFiles {
  const { folders, links } = packagesOf(realpathSync(home));
  const root = commonFolder([...folders, ...[...links.keys()].map(dirname)]);
  const inApp = (path: string) => join("app", relative(root, path));
  const ofPackages = [...folders].flatMap((folder) =>
    filesIn(folder, isOfClone(folder) ? RUN : readdirSync(folder)).map((path) => fileAt(path, inApp(path))),
  );
  const ofLinks = [...links].map(([path, leadsTo]): RuntimeFile => {
    return { source: path, target: inApp(path), link: relative(dirname(path), leadsTo), sizeBytes: 0, modifiedMs: 0 };
  });
  const isPackaged = [...folders].some((folder) => realpathSync(libtorch).startsWith(`${folder}${sep}`));
  const torch = dirname(dirname(realpathSync(libtorch)));
  return {
    files: [
      fileAt(realpathSync(node), "bin/node"),
      ...ofPackages,
      ...ofLinks,
      ...(isPackaged
        ? []
        : librariesOf(torch).map((path) => fileAt(path, join("libtorch", relative(dirname(torch), path))))),
    ],
    node: "bin/node",
    miro: inApp(join(realpathSync(home), "bin/miro.mjs")),
    libraries: isPackaged ? null : join("libtorch", basename(torch), "lib"),
  };
}

/** The folder of a package and of those that it needs in turn, and the links by which they are found. */
function packagesOf(home: string): { folders: Set<string>; links: Map<string, string> } {
  const folders = new Set<string>();
  const links = new Map<string, string>();
  const open = [home];
  for (let folder = open.pop(); folder !== undefined; folder = open.pop()) {
    if (folders.has(folder)) continue;
    folders.add(folder);
    const manifest = JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as Record<
      string,
      object | undefined
    >;
    const { dependencies = {}, optionalDependencies = {}, peerDependencies = {} } = manifest;
    for (const name of Object.keys({ ...dependencies, ...optionalDependencies, ...peerDependencies })) {
      const place = placeOf(name, folder);
      if (place === null) {
        // Packages of other platforms, and peers that only some users need.
        if (name in optionalDependencies || name in peerDependencies) continue;
        throw new MiroError(`${folder}: needs ${name}, which is not installed; install again`);
      }
      const real = realpathSync(place);
      if (real !== place) links.set(place, real);
      open.push(real);
    }
  }
  return { folders, links };
}

/** Where a package finds another: in its own node_modules, else in those of the folders above. */
function placeOf(name: string, from: string): string | null {
  for (let folder = from; ; folder = dirname(folder)) {
    const place = join(folder, "node_modules", name);
    if (existsSync(join(place, "package.json"))) return join(realpathSync(join(folder, "node_modules")), name);
    if (dirname(folder) === folder) return null;
  }
}

function isOfClone(folder: string): boolean {
  return !folder.split(sep).includes("node_modules");
}

/** Files that are run, below some entries of a folder. */
function filesIn(folder: string, entries: readonly string[]): string[] {
  return entries.flatMap((name) => {
    const path = join(folder, name);
    const stat = statSync(path, { throwIfNoEntry: false });
    if (stat === undefined || name === "node_modules" || name === "cmake") return [];
    if (stat.isDirectory()) return filesIn(path, readdirSync(path));
    return stat.isFile() && !NOT_RUN.test(name) ? [path] : [];
  });
}

/** The libraries of a libtorch, and those of CUDA that pip installs beside it, which its own look for there. */
function librariesOf(torch: string): string[] {
  const beside = dirname(torch);
  const cuda = join(beside, "nvidia");
  const folders = [
    join(torch, "lib"),
    join(beside, "torch.libs"),
    ...(existsSync(cuda) ? readdirSync(cuda).map((name) => join(cuda, name, "lib")) : []),
  ];
  return folders
    .filter((folder) => existsSync(folder))
    .flatMap((folder) => readdirSync(folder).map((name) => join(folder, name)))
    .filter((path) => /\.so(?:\.\d+)*$/.test(path));
}

function fileAt(path: string, target: string): RuntimeFile {
  const source = realpathSync(path);
  const { size, mtimeMs } = statSync(source);
  return { source, target, sizeBytes: size, modifiedMs: Math.trunc(mtimeMs) };
}

/** The deepest folder that holds all of them. */
function commonFolder(paths: readonly string[]): string {
  const [first, ...rest] = paths.map((path) => path.split(sep));
  const common = first!.filter((_, i) =>
    rest.every((parts) => first!.slice(0, i + 1).every((part, j) => parts[j] === part)),
  );
  return common.join(sep) || sep;
}
