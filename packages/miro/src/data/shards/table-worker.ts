/** Worker thread of prepareTables: makes the table of each shard that it is sent, ends at null. */
import { parentPort } from "node:worker_threads";
import { ShardError } from "./shard-error.js";
import { ShardTable } from "./shard-table.js";

parentPort!.on("message", (path: string | null) => {
  if (path === null) {
    parentPort!.close();
    return;
  }
  try {
    ShardTable.build(path);
  } catch (error) {
    if (!(error instanceof ShardError)) throw error; // reported to the caller that loads the table
  }
  parentPort!.postMessage(path);
});
