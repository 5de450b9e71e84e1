/** The options of `miro launch`, declared once. */
import { z } from "zod";
import { field, flag, type OptionsOf } from "../../options.js";
import { scorerModules as moduleFiles } from "../../rewards/scorer-modules.js";
import { CONTAINER_MOUNT, CONTAINER_RUNTIMES } from "./container.js";
import { nodePath } from "./staging.js";
import { limitSeconds } from "./time-limit.js";

const count = z.int().positive();

const text = z.string().min(1).optional();

/** An option of sbatch that a site may set for all of its jobs. */
const sbatchOption = (flag: string, help: string, otherwise: string) =>
  field(text, { expected: `a value of sbatch's ${flag.split(" ")[0]}`, help, flag, otherwise });

/** Options of {@link planJob}. */
export const launchOptionsSchema = z.strictObject({
  /** Name or file of the recipe. */
  recipe: field(z.string().min(1), {
    expected: "the name or file of a recipe",
    help: "name or file of the recipe",
    flag: "<recipe>",
  }),
  /** Values that replace those of the recipe, as `key=value`. */
  overrides: field(z.array(z.string()).default([]), {
    expected: "key=value",
    help: "values that replace those of the recipe",
    flag: "[key=value...]",
  }),
  /** Folder of the run. Default: runs/NAME. */
  output: field(text, {
    expected: "a path",
    help: "folder of the run",
    flag: "--output <dir>",
    writes: "folder",
    otherwise: "runs/NAME",
  }),
  /** Partition to submit to. Default: MIRO_SLURM_PARTITION, else SBATCH_PARTITION, else the site's. */
  partition: sbatchOption(
    "--partition <name>",
    "partition to submit to",
    "MIRO_SLURM_PARTITION, else SBATCH_PARTITION, else the site's",
  ),
  /** Account that the job is charged to. Default: SBATCH_ACCOUNT, else the site's. */
  account: sbatchOption("--account <name>", "account that the job is charged to", "SBATCH_ACCOUNT, else the site's"),
  /** Quality of service. Default: SBATCH_QOS, else the site's. */
  qos: sbatchOption("--qos <name>", "quality of service", "SBATCH_QOS, else the site's"),
  /** Features that the nodes must have. Default: SBATCH_CONSTRAINT. */
  constraint: sbatchOption("--constraint <features>", "features that the nodes must have", "SBATCH_CONSTRAINT"),
  /** Memory of each node, as `64G`; 0 is all of it. Default: SBATCH_MEM_PER_NODE, else the site's. */
  mem: field(
    z
      .string()
      .regex(/^\d+[KMGT]?$/i)
      .optional(),
    {
      expected: "a size as 64G, or 0 for all memory",
      help: "memory of each node, as 64G; 0 is all of it",
      flag: "--mem <size>",
      otherwise: "SBATCH_MEM_PER_NODE, else the site's",
    },
  ),
  /** GPUs of each node where the site counts them so, as `8` or `a100:8`. Default: SBATCH_GPUS_PER_NODE. */
  gpusPerNode: field(
    z
      .string()
      .regex(/^(?:[\w.-]+:)?[1-9]\d*$/)
      .optional(),
    {
      expected: "a number of GPUs, or TYPE:NUMBER",
      help: "ask for GPUs with sbatch's --gpus-per-node, as 8 or a100:8",
      flag: "--gpus-per-node <gpus>",
      otherwise: "SBATCH_GPUS_PER_NODE, else --gres",
    },
  ),
  /** Generic resources of each node. Default: SBATCH_GRES, else a GPU for each process where the recipe uses GPUs. */
  gres: field(
    z
      .string()
      .regex(/^[\w.-]+(?::[\w.-]+){0,2}(?:,[\w.-]+(?::[\w.-]+){0,2})*$/)
      .optional(),
    {
      expected: "resources as gpu:8 or gpu:a100:8,tmpfs:100G",
      help: "ask for GPUs and other resources with sbatch's --gres, as gpu:a100:8",
      flag: "--gres <resources>",
      otherwise: "SBATCH_GRES, else a GPU for each process where trainer.device is cuda",
    },
  ),
  /** Time limit of the job, as minutes, H:M:S or D-H:M:S. Default: SBATCH_TIMELIMIT, else the partition's. */
  time: field(
    z
      .string()
      .refine((text) => limitSeconds(text) !== null)
      .optional(),
    {
      expected: "a time above 0 as minutes, H:M:S or D-H:M:S",
      help: "time limit of the job, as minutes, H:M:S or D-H:M:S",
      flag: "--time <limit>",
      otherwise: "SBATCH_TIMELIMIT, else the partition's",
    },
  ),
  /** Seconds before the limit at which the run stores a checkpoint and stops. Default: 180. */
  signalBefore: field(count.max(65535).default(180), {
    expected: "seconds from 1 to 65535",
    help: "when the run stores a checkpoint and stops before the limit",
    flag: "--signal-before <seconds>",
  }),
  /** CPUs, and threads, of each process. Default: 8. */
  cpusPerTask: field(count.default(8), {
    expected: "an integer of at least 1",
    help: "CPUs, and threads, of each process",
    flag: "--cpus-per-task <n>",
  }),
  /** An array with one task for each value, as `key=value,value`; of several, for each combination. */
  array: field(z.array(z.string()).default([]), {
    expected: "key=value,value,…",
    help: "an array with one task for each value; repeat it for all combinations",
    flag: "--array <key=values>",
  }),
  /** Tasks of the array that run at the same time. */
  maxSimultaneous: field(count.optional(), {
    expected: "an integer of at least 1",
    help: "tasks of the array that run at the same time",
    flag: "--max-simultaneous <n>",
  }),
  /** What to wait for, as `afterok:JOB`. */
  dependency: field(text, {
    expected: "a dependency of sbatch",
    help: "what to wait for, as afterok:JOB",
    flag: "--dependency <what>",
  }),
  /** Other options of sbatch, as `--reservation=x`. */
  sbatch: field(z.array(z.string().regex(/^-[^\r\n]*$/)).default([]), {
    expected: "an option of sbatch, as --reservation=x",
    help: "another option of sbatch; repeat it for more",
    flag: "--sbatch <option>",
  }),
  /** A file of bash lines that the job runs first: modules, conda, ulimit. Default: MIRO_SLURM_PROLOGUE. */
  prologue: field(text, {
    expected: "a file of bash lines",
    help: "bash lines that the job runs first: modules, conda, ulimit",
    flag: "--prologue <file>",
    otherwise: "MIRO_SLURM_PROLOGUE",
  }),
  /** Network interfaces that NCCL and Gloo use, as `ib0` or `eth0,eth1`. */
  networkInterface: field(
    z
      .string()
      .regex(/^[\w.@-]+(?:,[\w.@-]+)*$/)
      .optional(),
    {
      expected: "a network interface, or several with commas",
      help: "sets NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME, as ib0",
      flag: "--network-interface <name>",
      otherwise: "NCCL's and Gloo's choice",
    },
  ),
  /** Image that the processes run in: a file, a folder, or an address in a registry. It has `miro` on its path. */
  container: field(
    z
      .string()
      // biome-ignore lint/suspicious/noControlCharactersInRegex: no name of an image has them
      .regex(/^[^\s\x00-\x1f\x7f-][^\x00-\x1f\x7f]*$/)
      .optional(),
    {
      expected: "an image file, or its address in a registry",
      help: "image that the processes run in, with miro on its path (deploy/miro.def, deploy/Dockerfile)",
      flag: "--container <image>",
    },
  ),
  /** What starts the container. Default: apptainer for .sif files, folders and `docker://…`, else pyxis. */
  containerRuntime: field(z.enum(CONTAINER_RUNTIMES).optional(), {
    expected: CONTAINER_RUNTIMES.join(" or "),
    help: "what starts the container",
    flag: "--container-runtime <name>",
    otherwise: "apptainer for .sif files, folders and docker://…, else pyxis",
  }),
  /** Folders that the container sees, as `SOURCE[:TARGET[:ro]]`, besides those of the run, the recipe and `.env`. */
  containerMounts: field(z.array(z.string().regex(CONTAINER_MOUNT)).default([]), {
    expected: "/SOURCE[:/TARGET[:ro]], absolute and without commas",
    help: "another folder that the container sees; repeat it for more",
    flag: "--container-mount <folder>",
  }),
  /** A folder of the nodes that gets a copy of Node, libtorch and this program, as `$SLURM_TMPDIR` or `/tmp`. */
  stageTo: field(
    z
      .string()
      .refine((text) => nodePath(text) !== null)
      .optional(),
    {
      expected: "an absolute path, or one that begins with a variable of the nodes, as '$SLURM_TMPDIR'",
      help: "folder of the nodes' own disks that gets a copy of Node, libtorch and miro, as '$SLURM_TMPDIR' or /tmp",
      flag: "--stage-to <dir>",
    },
  ),
  /** A folder that gets the script and all that it refers to, in place of RUN/slurm; nothing is submitted. */
  write: field(text, {
    expected: "a folder",
    help: "write the script and what it refers to into a folder, and submit nothing",
    flag: "--write <dir>",
    writes: "folder",
  }),
  /** Continue even though the recipe has changed in values that decide what the run computes. */
  allowChanges: flag(
    "continue even though the recipe has changed in values that decide what the run computes",
    "--allow-changes",
  ),
  /** Files of modules that register the scorers of `samples.scorers`. */
  scorerModules: moduleFiles,
});

/** Options of {@link planJob}, defaults left out. */
export type LaunchOptions = OptionsOf<typeof launchOptionsSchema>;
