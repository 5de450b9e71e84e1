import { describe, expect, it } from "vitest";
import { Turns } from "./turns.js";

/** Lets everything that can go on go on. */
const settle = () => new Promise((resolve) => setImmediate(resolve));

describe("turns", () => {
  it("come one after another, in the order in which they were asked for", async () => {
    const turns = new Turns();
    const heard: string[] = [];
    const work = async (name: string) => {
      const end = await turns.begin();
      heard.push(`${name} begins`);
      await settle();
      heard.push(`${name} ends`);
      end();
    };
    await Promise.all(["a", "b", "c"].map(work));
    expect(heard).toEqual(["a begins", "a ends", "b begins", "b ends", "c begins", "c ends"]);
  });

  it("are given up at once by who is aborted, and the next one still waits for its time", async () => {
    const turns = new Turns();
    const abort = new AbortController();
    const end = await turns.begin();
    const leaving = turns.begin(abort.signal);
    let began = false;
    const next = turns.begin().then((endNext) => {
      began = true;
      endNext();
    });
    abort.abort(new Error("enough"));
    await expect(leaving).rejects.toThrow("enough");
    await settle();
    expect(began).toBe(false);
    end();
    await next;
    await expect(turns.begin(abort.signal)).rejects.toThrow("enough");
    (await turns.begin())();
  });

  it("share a worker evenly, and free what a generator holds that is left, without a turn", async () => {
    const turns = new Turns();
    const order: string[] = [];
    const freed: string[] = [];
    async function* values(name: string, count: number) {
      try {
        for (let i = 0; i < count; i++) {
          await settle();
          order.push(name);
          yield i;
        }
      } finally {
        freed.push(name);
      }
    }
    const draw = async (name: string, count: number) => {
      for await (const _ of turns.share(values(name, count)));
    };
    await Promise.all([draw("a", 3), draw("b", 2), draw("c", 1)]);
    expect(order.join("")).toBe("abcaba");
    const end = await turns.begin();
    const one = turns.share(values("d", 1), AbortSignal.abort(new Error("late")));
    await expect(one.next()).rejects.toThrow("late");
    end();
    for await (const _ of turns.share(values("e", 9))) break;
    expect(freed.sort().join("")).toBe("abce"); // d had not begun, so that it held nothing
  });

  it("end with the error of their work", async () => {
    const turns = new Turns();
    async function* broken() {
      yield await Promise.reject<number>(new Error("broken"));
    }
    await expect(turns.share(broken()).next()).rejects.toThrow("broken");
    (await turns.begin())();
  });
});
