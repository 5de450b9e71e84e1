import { describe, expect, it } from "vitest";
import { filled, inPieces, type Pieces } from "./pieces.js";

function* counted(log: string[], count: number): Pieces<string> {
  try {
    for (let i = 0; i < count; i++) {
      log.push(`piece ${i}`);
      yield;
    }
    return "done";
  } finally {
    log.push("left");
  }
}

describe("work in pieces", () => {
  it("gives its result, after other work had its turn", async () => {
    const log: string[] = [];
    setImmediate(() => log.push("other work"));
    expect(await inPieces(counted(log, 2), undefined)).toBe("done");
    expect(log).toEqual(["other work", "piece 0", "piece 1", "left"]);
  });

  it("ends before the next piece when it is aborted, with the signal's reason", async () => {
    const log: string[] = [];
    const abort = new AbortController();
    const work = (function* (): Pieces<void> {
      const inner = counted(log, 5);
      try {
        for (let i = 0; i < 5; i++) {
          inner.next();
          if (i === 2) abort.abort(new Error("enough"));
          yield;
        }
      } finally {
        inner.return("");
      }
    })();
    await expect(inPieces(work, abort.signal)).rejects.toThrow("enough");
    expect(log).toEqual(["piece 0", "piece 1", "piece 2", "left"]);
    await expect(inPieces(counted(log, 1), abort.signal)).rejects.toThrow("enough");
    expect(log).toHaveLength(4);
  });

  it("frees what it fills where it fails or is given up, and only there", async () => {
    let freed = 0;
    let made = 0;
    const make = () => ({ made: ++made, dispose: () => void freed++ });
    const steps = function* (fails: boolean): Pieces<void> {
      yield;
      if (fails) throw new Error("broken");
    };
    expect(
      (
        await inPieces(
          filled(make, () => steps(false)),
          undefined,
        )
      ).made,
    ).toBe(1);
    expect(freed).toBe(0);
    await expect(
      inPieces(
        filled(make, () => steps(true)),
        undefined,
      ),
    ).rejects.toThrow("broken");
    expect(freed).toBe(1);
    const given = filled(make, () => steps(false));
    given.next();
    given.return(undefined as never);
    expect([made, freed]).toEqual([3, 2]);
    filled(make, () => steps(false)).return(undefined as never);
    expect(made).toBe(3);
  });
});
