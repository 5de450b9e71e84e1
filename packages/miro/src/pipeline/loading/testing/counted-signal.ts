/** For tests of what can be given up: no clock decides when. */

/** A signal that is aborted when it is looked at for the `at`-th time, and how often it was. */
export function countedSignal(at: number): { signal: AbortSignal; looks: () => number } {
  const controller = new AbortController();
  const { signal } = controller;
  let looks = 0;
  signal.throwIfAborted = () => {
    if (++looks === at) controller.abort(new Error("enough"));
    if (signal.aborted) throw signal.reason;
  };
  return { signal, looks: () => looks };
}
