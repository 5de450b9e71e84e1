/** Collectives between processes and data-parallel gradients. */
export {
  type InitProcessGroupOptions,
  initProcessGroup,
  ProcessGroup,
  type ProcessGroupBackend,
  type ReduceOperation,
  servedBy,
} from "./process-group.js";
export { DistributedReducer, type DistributedReducerOptions, type ReducerStatistics } from "./reducer.js";
export { RendezvousStore, type TcpStoreOptions } from "./store.js";
