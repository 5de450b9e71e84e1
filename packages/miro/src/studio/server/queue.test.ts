import { afterEach, describe, expect, it, vi } from "vitest";
import { IMAGE_SETTINGS } from "../../pipeline/testing/image-settings.js";
import type { DrawCall, DrawListeners, Engine } from "./engine.js";
import type { Gallery } from "./gallery.js";
import type { Job, JobEvent, JobWork } from "./job.js";
import { BATCH, KEEP_ID_MS, KEEP_JOB_MS, MAX_WAITING_BYTES } from "./limits.js";
import { JobQueue, QueueFull } from "./queue.js";

afterEach(() => void vi.useRealTimers());

/** A call that the engine was asked for, until the test ends it. */
interface Asked {
  call: DrawCall;
  listeners: DrawListeners;
  signal: AbortSignal;
  end: (error?: Error) => void;
}

function makeQueue(capacity = 8) {
  const asked: Asked[] = [];
  const engine = {
    failure: null as Error | null,
    draw: (_model: string, call: DrawCall, listeners: DrawListeners, signal: AbortSignal) =>
      new Promise<void>((resolve, reject) => {
        const end = (error?: Error) => (error ? reject(error) : resolve());
        asked.push({ call, listeners, signal, end });
      }),
  };
  const forgotten: string[] = [];
  const gallery = {
    rememberJob: () => {},
    recallJob: () => null,
    forgetJob: (id: string) => void forgotten.push(id),
    add: (path: string) => `id of ${path}`,
  };
  const meter = { finished: () => {}, step: () => {} };
  const queue = new JobQueue(engine as unknown as Engine, gallery as unknown as Gallery, capacity, meter);
  return { queue, asked, engine, forgotten };
}

/** What draws some pictures of one prompt. */
function work(pictures: number, { options = {}, ...call }: Partial<DrawCall> & { options?: object } = {}): JobWork {
  return {
    model: "tiny",
    cancelOnDisconnect: false,
    call: {
      pictures: Array.from({ length: pictures }, (_, index) => {
        return {
          index,
          prompt: "a fox",
          seed: index,
          options: { steps: 4, ...options } as never,
          path: `${index}.png`,
        };
      }),
      edits: [],
      ...call,
    },
  };
}

const settled = () => new Promise(setImmediate);

