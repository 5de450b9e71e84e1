/** What sites ask of jobs: their options of sbatch, modules, containers, nodes that do not see where miro lies. */
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, type Jobs, logLines } from "./jobs.js";

const MIRO = fileURLToPath(new URL("../../packages/miro/bin/miro.mjs", import.meta.url.replace("/dist/", "/")));

const FEW = ["trainer.max_steps=3"];

/** What `scontrol` says of a job, as it was submitted. */
async function asked(jobs: Jobs, id: string): Promise<string> {
  return jobs.cluster.tool("scontrol", "--oneliner", "show", "job", id);
}

export async function options(jobs: Jobs): Promise<void> {
  const site = { SBATCH_ACCOUNT: "vision", SBATCH_CONSTRAINT: "fast", SBATCH_MEM_PER_NODE: "much less" };
  Object.assign(process.env, site);
  try {
    const id = await jobs.launch("options", FEW, ["--mem", "100M", "--gres", "gpu:2"]);
    const text = await asked(jobs, id);
    for (const part of [
      /Account=vision /,
      /Features=fast /,
      /MinMemoryNode=100M/,
      /TresPerNode=gres:gpu:2/,
      /Partition=test /,
    ])
      expect(part.test(text), `${part}: ${text}`);
    await jobs.completed(id);
  } finally {
    for (const name of Object.keys(site)) delete process.env[name];
  }
  jobs.passed("the default partition, --gres and --mem as given, account and constraint from SBATCH_*");

  const id = await jobs.launch("gpus", FEW, ["--gpus-per-node", "2"]);
  const text = await asked(jobs, id);
  expect(/TresPerNode=gres:gpu:2/.test(text), text);
  await jobs.completed(id);
  jobs.passed("--gpus-per-node");
}

export async function prologue(jobs: Jobs): Promise<void> {
  const file = join(jobs.folder, "modules.sh");
  const noted = join(jobs.folder, "modules-loaded");
  writeFileSync(file, `set -e\nulimit -s 16384\nexport FROM_MODULES=1\necho "$UNSET" > '${noted}'\ncd /\n`);
  const id = await jobs.launch("prologue", ["trainer.max_steps=100000"], ["--prologue", file]);
  await jobs.steps("prologue", 1);
  const pid = jobs.rank(id, 1);
  expect(existsSync(noted), "the prologue did not run");
  expect(readFileSync(`/proc/${pid}/environ`, "utf8").includes("\0FROM_MODULES=1\0"), "no variable of the prologue");
  expect(/Max stack size +16777216 /.test(readFileSync(`/proc/${pid}/limits`, "utf8")), "no limit of the prologue");
  await jobs.cluster.tool("scancel", id);
  await jobs.ended(id);
  jobs.passed("the processes have the variables and the limits of a prologue");
}

export async function nodes(jobs: Jobs): Promise<void> {
  const layout = ["trainer.num_nodes=2", "trainer.devices=1"];
  const options = ["--partition", "pair", "--network-interface", "lo", "--stage-to", join(jobs.folder, "disk of two")];
  const id = await jobs.launch("nodes", [...FEW, ...layout], options);
  await jobs.completed(id);
  const text = await asked(jobs, id);
  expect(/NumNodes=2 /.test(text), text);
  expect(logLines(join(jobs.folder, "nodes")).length === 3, "not all steps");
  expect(jobs.log().includes("cpu × 2"), jobs.log());
  jobs.passed("two nodes with a process each meet, by the network interface that is given, and train together");
}

export async function edited(jobs: Jobs): Promise<void> {
  const folder = join(jobs.folder, "to edit");
  const noted = join(jobs.folder, "edited");
  const script = (await jobs.miroLaunch("written", FEW, ["--write", folder])).trim();
  writeFileSync(script, readFileSync(script, "utf8").replace("\nset -u\n", `\nset -u\ntouch '${noted}'\n`));
  const id = (await jobs.cluster.tool("sbatch", "--parsable", script)).trim();
  await jobs.completed(id);
  expect(existsSync(noted), "the edited line did not run");
  expect(logLines(join(jobs.folder, "written")).length === 3, "not all steps");
  jobs.passed("a script that --write has written runs after it was edited");
}

/**
 * Stand-ins for what few machines have: they note their arguments and run the program that they are given, in which
 * `miro` is this clone's.
 */
