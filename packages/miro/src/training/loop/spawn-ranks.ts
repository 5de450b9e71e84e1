/**
 * Trains in processes of its own on this machine, one for each device of the recipe, and ends all of them when one
 * fails.
 *
 * A process that dies closes its connections, so that the others fail in their next operation together; one that hangs
 * is told, and makes them fail after `trainer.strategy.timeout_seconds`. Whatever is left a little later is killed. The
 * error that is reported is that of the process which failed by itself, not of those that missed it.
 */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { setTimeout as delay, setInterval as every } from "node:timers/promises";
import { RendezvousStore } from "@miro-t2i/torch/distributed";
import { processors } from "@miro-t2i/torch/limits";
import { compiledModule } from "../../compiled-module.js";
import { InvalidInputError, MiroError } from "../../errors.js";
import { extensionModules } from "../../extension-modules.js";
import { Message, message } from "../../message.js";
import { plural } from "../../numbers.js";
import { paceOf, Watch } from "../process-group/waits.js";
import { planOf } from "../recipes/batch-plan.js";
import { recipeToJson } from "../recipes/recipe.js";
import type { FromRank, RankError, ToRank } from "./rank-messages.js";
import type { RunOptions, RunResult } from "./run-options.js";

/** How long the others may take to notice that one has failed. */
const GRACE_MS = 10_000;
/** What is kept of a rank's output, in characters. */
const OUTPUT_KEPT = 2000;

/** A rank that has ended. */
interface Ending {
  rank: number;
  code: number | null;
  signal: NodeJS.Signals | null;
  /** It was ended by this process because others had failed. */
  killed: boolean;
  result: RunResult | null;
  error: RankError | null;
  /** The end of what it has written itself. */
  output: string;
}

/** See the top. @returns what rank 0 answers */
export async function runRanks(options: RunOptions): Promise<RunResult> {
  const { recipe, output, resume = false, allowChanges = false, scorerModules = [], signal } = options;
  const { onMessage = () => {} } = options;
  const { worldSize } = planOf(recipe.trainer);
  const store = await RendezvousStore.tcp({ host: "127.0.0.1", port: 0, serves: true });
  const ranks = Array.from({ length: worldSize }, (_, rank) => {
    const place = {
      rank,
      localRank: rank,
      worldSize,
      oneMachine: true,
      host: "127.0.0.1",
      port: store.port,
      serves: false,
    };
    return new Rank(
      rank,
      {
        type: "start",
        place,
        recipe: recipeToJson(recipe),
        modules: extensionModules(),
        scorerModules,
        output,
        resume,
        allowChanges,
      },
      options,
    );
  });
  onMessage(`${worldSize} processes: ${ranks.map(({ pid }) => pid).join(", ")}`);
  const over = new AbortController();
  tellWaits(store, options, over.signal).catch(() => {}); // it was aborted, or the store closed meanwhile
  const stop = () => {
    for (const rank of ranks) rank.stop();
  };
  const kill = () => {
    for (const rank of ranks) rank.kill();
  };
  // One that waits for a rank that hangs would hear of the end of this process only after its timeout.
  process.on("exit", kill);
  if (signal?.aborted) stop();
  signal?.addEventListener("abort", stop, { once: true });
  try {
    const firstFailure = Promise.race(
      ranks.map(({ ended }) => ended.then((ending) => (isFailure(ending) ? ending : new Promise<never>(() => {})))),
    );
    const all = Promise.all(ranks.map(({ ended }) => ended));
    const failed = await Promise.race([firstFailure, all.then(() => null)]);
    if (failed !== null) {
      await Promise.race([all, delay(GRACE_MS, undefined, { ref: false })]);
      kill();
    }
    const endings = await all;
    if (endings.some(isFailure)) throw failureOf(endings, failed);
    return endings[0]!.result!;
  } finally {
    signal?.removeEventListener("abort", stop);
    process.off("exit", kill);
    kill();
    over.abort();
    store.close();
  }
}

