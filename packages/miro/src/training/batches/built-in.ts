/** The sources of training batches that the general system has. */
import { randomSource } from "./random-source.js";
import { shardSource } from "./shard-source.js";
import { registerSource } from "./sources.js";

registerSource("shards", shardSource);
registerSource("random", randomSource);
