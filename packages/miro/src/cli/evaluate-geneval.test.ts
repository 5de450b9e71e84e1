import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, it, vi } from "vitest";
import { readResults, summarise } from "../evaluation/geneval/summary.js";
import { SharedWork } from "../evaluation/shared-work.js";
import { sha256 } from "../files/sha256.js";
import { runCaptured } from "./testing/run-captured.js";

const folder = mkdtempSync(join(tmpdir(), "miro-geneval-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const geneval = (...args: string[]) => runCaptured("evaluate", "geneval", ...args);
const file = (name: string, content: unknown) => {
  writeFileSync(join(folder, name), typeof content === "string" ? content : JSON.stringify(content));
  return join(folder, name);
};
const bench = {
  tag: "colors",
  include: [{ class: "bench", count: 1, color: "red" }],
  prompt: "a photo of a red bench",
};
const detections = { bench: [[40, 45, 80, 75, 0.5]] };

describe("miro evaluate geneval --judge", () => {
  it("prints the verdicts in the order of the file; options of a case override flags, which override the file's", async () => {
    const path = file("cases.json", {
      options: { threshold: 0.9 },
      cases: [
        { name: "a", metadata: bench, detections, colours: { bench: ["red"] }, options: { threshold: 0.4 } },
        { name: "b", metadata: bench, detections, colours: { bench: ["pink"] } },
      ],
    });
    const { code, stdout } = await geneval("--judge", path, "--options", "threshold=0.45", "--json");
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toEqual({
      verdicts: [
        { name: "a", correct: true, reason: "" },
        { name: "b", correct: false, reason: "expected red bench>=1, found 0 red; and 1 pink" },
      ],
    });
    expect((await geneval("--judge", path)).stdout).toMatch(
      /wrong {4}b: expected bench>=1, found 0\n1 of 2 correct\n$/,
    );
  });

  it("takes all detections of all pictures, a hundred of each", async () => {
    const boxes = Array.from({ length: 100 }, () => [40, 45, 80, 75, 0.2]);
    const one = { name: "a", metadata: { ...bench, tag: "single_object" }, detections: { bench: boxes } };
    const path = file("all.json", { cases: Array.from({ length: 2212 }, () => one) });
    expect((await geneval("--judge", path)).stdout).toMatch(/\n0 of 2212 correct\n$/);
  });

  it("names the file, the case and what is wrong with it", async () => {
    const wrong = (name: string, content: unknown) => geneval("--judge", file(name, content));
    expect((await geneval("--judge", join(folder, "none.json"))).code).toBe(2);
    for (const [content, error] of [
      ["{", /bad\.json: not valid JSON/],
      [{ cases: {} }, /bad\.json: cases: .*expected a list/],
      [
        { cases: [{ name: "x", metadata: bench, detections: { bench: [[1, 2]] } }] },
        /bad\.json: cases\.0: detections\.bench\.0: expected a list of 5 values/,
      ],
      [{ cases: [{ name: "x", metadata: { ...bench, tag: 3 }, detections }] }, /case "x": tag: .* received 3/],
      [
        { cases: [{ name: "x", metadata: bench, detections }] },
        /case "x": expected the colours of 1 object of "bench"/,
      ],
      ['{"options": {"__proto__": 1}, "cases": []}', /bad\.json: options\.__proto__: .* is not allowed/],
      ['{"cases": [{"name": "x", "constructor": 1}]}', /bad\.json: cases\.0\.constructor: .* is not allowed/],
      [
        { options: { treshold: 1 }, cases: [{ name: "x", metadata: bench, detections }] },
        /case "x": treshold: expected/,
      ],
    ] as const) {
      const { code, stderr } = await wrong("bad.json", content);
      expect(stderr).toMatch(error);
      expect(code).toBe(2);
    }
    const { code, stderr } = await geneval("--judge", file("ok.json", { cases: [] }), "--options", "treshold=0.5");
    expect([code, stderr]).toEqual([2, expect.stringMatching(/^error: --options treshold: expected one of/)]);
  });
});

/** Tiny random weights in the published layouts, and pictures. */
const fixtures = fileURLToPath(new URL("../../../../tests/reference/fixtures/scorers/", import.meta.url));
const detector = ["--detector", join(fixtures, "detector"), "--clip", join(fixtures, "clip_openai")];
/** All that the random detector says counts. */
const all = ["--options", "threshold=0", "--options", "counting_threshold=0"];

/** A folder of pictures as GenEval's programs leave it. */
function pictures(name: string, records: readonly object[]): string {
  records.forEach((record, i) => {
    const prompt = join(folder, name, String(i).padStart(5, "0"));
    mkdirSync(join(prompt, "samples"), { recursive: true });
    writeFileSync(join(prompt, "metadata.jsonl"), JSON.stringify(record));
    for (const [k, picture] of ["square", "noise"].entries())
      cpSync(join(fixtures, "pictures", `${picture}.png`), join(prompt, "samples", `000${k}.png`));
  });
  return join(folder, name);
}

const object = (name: string, more: object = {}) => ({ class: name, count: 1, ...more });
const truck = { tag: "single_object", include: [object("truck")], prompt: "a photo of a truck" };
const red = { tag: "colors", include: [object("truck", { color: "red" })], prompt: "a photo of a red truck" };
const missing = { tag: "single_object", include: [object("zebra", { count: 99 })], prompt: "zebras" };

describe("miro evaluate geneval --images", () => {
  it("finds, tells colours, judges and sums up, and does nothing twice", async () => {
    const images = pictures("whole", [truck, red, missing]);
    const first = await geneval("--images", images, ...detector, ...all, "--json");
    expect(first).toMatchObject({ code: 0, stderr: "" });
    const report = JSON.parse(first.stdout);
    expect(report).toMatchObject({ drawn: 0, detected: 6, images: 6, prompts: 3, problems: {} });
    expect(report.detector).toMatch(/OpenMMLab/);
    expect(report.tasks.single_object.images).toBe(4);
    const rows = readResults(join(images, "results.jsonl")) as unknown as Record<string, string>[];
    expect(Object.keys(rows[0]!).slice(0, 7)).toEqual(
      ["filename", "tag", "prompt", "correct", "reason", "metadata", "details"], // upstream's come first
    );
    expect(rows[0]!.filename).toBe("00000/samples/0000.png");
    expect(JSON.parse(rows[5]!.metadata!)).toEqual(missing);
    expect(rows[5]!.reason).toMatch(/^expected zebra>=99, found \d+$/);
    const colours = rows.slice(2, 4).map(({ colors }) => JSON.parse(colors!).truck as string[]);
    colours.forEach((answer, i) => {
      expect(answer).toHaveLength(1);
      const reason = rows[2 + i]!.reason;
      expect(reason).toBe(answer[0] === "red" ? "" : `expected red truck>=1, found 0 red; and 1 ${answer[0]}`);
    });
    expect(summarise(readResults(join(images, "results.jsonl"))).overall).toBe(report.overall);
    const files = ["results.jsonl", "summary.json", "summary.md", "failures.png"];
    const before = files.map((name) => sha256(readFileSync(join(images, name))));
    const again = JSON.parse((await geneval("--images", images, ...detector, ...all, "--json")).stdout);
    expect(again).toEqual({ ...report, detected: 0 });
    // Judging is repeated from what was found: other constants, no pictures looked at.
    const stricter = await geneval(
      "--images",
      images,
      ...detector,
      "--only",
      "judge",
      "--options",
      "threshold=1",
      "--json",
    );
    expect(JSON.parse(stricter.stdout)).toMatchObject({ detected: 0, correct_images: 0 });
    expect((await geneval("--images", images, ...detector, ...all)).code).toBe(0);
    expect(files.map((name) => sha256(readFileSync(join(images, name))))).toEqual(before);
  });

  it("judges alone what was found by such thresholds, in the pictures that are there", async () => {
    const both = { tag: "two_object", include: [object("truck"), object("dog")], prompt: "a truck and a dog" };
    const images = pictures("lower", [both]);
    const run = (...args: string[]) => geneval("--images", images, ...detector, "--json", ...args);
    const usual = JSON.parse((await run()).stdout);
    const { code, stderr } = await run("--only", "judge", "--options", "threshold=0");
    expect(code).toBe(2);
    expect(stderr).toMatch(/00000\.json: holds objects with scores above 0\.3 alone, .*without --only judge/);
    const all = JSON.parse((await run("--options", "threshold=0")).stdout);
    expect([usual.correct_images, all.correct_images]).toEqual([0, 1]);
    // What is above the usual threshold is among them.
    expect(JSON.parse((await run("--only", "judge")).stdout).correct_images).toBe(0);
    copyFileSync(join(fixtures, "pictures", "tall.png"), join(images, "00000", "samples", "0001.png"));
    const changed = JSON.parse((await run("--only", "judge")).stdout);
    expect([changed.images, changed.problems["missing picture"].first]).toEqual([
      1,
      [expect.stringMatching(/0001\.png: has changed since it was looked at; detect again/)],
    ]);
  });

  it("looks again where another class is asked for, whose masks were not kept", async () => {
    const dog = { ...red, include: [object("dog", { color: "red" })] };
    const run = async (images: string) => {
      expect((await geneval("--images", images, ...detector, ...all)).code).toBe(0);
      return readFileSync(join(images, "detections", "00000.json"), "utf8");
    };
    const images = pictures("renamed", [red]);
    const before = await run(images);
    writeFileSync(join(images, "00000", "metadata.jsonl"), JSON.stringify(dog));
    const after = await run(images);
    expect(after).toBe(await run(pictures("dogs", [dog])));
    expect(after).not.toBe(before);
    expect(await run(images)).toBe(after);
  });

  it("plans what is left of a folder with its own prompts; its file of verdicts is none of others", async () => {
    const images = pictures("begun", [truck, red]);
    const run = (...args: string[]) => geneval("--images", images, ...detector, ...all, "--json", ...args);
    const plan = async () => JSON.parse((await run("--dry-run")).stdout);
    const tasks = { single_object: 1, colors: 1 };
    const open = await plan();
    expect(open).toMatchObject({ prompts: 2, tasks, pictures: 4, present: 4, detected: 0, objects: 2, published: {} });
    expect(open.hours.here).toBeCloseTo(
      (4 * open.seconds.detect + 2 * open.seconds.colour + open.seconds.colourTexts) / 3600,
      9,
    );
    const outfile = ["--outfile", join(images, "verdicts.jsonl")];
    expect((await run("--only", "detect", ...outfile)).code).toBe(0);
    const detected = await plan();
    expect(detected).toMatchObject({ pictures: 4, detected: 4, objects: 2 });
    expect(detected.hours.here).toBeCloseTo((2 * detected.seconds.colour + detected.seconds.colourTexts) / 3600, 9);
    for (const _ of ["first", "again"]) expect(JSON.parse((await run(...outfile)).stdout).problems).toEqual({});
    expect((await plan()).hours.here).toBe(0);
    expect(JSON.parse((await run()).stdout).problems["foreign file"].count).toBe(1);
  });

  it("in bfloat16 finds about the same objects, and keeps them apart from those of float32", async () => {
    const images = pictures("halves", [red]);
    const run = async (...dtypes: string[]) => {
      const { stdout } = await geneval("--images", images, ...detector, ...all, "--json", ...dtypes);
      const report = JSON.parse(stdout) as { detected: number };
      const json = JSON.parse(readFileSync(join(images, "detections", "00000.json"), "utf8"));
      const found = Object.values(json.pictures as Record<string, { detections: { score: number }[] }>);
      const best = found.map(({ detections }) => Math.max(...detections.map(({ score }) => score)));
      const colours = sha256(readFileSync(join(images, "colours", "00000.json")));
      return { detected: report.detected, best, colours };
    };
    const whole = await run();
    const halves = ["--detector-dtype", "bfloat16", "--clip-dtype", "bfloat16"];
    const half = await run(...halves);
    expect([whole.detected, half.detected, (await run(...halves)).detected]).toEqual([2, 2, 0]);
    expect(half.best).not.toEqual(whole.best);
    half.best.forEach((score, i) => {
      expect(Math.abs(score - whole.best[i]!)).toBeLessThan(0.05);
    });
    expect(half.colours).not.toBe(whole.colours);
  });

  it("names and counts what is damaged, missing or foreign, and judges the rest", async () => {
    const images = pictures("odd", [truck, red, truck, truck, truck]);
    truncateSync(join(images, "00000", "samples", "0001.png"), 60);
    rmSync(join(images, "00001", "samples"), { recursive: true });
    writeFileSync(join(images, "00002", "metadata.jsonl"), '{"tag": "x"');
    rmSync(join(images, "00003", "samples", "0001.png"));
    writeFileSync(join(images, "00003", "samples", "0000.png.bak"), "");
    writeFileSync(join(images, "notes.txt"), "");
    mkdirSync(join(images, "0000x"));
    const asked = file(
      "asked.jsonl",
      [truck, red, truck, truck, truck, red].map((one) => JSON.stringify(one)).join("\n"),
    );
    const { code, stdout, stderr } = await geneval("--images", images, "--metadata-file", asked, ...detector, "--json");
    expect(code).toBe(0);
    const { problems, images: judged } = JSON.parse(stdout);
    expect(judged).toBe(4);
    expect(
      Object.fromEntries(Object.entries(problems).map(([kind, { count }]: [string, any]) => [kind, count])),
    ).toEqual({
      "damaged picture": 1,
      "foreign file": 3,
      "missing picture": 2,
      "missing prompt": 1,
      "wrong metadata": 1,
    });
    expect(stderr).toMatch(/damaged picture, 1:\n {2}00000\/samples\/0001\.png: /);
    expect(stderr).toMatch(/wrong metadata, 1:\n {2}00002\/metadata\.jsonl: not valid JSON/);
  });

  it("says which classes the detector does not know, before it looks, with those that may be meant", async () => {
    const mice = { tag: "single_object", include: [object("mouse"), object("truck")], prompt: "a mouse and a truck" };
    const images = pictures("mice", [mice, truck]);
    const { code, stderr } = await geneval("--images", images, ...detector);
    expect([code, stderr]).toEqual([
      0,
      'warning: the detector knows no class "mouse" and never finds it; did you mean "computer mouse"?\n',
    ]);
    expect((await geneval("--images", images, ...detector, "--prompt-range", "1-1")).stderr).toBe("");
    const asked = file("mice.jsonl", JSON.stringify(mice));
    const drawn = await geneval("--prompts", "emoji", "--metadata-file", asked, "--dry-run", "--steps", "1");
    expect(drawn.stderr).toMatch(/^warning: the detector knows no class "truck" .*\n$/); // emoji have a mouse
  });

  it("ends beside pictures that cannot be read, tells why, and looks at them again once they can be", async () => {
    const images = pictures("unreadable", [truck]);
    const path = join(images, "00000", "samples", "0001.png");
    rmSync(path);
    symlinkSync("nowhere", path);
    const evaluated = async () => JSON.parse((await geneval("--images", images, ...detector, "--json")).stdout);
    const damaged = { "damaged picture": { count: 1, first: [expect.stringMatching(/0001\.png: cannot be read: /)] } };
    expect(await evaluated()).toMatchObject({ images: 1, problems: damaged });
    expect(await evaluated()).toMatchObject({ detected: 0, images: 1, problems: damaged });
    copyFileSync(join(images, "00000", "samples", "0000.png"), join(path, "..", "nowhere"));
    const { detected, images: judged, problems } = await evaluated();
    expect([detected, judged, Object.keys(problems)]).toEqual([2, 2, ["foreign file"]]);
  });

  it("sums verdicts up beside their file, under the name of the model that hparams.json says, else of the folder", async () => {
    const home = join(folder, "theirs");
    mkdirSync(home);
    const outfile = join(home, "results.jsonl");
    const { images } = JSON.parse(
      (await geneval("--images", pictures("summed", [truck]), ...detector, "--json")).stdout,
    );
    cpSync(join(folder, "summed", "results.jsonl"), outfile);
    const summed = async () => {
      const { stdout } = await geneval("--only", "summary", "--outfile", outfile, "--json");
      expect(JSON.parse(stdout).images).toBe(images);
      return readFileSync(join(home, "summary.md"), "utf8").split("\n")[2]!.split(" | ")[0];
    };
    expect(await summed()).toBe("| theirs");
    writeFileSync(join(home, "hparams.json"), JSON.stringify({ checkpoint: "runs/step-7.ckpt" }));
    expect(await summed()).toBe("| step-7.ckpt");
  });

  it("leaves no folder where it has written nothing", async () => {
    const [here, empty] = [process.cwd(), join(folder, "empty")];
    mkdirSync(empty);
    process.chdir(empty);
    try {
      const misspelt = await geneval("--prompts", "emoji", "--tasks", "counting,postion");
      const tasks = "single_object, two_object, counting, position";
      expect(misspelt.stderr).toBe(`error: --tasks: expected tasks of the prompts, ${tasks}, received "postion"\n`);
      const none = await geneval("--prompts", "emoji", "--tasks", "counting", "--prompt-range", "0-0");
      expect(none.stderr).toMatch(/no prompt is left/);
    } finally {
      process.chdir(here);
    }
    expect(readdirSync(empty)).toEqual([]);
  });

  it("refuses what contradicts itself, before anything is loaded", async () => {
    const images = pictures("refused", [truck]);
    for (const [args, error] of [
      [["--images", images], /--detector: expected the weights of GenEval's detector/],
      [["--images", images, "--model", "x", ...detector], /--images: expected no --model with it/],
      [["--images", images, ...detector, "--options", "bgcolor=grey"], /bgcolor: expected original, or a colour/],
      [
        ["--images", images, ...detector, "--options", "model=x"],
        /--options model: expected the weights by --detector/,
      ],
      [["--images", images, ...detector, "--sweep", "sharpness"], /a sweep draws, finds and judges/],
      [["--prompts", "cats"], /--prompts: expected one of geneval, emoji/],
      [
        ["--prompts", "emoji", "--detector-dtype", "bfloat16"],
        /--detector-dtype: expected float32 with --prompts emoji/,
      ],
      [["--images", images, ...detector, "--clip-dtype", "int8"], /--clip-dtype: expected one of auto, float32/],
      [["--prompts", "emoji", "--cfg", "1", "--guidance", "2"], /--cfg: expected the same as --guidance 2/],
      [["--prompts", "emoji", "--prompt-range", "5-2"], /--prompt-range: expected FIRST-LAST/],
      [["--checkpoint", images, ...detector], /--checkpoint: .* holds no model/],
      [["--only", "summary", "--outfile", join(folder, "none.jsonl")], /none\.jsonl: cannot be read/],
    ] as const) {
      const { code, stderr } = await geneval(...args);
      expect(stderr).toMatch(error);
      expect(code).toBeGreaterThan(0);
    }
  });
});

describe("miro evaluate geneval --prompts emoji", () => {
  const emoji = (...args: string[]) =>
    geneval("--prompts", "emoji", "--prompt-range", "0-1", "--steps", "1", "--outdir", join(folder, "emoji"), ...args);

  it("draws with the bundled model, goes on, and refuses pictures of other settings", async () => {
    const { code, stdout } = await emoji("--n-samples", "2");
    expect(code).toBe(0);
    expect(stdout).toMatch(
      /^4 pictures drawn\n4 pictures looked at\n\nSummary\n=+\nTotal images: 4\nTotal prompts: 2\n/,
    );
    const picture = join(folder, "emoji", "00001", "samples", "0001.png");
    const bytes = sha256(readFileSync(picture));
    truncateSync(picture, 1000);
    const again = JSON.parse((await emoji("--n-samples", "2", "--batch-size", "1", "--json")).stdout);
    expect(again).toMatchObject({ drawn: 1, images: 4 });
    expect(sha256(readFileSync(picture))).toBe(bytes);
    const hparams = JSON.parse(readFileSync(join(folder, "emoji", "hparams.json"), "utf8"));
    expect(Object.keys(hparams).slice(0, 10)).toEqual(
      "checkpoint n_samples steps cfg seed coherence_keys coherence_values uncoherence_values guidance_type negative_prompts".split(
        " ",
      ),
    );
    expect(hparams).toMatchObject({ checkpoint: "miro-emoji", n_samples: 2, steps: 1, seed: 42, sampler: "euler" });
    const other = await emoji("--n-samples", "2", "--reward", "sharpness=0.5");
    expect(other.code).toBe(2);
    expect(other.stderr).toMatch(
      /these pictures were made with other settings: coherence_values is .*choose another --outdir/,
    );
    const replaced = JSON.parse(
      (await emoji("--n-samples", "2", "--reward", "sharpness=0.5", "--overwrite", "--json")).stdout,
    );
    expect(replaced).toMatchObject({ drawn: 4, detected: 4 });
  });

  it.each([
    ["generate", (of: string) => join(of, "00001", "samples", "0000.png")],
    ["detect", (of: string) => join(of, "detections", "00001.json")],
  ])("--only %s waits for what another process has begun, and does it where that was stopped", async (only, made) => {
    const outdir = join(folder, "shared");
    const step = (...args: string[]) =>
      geneval("--prompts", "emoji", "--prompt-range", "0-1", "--steps", "1", "--outdir", outdir, ...args);
    if (only === "detect") expect((await step("--only", "generate")).code).toBe(0);
    using other = new SharedWork(outdir);
    expect(await other.take(only, [1], () => false, 1)).toEqual([1]);
    const run = step("--only", only);
    await vi.waitFor(() => expect(existsSync(made(outdir).replace("00001", "00000"))).toBe(true), 30_000);
    expect(existsSync(made(outdir))).toBe(false);
    other.release();
    const { code, stderr } = await run;
    expect([code, existsSync(made(outdir))], stderr).toEqual([0, true]);
  });

  it("sweeps a reward's target, with a plot of GenEval and scores", async () => {
    const { code, stdout } = await emoji(
      "--sweep",
      "sharpness=0,1",
      "--scorers",
      "sharpness",
      "--json",
      "--outdir",
      join(folder, "sweep"),
    );
    expect(code).toBe(0);
    const { points } = JSON.parse(stdout);
    expect(points.map(({ target }: { target: number }) => target)).toEqual([0, 1]);
    expect(Object.keys(points[1].scores)).toEqual(["sharpness"]);
    for (const name of ["sweep.png", "sweep.json", "sharpness-0/summary.json", "sharpness-1/00001/samples/0000.png"])
      expect(existsSync(join(folder, "sweep", name)), name).toBe(true);
  });

  it.each([
    ["detector", ["--detector", join(fixtures, "hpsv2")]],
    ["CLIP", [...detector, "--clip", join(fixtures, "hpsv2")]],
    ["scorers", [...detector, ...["--sweep", "sharpness=0,1", "--scorers", "hpsv2", "--weights", `hpsv2=${folder}`]]],
  ])("says before it draws that weights of the %s are missing, and makes no folder then", async (_, args) => {
    const outdir = join(folder, "unarmed");
    const asked = ["--prompt-range", "259-259", "--steps", "1", "--outdir", outdir];
    const { code, stderr } = await geneval(...asked, ...args);
    expect([code, stderr]).toEqual([2, expect.stringContaining("holds no weights")]);
    expect(existsSync(outdir)).toBe(false);
  });

  it("plans the colours of objects too, and times them where CLIP is given", async () => {
    const plan = async (...args: string[]) => {
      const asked = ["--steps", "1", "--tasks", "colors,color_attr", "--outdir", join(folder, "plan")];
      const { code, stdout, stderr } = await geneval(...asked, ...args, "--dry-run");
      expect([code, stderr]).toEqual([0, ""]);
      return stdout;
    };
    const untimed = await plan();
    // 94 prompts of one object, 100 of two, four pictures each
    expect(untimed).toMatch(/\n1,176 objects whose colour is asked for, not timed each\n/);
    expect(untimed).toMatch(/in one process, without the detector and the colours\n/);
    const timed = JSON.parse(await plan(...detector, "--json"));
    expect(timed.seconds.colour).toBeGreaterThan(0);
    expect(timed.seconds.colourTexts).toBeGreaterThan(0);
    expect(timed.objects).toBe(1176);
  });

  it("plans without drawing", async () => {
    const { stdout } = await emoji("--dry-run", "--json", "--outdir", join(folder, "planned"));
    const plan = JSON.parse(stdout);
    expect(plan).toMatchObject({
      prompts: 2,
      samples: 1,
      pictures: 2,
      present: 0,
      steps: 1,
      tasks: { single_object: 2 },
    });
    expect(plan.hours.here).toBeGreaterThan(0);
    expect(existsSync(join(folder, "planned"))).toBe(false);
    expect((await emoji("--outdir", join(folder, "planned"))).code).toBe(0);
    const left = JSON.parse((await emoji("--dry-run", "--json", "--outdir", join(folder, "planned"))).stdout);
    expect(left).toMatchObject({ pictures: 2, present: 2, detected: 2, hours: { here: 0 } });
  });
});