/** Says when some ranks wait long for others, until the signal is aborted. */
async function tellWaits(
  store: RendezvousStore,
  { recipe: { trainer }, onMessage = () => {}, onWarning = onMessage }: RunOptions,
  signal: AbortSignal,
): Promise<void> {
  const timeoutMs = trainer.strategy.timeoutSeconds * 1000;
  const watch = new Watch(store, planOf(trainer).worldSize, timeoutMs);
  for await (const _ of every(paceOf(timeoutMs).signMs, undefined, { signal, ref: false })) {
    const wait = await watch.look();
    if (wait !== null && !signal.aborted) onWarning(wait.text);
  }
}

class Rank {
  readonly ended: Promise<Ending>;
  readonly #child: ChildProcess;
  #killed = false;
  #result: RunResult | null = null;
  #error: RankError | null = null;
  #output = "";
  readonly #rank: number;

  constructor(rank: number, start: ToRank, { recipe, onProgress, onMessage, onWarning = onMessage }: RunOptions) {
    this.#rank = rank;
    const script = compiledModule("training/loop/rank-main.js");
    const { device, devices } = recipe.trainer;
    const threads = Math.max(1, Math.floor(processors() / devices));
    this.#child = fork(script, {
      // Ctrl-C in a terminal reaches this process alone, which passes it on once.
      detached: true,
      execArgv: [],
      stdio: ["ignore", "pipe", "pipe", "ipc"],
      env: { ...(device === "cpu" && { OMP_NUM_THREADS: String(threads) }), ...process.env },
    });
    for (const stream of [this.#child.stdout!, this.#child.stderr!])
      stream.setEncoding("utf8").on("data", (text: string) => {
        this.#output = (this.#output + text).slice(-OUTPUT_KEPT);
      });
    this.#child.on("message", (message: FromRank) => {
      if (message.type === "progress") onProgress?.(message.progress);
      else if (message.type === "message") onMessage?.(message.text);
      else if (message.type === "warning") onWarning?.(message.text);
      else if (message.type === "result") this.#result = message.result;
      else this.#error = message.error;
    });
    this.ended = this.#end();
    this.#child.send(start);
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  stop(): void {
    if (this.#child.connected) this.#child.send({ type: "stop" } satisfies ToRank);
  }

  /** Ends the process if it has not ended. */
  kill(): void {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    this.#killed = true;
    this.#child.kill("SIGKILL");
  }

  async #end(): Promise<Ending> {
    const [code, signal] = (await once(this.#child, "close")) as [number | null, NodeJS.Signals | null];
    return {
      rank: this.#rank,
      code,
      signal,
      killed: this.#killed,
      result: this.#result,
      error: this.#error,
      output: this.#output,
    };
  }
}

function isFailure({ code, result }: Ending): boolean {
  return code !== 0 || result === null;
}

/** The error of the rank that failed by itself, and what became of the others. */
function failureOf(endings: readonly Ending[], first: Ending | null): Error {
  const own = endings.filter(({ killed, result, error }) => !killed && result === null && error?.lostRank !== true);
  const { rank, signal, code, error, output } = own[0] ?? first ?? endings.find(isFailure)!;
  // What all of them say alike is no matter of one.
  if (error !== null && own.length === endings.length && own.every((other) => textOf(other.error) === textOf(error)))
    return errorOf(error.exitCode, new Message(error.message));
  const words = output.trim().split("\n").slice(-3).join("; ");
  const what =
    error !== null
      ? new Message(error.message)
      : `ended ${signal === null ? `with exit code ${code}` : `by ${signal}${signal === "SIGKILL" ? " (was the memory full?)" : ""}`}${words && `: ${words}`}`;
  const hung = endings.filter(({ killed }) => killed).map((ending) => ending.rank);
  const others =
    hung.length > 0 ? `; ${plural(hung.length, "rank")} ${hung.join(", ")} did not end and had to be killed` : "";
  return errorOf(error?.exitCode ?? 1, message`rank ${rank} of ${endings.length}: ${what}${others}`);
}

function textOf(error: RankError | null): string | undefined {
  return error === null ? undefined : new Message(error.message).text();
}

function errorOf(exitCode: number, wording: Message): Error {
  return exitCode === 2 ? new InvalidInputError(wording) : new MiroError(wording);
}