describe("jobs that wait", () => {
  it("are drawn with the first one while they fit into a batch and differ in seeds and targets alone", async () => {
    const { queue, asked } = makeQueue(20);
    const running = queue.submit(work(1));
    await settled();
    const waiting = [
      work(5, { options: { rewardTargets: { sharpness: 1 } } }),
      work(BATCH - 4), // one too many beside the five
      work(2, { options: { steps: 5 } }),
      work(BATCH - 5, { options: { seed: 3 } }),
      work(1), // the batch is full
    ].map((one) => queue.submit(one));
    const told: JobEvent[][] = waiting.map(() => []);
    for (const [i, job] of waiting.entries()) job.listen((event) => void told[i]!.push(event));
    expect(told.map(([first]) => first)).toEqual(
      [1, 2, 3, 4, 5].map((position) => ({ id: 1, event: "queued", data: { position } })),
    );
    asked[0]!.end();
    await running.ended;
    await settled();
    expect(asked[1]!.call.pictures).toHaveLength(BATCH);
    expect(asked[1]!.call.pictures.map(({ index }) => index)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
    expect(asked[1]!.call.batchSize).toBe(BATCH);
    expect(waiting.map(({ status }) => status)).toEqual(["running", "queued", "queued", "running", "queued"]);
    expect(queue.view(waiting[2]!).position).toBe(3); // behind two that run and one that waits
  });

  it.each<[string, Partial<DrawCall> & { options?: object }]>([
    ["several candidates", { bestOf: { count: 2, by: "sharpness" } }],
    ["a picture that is drawn over", { edits: [{ image: new Uint8Array(1) }] }],
    ["a variation", { options: { variationSeed: 1 } }],
  ])("are drawn alone with %s", async (_, special) => {
    const { queue, asked } = makeQueue();
    queue.submit(work(1));
    await settled();
    const [plain, own] = [queue.submit(work(1)), queue.submit(work(1, special))];
    asked[0]!.end();
    await settled();
    expect([plain.status, own.status]).toEqual(["running", "queued"]);
  });

  it("are as many as the queue takes; one that is asked for again is the same", async () => {
    const { queue } = makeQueue(1);
    queue.submit(work(1));
    await settled();
    const second = queue.submit(work(1), "again");
    expect(queue.submit(work(1), "again")).toBe(second);
    expect(() => queue.submit(work(1))).toThrow(QueueFull);
    queue.cancel(second);
    expect(second.status).toBe("cancelled");
    expect(queue.submit(work(1)).status).toBe("queued");
  });

  it("hold uploads of a limited size, and take a large one where none waits", async () => {
    const { queue } = makeQueue();
    const over = (image: number, mask = 0) =>
      work(1, { edits: [{ image: new Uint8Array(image), mask: new Uint8Array(mask) }] });
    queue.submit(work(1));
    await settled();
    const large = queue.submit(over(MAX_WAITING_BYTES + 1));
    expect(queue.submit(work(1)).status).toBe("queued");
    expect(() => queue.submit(over(1))).toThrow(QueueFull);
    queue.cancel(large);
    const half = queue.submit(over(MAX_WAITING_BYTES / 2));
    queue.submit(over(MAX_WAITING_BYTES / 4, MAX_WAITING_BYTES / 4));
    expect(() => queue.submit(over(1))).toThrow(QueueFull);
    expect(() => queue.submit(over(0, 1))).toThrow(QueueFull);
    queue.cancel(half);
    expect(queue.submit(over(1)).status).toBe("queued");
  });
});

describe("jobs that are drawn together", () => {
  const previews = (job: Job) => {
    const events: JobEvent[] = [];
    job.listen((event) => void (event.event === "preview" && events.push(event)));
    return events;
  };

  it("have previews as often as each asked for, steps and pictures of their own", async () => {
    const { queue, asked } = makeQueue();
    queue.submit(work(1));
    await settled();
    const [fourth, sixth, none] = [4, 6, undefined].map((previewEvery) => queue.submit(work(1, { previewEvery })));
    const [seenByFourth, seenBySixth, seenByNone] = [fourth!, sixth!, none!].map(previews);
    asked[0]!.end();
    await settled();
    const { call, listeners, end } = asked[1]!;
    expect(call.previewEvery).toBe(2); // what divides both
    const webp = new Uint8Array([1]);
    for (let step = 0; step < 12; step++) {
      const shown = step % 2 === 1 ? [0, 1, 2].map((index) => ({ index, webp })) : [];
      listeners.step!({ images: [0, 1, 2], step, steps: 12, previews: shown });
    }
    const steps = (events: readonly JobEvent[]) => events.map(({ data }) => data.step);
    expect([seenByFourth!, seenBySixth!, seenByNone!].map(steps)).toEqual([[4, 8, 12], [6, 12], []]);
    await listeners.picture({ index: 1, path: "b.png", settings: IMAGE_SETTINGS, promptTokens: 3, warnings: ["odd"] });
    end();
    await settled();
    expect([fourth!, sixth!].map((job) => queue.view(job).pictures)).toEqual([[], ["id of b.png"]]);
    expect([fourth!.warnings, sixth!.warnings]).toEqual([[], ["odd"]]);
  });

  it("end alone when one is cancelled; the work stops when all are", async () => {
    const { queue, asked } = makeQueue();
    queue.submit(work(1));
    await settled();
    const [a, b] = [queue.submit(work(1)), queue.submit(work(1))];
    asked[0]!.end();
    await settled();
    queue.cancel(a);
    expect([a.status, b.status, asked[1]!.signal.aborted]).toEqual(["cancelled", "running", false]);
    queue.cancel(b);
    expect(asked[1]!.signal.aborted).toBe(true);
  });
});

it("a finished job is known for a while, its id for longer, and then nothing of it", async () => {
  const { queue, asked, forgotten } = makeQueue();
  const job = queue.submit(work(1));
  await settled();
  asked[0]!.end();
  await job.ended;
  const finished = job.finishedAt!.getTime();
  vi.useFakeTimers({ toFake: ["Date"] });
  const at = (ms: number) => {
    vi.setSystemTime(finished + ms);
    return queue.find(job.id);
  };
  expect(at(KEEP_JOB_MS - 1)).toBe(job);
  expect(at(KEEP_JOB_MS)).toBe("expired");
  expect(forgotten).toEqual([job.id]);
  expect(at(KEEP_JOB_MS + KEEP_ID_MS)).toBe("expired");
  expect(at(KEEP_JOB_MS + KEEP_ID_MS + 1)).toBeNull();
});

it("a warning is told once, and of what may be missed the last of each picture is kept", async () => {
  const { queue } = makeQueue();
  const job = queue.submit(work(2));
  job.warn(["odd", "odd"]);
  job.warn(["odd", "strange"]);
  for (const [image, step] of [
    [0, 1],
    [1, 1],
    [0, 2],
  ])
    job.tell("step", { image, step, steps: 4 });
  const heard: JobEvent[] = [];
  job.listen((event) => void heard.push(event));
  const told = (name: string) => heard.filter(({ event }) => event === name).map(({ data }) => data);
  expect(told("warning")).toEqual([{ message: "odd" }, { message: "strange" }]);
  expect(told("step")).toEqual([
    { image: 1, step: 1, steps: 4 },
    { image: 0, step: 2, steps: 4 },
  ]);
});
