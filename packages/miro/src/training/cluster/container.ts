/**
 * Processes of a job in containers. The image has `miro` on its path (`deploy/miro.def`, `deploy/Dockerfile`); it sees
 * the folders that a training needs at the places that they have outside.
 *
 * * pyxis (a plugin of SLURM on top of enroot) adds options to `srun`. Variables that an image sets itself win over
 *   those outside, so that the job's settings are read again inside.
 * * apptainer is a command in front of the program.
 */
import { existsSync, statSync } from "node:fs";
import { dirname, isAbsolute, relative, resolve } from "node:path";
import { InvalidInputError, invalid } from "../../errors.js";
import { message, option } from "../../message.js";
import { shellWord } from "../../shell-word.js";

/** What starts containers. */
export const CONTAINER_RUNTIMES = ["pyxis", "apptainer"] as const;

/** One of them. */
export type ContainerRuntime = (typeof CONTAINER_RUNTIMES)[number];

/** `/SOURCE[:/TARGET[:ro]]`; colons and commas separate, so that no path may have them. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: no mount has them
export const CONTAINER_MOUNT = /^\/[^:,\x00-\x1f\x7f]*(?::\/[^:,\x00-\x1f\x7f]*(?::r[ow])?)?$/;

/** The container of a job. */
export interface JobContainer {
  runtime: ContainerRuntime;
  /** A file or folder, absolute, or an address in a registry. */
  image: string;
  /** `/SOURCE:/TARGET` or `/SOURCE:/TARGET:ro` for each folder that it sees. */
  mounts: readonly string[];
}

/** Endings of image files, and what reads them. */
const FILES: readonly (readonly [RegExp, ContainerRuntime])[] = [
  [/\.(?:sif|simg)$/, "apptainer"],
  [/\.(?:sqsh|squashfs)$/, "pyxis"],
];

/**
 * The container that is asked for.
 * @param needed folders that it must see, without those inside of others
 * @param own mounts that the user adds
 * @throws InvalidInputError for an image file that is not there, or that the runtime does not read
 */
export function planContainer(
  { image, runtime: asked }: { image: string; runtime: ContainerRuntime | undefined },
  needed: readonly string[],
  own: readonly string[],
): JobContainer {
  const readBy = FILES.find(([ending]) => ending.test(image))?.[1];
  const isUrl = /^[a-z][a-z0-9+.-]*:\/\//.test(image);
  const isPath = !isUrl && (readBy !== undefined || /^\.{0,2}\//.test(image));
  const place = isPath ? resolve(image) : image;
  if (isPath && !existsSync(place))
    throw new InvalidInputError(
      message`${image}: no such image; name a file, or an address in a registry, as ${option("container")}`,
    );
  const isFolder = isPath && statSync(place).isDirectory();
  const runtime = asked ?? (isFolder || isUrl ? "apptainer" : (readBy ?? "pyxis"));
  if (runtime === "pyxis" && (isFolder || readBy === "apptainer"))
    throw invalid("containerRuntime", `apptainer for ${image}; pyxis reads .sqsh files and registries`, runtime);
  return { runtime, image: place, mounts: [...outermost(needed).map(mountOf), ...own.map(wholeMount)] };
}

/** Words of bash that start a program in a container. */
export interface ContainerWords {
  /** Options of `srun`. */
  srun: string[];
  /** What stands before the arguments of `miro`. */
  command: string[];
}

/** Reads the job's settings, then becomes the program. */
const INSIDE = 'set -a; . "$0" && set +a && exec miro "$@"';

/** How the processes of a job are started in its container. */
export function containerWords(
  { runtime, image, mounts }: JobContainer,
  job: { workingDirectory: string; environmentFile: string; usesGpus: boolean },
): ContainerWords {
  const inside = ["bash", "-c", `'${INSIDE}'`, shellWord(job.environmentFile)];
  if (runtime === "pyxis")
    return {
      srun: [
        `--container-image=${shellWord(image)}`,
        `--container-mounts=${shellWord(mounts.join(","))}`,
        `--container-workdir=${shellWord(job.workingDirectory)}`,
        "--no-container-mount-home",
        "--no-container-entrypoint",
      ],
      command: inside,
    };
  const binds = mounts.flatMap((mount) => ["--bind", shellWord(mount)]);
  const gpus = job.usesGpus ? ["--nv"] : [];
  return {
    srun: [],
    command: [
      "apptainer",
      "exec",
      ...gpus,
      ...binds,
      "--pwd",
      shellWord(job.workingDirectory),
      shellWord(image),
      ...inside,
    ],
  };
}

/** Folders that are not inside of another one, in their order. */
export function outermost(folders: readonly string[]): string[] {
  const isInside = (path: string, folder: string) => {
    const way = relative(folder, path);
    return way !== "" && way !== ".." && !way.startsWith("../") && !isAbsolute(way);
  };
  const all = [...new Set(folders)];
  return all.filter((path) => !all.some((folder) => isInside(path, folder)));
}

/**
 * The folders that texts name: absolute paths and those that lead out of the working directory, where they exist.
 * @param value of a recipe: texts, lists and mappings of them
 */
export function foldersIn(value: unknown): string[] {
  if (typeof value === "object" && value !== null) return Object.values(value).flatMap(foldersIn);
  if (typeof value !== "string" || !/^(?:\.\.)?\//.test(value)) return [];
  const path = resolve(value);
  const stat = statSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return [];
  return [stat.isDirectory() ? path : dirname(path)].filter((folder) => folder !== "/");
}

function mountOf(folder: string): string {
  const mount = `${folder}:${folder}`;
  if (CONTAINER_MOUNT.test(mount)) return mount;
  throw new InvalidInputError(
    `${folder}: a container cannot be given a path with a colon, a comma or a control character; choose another place`,
  );
}

/** `/data` → `/data:/data`. */
function wholeMount(mount: string): string {
  return mount.includes(":") ? mount : `${mount}:${mount}`;
}
