/**
 * The environment variables that miro reads: for the manual page and for the table of docs/install.md. A test compares
 * them with what the sources read.
 */
import { alignedMarkdownTable } from "./text-table.js";

/** Variables of one kind. */
export interface VariableGroup {
  title: string;
  /**
   * Names of variables and their meaning. Where several set the same, the first one that is set counts. Code in a
   * meaning stands between backticks.
   */
  rows: readonly (readonly [names: string, meaning: string])[];
}

/** Variables of the installed program. */
export const PROGRAM_VARIABLES: readonly VariableGroup[] = [
  {
    title: "The program",
    rows: [
      ["MIRO_CONFIG", "a file of defaults instead of `miro.config.yaml` and the user's; none when it is empty"],
      ["XDG_CONFIG_HOME", "where the user's `miro/config.yaml` is; default: `~/.config`"],
      ["MIRO_STUDIO_API_KEY", "the key that requests to `miro studio` must give, at least 8 characters"],
      ["NO_COLOR", "no colours"],
      ["FORCE_COLOR", "colours also where no terminal reads them; 0: none"],
      ["MIRO_DEBUG", "errors with the place in the code where they arose"],
      ["MIRO_CACHE, XDG_CACHE_HOME", "where emoji and hashes of models are kept; default: `~/.cache/miro-t2i`"],
    ],
  },
  {
    title: "Computing",
    rows: [
      [
        "MIRO_LIBTORCH, LIBTORCH",
        "folder of another libtorch than the installed one; in a clone it counts for set-up alone",
      ],
      ["OMP_NUM_THREADS", "threads on a CPU where `--threads` is not given"],
      ["OMP_WAIT_POLICY, GOMP_SPINCOUNT", "how long libtorch's threads wait awake; default: a tenth of a millisecond"],
      [
        "MIRO_CPU_CACHE_BYTES",
        "freed memory that is kept for the next tensors on a CPU; default: a quarter of the memory or its limit",
      ],
      ["CUDA_VISIBLE_DEVICES", "the GPUs that may be used"],
      ["MIRO_CUDA_GRAPHS", "0: no CUDA graphs"],
      ["MIRO_CUDNN_ATTENTION", "1: attention in half precision may be cuDNN's"],
      ["MIRO_STACKS", "1: where all threads are, when the process dies by a signal (Linux)"],
    ],
  },
  {
    title: "The Hugging Face Hub, as in Python's `huggingface_hub`",
    rows: [
      [
        "HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME",
        "where the cache is; a read-only cache is used for the files it has; the old `HUGGINGFACE_HUB_CACHE` is known",
      ],
      ["HF_ASSETS_CACHE", "where single files of known weights are kept; default: `assets` in `HF_HOME`"],
      [
        "HF_TOKEN, HF_TOKEN_PATH",
        "token for private and gated repositories; default: the login of `hf auth login`; the old `HUGGING_FACE_HUB_TOKEN` is known",
      ],
      ["HF_HUB_DISABLE_IMPLICIT_TOKEN", "1: sends no token"],
      ["HF_ENDPOINT", "a mirror; if it cannot list a repository, each file is requested by name"],
      ["HF_HUB_OFFLINE, TRANSFORMERS_OFFLINE", "1: uses only the cache"],
      ["HF_HUB_ETAG_TIMEOUT", "seconds to wait for the Hub's answer before the cache is used (10)"],
      ["HF_HUB_DOWNLOAD_TIMEOUT", "seconds without data before a download is restarted (10)"],
      ["HF_HUB_DISABLE_SYMLINKS", "1: makes snapshots of files instead of links"],
      ["HF_HUB_USER_AGENT_ORIGIN", "named to the Hub beside the program"],
      ["http_proxy, https_proxy, all_proxy, no_proxy", "proxies, in lower or upper case; SOCKS is not supported"],
    ],
  },
  {
    title: "Training; also read from `.env` in the working folder",
    rows: [
      ["MIRO_DATA_DIR", "where recipes find data sets; default: `datasets`"],
      ["MIRO_MODELS", "where recipes find the models that come with the program"],
      ["MIRO_SLURM_OUTPUT_DIR", "where logs of jobs go; default: `./slurm-logs`"],
      ["MIRO_SLURM_PARTITION, SBATCH_PARTITION", "partition of `miro launch`"],
      ["MIRO_SLURM_PROLOGUE", "file of lines that a job runs first"],
      [
        "SBATCH_ACCOUNT, SBATCH_QOS, SBATCH_CONSTRAINT, SBATCH_MEM_PER_NODE, SBATCH_MEM, SBATCH_GPUS_PER_NODE, SBATCH_GRES, SBATCH_TIMELIMIT",
        "as `sbatch` reads them; a flag of `miro launch` overrides them",
      ],
      ["SLURM_CONF", "the cluster's settings, as Slurm's own programs read it"],
      ["RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT", "processes that another launcher has started"],
      ["NCCL_SOCKET_IFNAME, GLOO_SOCKET_IFNAME", "the network between processes"],
    ],
  },
];

/** Variables of `npm run setup` in a clone. */
export const SETUP_VARIABLES: VariableGroup = {
  title: "`npm run setup` in a clone",
  rows: [
    ["MIRO_CACHE, XDG_CACHE_HOME", "where libtorch is kept; default: `~/.cache/miro-t2i`"],
    ["MIRO_LIBTORCH, LIBTORCH", "folder of the libtorch to compile for, instead of a private copy"],
    ["MIRO_PYTHON", "the Python whose torch is used where it fits; default: `python3`"],
    ["MIRO_JOBS", "files that are compiled at a time"],
    ["CXX, CMAKE", "the compiler and CMake"],
    [
      "CUDA_HOME",
      "a toolkit of CUDA, for headers that torch comes without; default: `/usr/local/cuda`, or that of `nvcc`",
    ],
  ],
};

/** The table of the documentation, with columns of one width. */
export function variableTable(): string {
  const rows: [string, string][] = [["Variable", "Meaning"]];
  for (const { title, rows: all } of [...PROGRAM_VARIABLES, SETUP_VARIABLES]) {
    rows.push([`**${title}**`, ""]);
    for (const [names, meaning] of all) rows.push([names.replaceAll(/\w+/g, "`$&`"), meaning]);
  }
  return alignedMarkdownTable(rows);
}