function standIns(jobs: Jobs): string {
  const bin = join(jobs.folder, "bin");
  const srun = process.env
    .PATH!.split(delimiter)
    .map((folder) => join(folder, "srun"))
    .find((file) => existsSync(file))!;
  mkdirSync(bin, { recursive: true });
  const program = (name: string, text: string) => {
    writeFileSync(join(bin, name), `#!/bin/bash\n${text}`);
    chmodSync(join(bin, name), 0o755);
  };
  program("miro", `exec '${process.execPath}' '${MIRO}' "$@"\n`);
  program(
    "apptainer",
    `printf '%s\\n' "$@" > '${bin}/apptainer.arguments'
while [ "\${1##*/}" != miro.sif ]; do shift; done
shift
exec "$@"
`,
  );
  // SLURM refuses options of a plugin that it has not.
  program(
    "srun",
    `printf '%s\\n' "$@" > '${bin}/srun.arguments'
kept=()
for word in "$@"; do
  case $word in --container-* | --no-container-*) ;; *) kept+=("$word") ;; esac
done
exec '${srun}' "\${kept[@]}"
`,
  );
  return bin;
}

export async function containers(jobs: Jobs): Promise<void> {
  const bin = standIns(jobs);
  const path = process.env.PATH;
  process.env.PATH = `${bin}${delimiter}${path}`;
  try {
    const image = join(jobs.folder, "miro.sif");
    writeFileSync(image, "");
    await jobs.completed(
      await jobs.launch("apptainer", FEW, ["--container", image, "--container-mount", "/usr:/host:ro"]),
    );
    const words = readFileSync(join(bin, "apptainer.arguments"), "utf8").split("\n");
    const output = join(jobs.folder, "apptainer");
    for (const mount of [`${process.cwd()}:${process.cwd()}`, `${output}:${output}`, "/usr:/host:ro"])
      expect(words[words.indexOf(mount) - 1] === "--bind", `not mounted: ${mount}\n${words.join(" ")}`);
    expect(words[0] === "exec" && !words.includes("--nv"), words.join(" "));
    expect(logLines(output).length === 3, "not all steps");
    jobs.passed("apptainer is called with the image and the folders, and the training inside does its steps");

    await jobs.completed(await jobs.launch("pyxis", FEW, ["--container", "registry#me/miro:1"]));
    const options = readFileSync(join(bin, "srun.arguments"), "utf8").split("\n");
    const run = join(jobs.folder, "pyxis");
    expect(options.includes("--container-image=registry#me/miro:1"), options.join(" "));
    expect(options.includes(`--container-workdir=${process.cwd()}`), options.join(" "));
    const mounts = options.find((word) => word.startsWith("--container-mounts="));
    expect(mounts?.split(/[=,]/).includes(`${run}:${run}`) === true, options.join(" "));
    expect(logLines(run).length === 3, "not all steps");
    jobs.passed("srun gets the options of pyxis, and the training inside does its steps");
  } finally {
    process.env.PATH = path;
  }
}

export async function staging(jobs: Jobs): Promise<void> {
  const disk = join(jobs.folder, "disk of the node");
  const options = ["--stage-to", disk];
  const first = await jobs.launch("staged", ["trainer.max_steps=100000"], options);
  await jobs.steps("staged", 1);
  const pid = jobs.rank(first, 1, 1);
  const own = join(disk, `miro-${process.getuid!()}`);
  expect(readlinkSync(`/proc/${pid}/exe`).startsWith(`${own}/`), "Node is not that of the copy");
  const libraries = readFileSync(`/proc/${pid}/maps`, "utf8").split("\n");
  for (const name of ["libtorch_cpu.so", "libc10.so", "miro_torch.node"]) {
    const loaded = libraries.filter((line) => line.endsWith(`/${name}`));
    expect(loaded.length > 0 && loaded.every((line) => line.includes(`${own}/`)), `${name} is not that of the copy`);
  }
  await jobs.cluster.tool("scancel", first);
  await jobs.ended(first);
  jobs.passed("Node, libtorch and the addon of a copy on the node's disk train");

  const copy = join(own, readdirSync(own).find((name) => name !== "lock")!);
  // A number of an inode is soon given out again.
  const whenMade = () => statSync(join(copy, "bin")).birthtimeMs;
  const made = whenMade();
  await jobs.completed(await jobs.launch("staged-again", FEW, options));
  expect(whenMade() === made, "the copy was made again");
  rmSync(join(copy, "bin/node"));
  await jobs.completed(await jobs.launch("staged-anew", FEW, options));
  expect(existsSync(join(copy, "bin/node")) && whenMade() > made, "the copy was not made anew");
  jobs.passed("a later job uses the copy again, and makes it anew where a part is gone");
}
