/** What the process that starts ranks and the ranks tell each other, over the channel between parent and child. */
import type { MessagePart } from "../../message.js";
import type { Progress } from "../logging/logging.js";
import type { RankPlace } from "../process-group/launch-environment.js";
import type { RunResult } from "./run-options.js";

/** To a rank. */
export type ToRank =
  | {
      type: "start";
      place: RankPlace;
      /** The recipe in the form of its file. */
      recipe: unknown;
      /** Modules that register what this package does not know by itself. */
      modules: readonly string[];
      /** Files of modules that register scorers. */
      scorerModules: readonly string[];
      output: string;
      resume: boolean | number;
      allowChanges: boolean;
    }
  /** Stop after this step, as Ctrl-C does. */
  | { type: "stop" };

/** Why a rank ended. */
export interface RankError {
  /** The message, in the parts of a {@link Message}. */
  message: readonly MessagePart[];
  /** Exit code of a command that ends with it. */
  exitCode: number;
  /** It only says that other ranks failed. */
  lostRank: boolean;
}

/** From a rank. */
export type FromRank =
  | { type: "progress"; progress: Progress }
  | { type: "message"; text: string }
  | { type: "warning"; text: string }
  | { type: "result"; result: RunResult }
  | { type: "error"; error: RankError };
