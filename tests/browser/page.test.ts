/** The studio's page in a real Chromium, against a real server. */
import { once } from "node:events";
import { copyFileSync, cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, request } from "node:http";
import { createRequire } from "node:module";
import { type AddressInfo, connect, createServer as createTcpServer, type Socket } from "node:net";
import { join } from "node:path";
import { type Browser, type BrowserContextOptions, chromium, type Page, type Route } from "playwright-core";
import sharp from "sharp";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { chromiumPath } from "./need-chromium.js";
import { folder, removeFolders, type Serving, serve, tinyModel } from "./serving.js";

let browser: Browser;
let model: string;
let studio: Serving;
/** What pages said that they should not: errors, and what the content security policy refused. */
const complaints: string[] = [];

beforeAll(async () => {
  model = tinyModel();
  [browser, studio] = await Promise.all([
    chromium.launch({ executablePath: chromiumPath, args: ["--no-sandbox"] }),
    serve(model),
  ]);
});
afterAll(async () => {
  await browser?.close();
  await studio?.end();
  removeFolders();
});
afterEach(async () => {
  for (const context of browser.contexts()) await context.close();
  // What a test that failed leaves to do would keep the next ones waiting.
  for (const { id, status } of (await api<Jobs>("/api/jobs?limit=50")).jobs)
    if (status === "queued" || status === "running")
      await fetch(`${studio.url}/api/jobs/${id}`, { method: "DELETE", headers: { origin: studio.url } });
  expect(complaints.splice(0)).toEqual([]);
});

async function open(
  options: BrowserContextOptions = {},
  { of = studio, ready = true, clock = false } = {},
): Promise<Page> {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  const page = await context.newPage();
  if (clock) await page.clock.install();
  page.setDefaultTimeout(60_000);
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("console", (message) => {
    // The browser itself reports what the server refuses; the page shows it to people.
    if (message.type() === "error" && !/^Failed to load resource/.test(message.text())) complaints.push(message.text());
  });
  await page.goto(of.url);
  if (ready) await page.locator(".reward").first().waitFor();
  return page;
}

const number = (page: Page, label: string) => page.getByLabel(`${label}, as a number`, { exact: true });
const generate = (page: Page) => page.getByRole("button", { name: /^Generate/ }).click();

/** Fills the form and draws. */
async function draw(page: Page, { prompt = "a cat", steps = 4, images = 1 } = {}): Promise<void> {
  await page.getByLabel("Prompt", { exact: true }).fill(prompt);
  await number(page, "Steps").fill(`${steps}`);
  await number(page, "Images").fill(`${images}`);
  await generate(page);
}

async function api<T>(path: string, of = studio): Promise<T> {
  return (await fetch(`${of.url}${path}`)).json() as Promise<T>;
}

interface Jobs {
  jobs: { id: string; status: string }[];
}

describe("jobs", () => {
  it("are drawn with previews, and their pictures come into the gallery", async () => {
    const page = await open();
    await draw(page, { prompt: "a cat on a mat", steps: 160, images: 2 });
    await page.locator(".job-tile .preview").first().waitFor();
    const says = page.locator(".job-state");
    expect(await says.textContent()).toMatch(/^Step \d+ of 160(, [\d.]+ (s|min) left)?$/);
    // A screen reader reads how it ends, and not every step.
    expect(await says.getAttribute("aria-live")).toBe("off");
    await page.locator(".job.done").waitFor();
    expect(await says.getAttribute("aria-live")).toBe("polite");
    expect(await page.locator(".job-tile button").count()).toBe(2);
    await page.locator(".card").nth(1).waitFor();
    expect(await page.getByRole("button", { name: /^a cat on a mat, seed \d+: show large$/ }).count()).toBe(2);
  });

  it("are cancelled at once, while others go on", async () => {
    const page = await open();
    await draw(page, { prompt: "the first", steps: 90_000 });
    await draw(page, { prompt: "the second", steps: 4 });
    const first = page.getByRole("article", { name: "Job: the first" });
    const second = page.getByRole("article", { name: "Job: the second" });
    await second.getByText("Waits: 1 job before it.").waitFor();
    await first.getByRole("button", { name: "Cancel" }).click();
    await first.getByText("Cancelled.").waitFor();
    await second.getByText(/^Done/).waitFor();
    expect((await api<Jobs>("/api/jobs?limit=2")).jobs.map(({ status }) => status)).toEqual(["done", "cancelled"]);
  });

  it("go on over a reload of the page", async () => {
    const page = await open();
    await draw(page, { prompt: "reloaded", steps: 90_000 });
    await draw(page, { prompt: "behind it", steps: 4 });
    await page.getByText(/^Step \d+ of 90000/).waitFor();
    await page.reload();
    const job = page.getByRole("article", { name: "Job: reloaded" });
    await job.getByText(/^Step \d+ of 90000/).waitFor();
    await page.getByText("Waits: 1 job before it.").waitFor();
    await job.getByRole("button", { name: "Cancel" }).click();
    const behind = page.getByRole("article", { name: "Job: behind it" });
    await behind.getByText(/^Done/).waitFor();
    expect(await behind.getByRole("button", { name: "Show picture 1 large" }).count()).toBe(1);
  });

  // A browser may tell the page that it leaves of the end of its requests.
  it.each([
    { answer: "has not come", end: undefined },
    { answer: "is lost", end: (route: Route) => route.abort() },
  ])("are found again when the page is left and the studio's answer $answer", async ({ end }) => {
    const page = await open();
    let reached: () => void = () => {};
    const asked = new Promise<void>((resolve) => {
      reached = resolve;
    });
    await page.route("**/api/jobs", async (route) => {
      await route.fetch();
      await end?.(route);
      reached();
    });
    await draw(page, { prompt: "on its way", steps: 90_000 });
    await asked;
    if (end)
      await page
        .getByText(/does not answer/)
        .first()
        .waitFor();
    await page.unroute("**/api/jobs");
    await page.reload();
    const job = page.getByRole("article", { name: "Job: on its way" });
    await job.getByText(/^Step \d+ of 90000/).waitFor();
    await job.getByRole("button", { name: "Cancel" }).click();
    await job.getByText("Cancelled.").waitFor();
  });

  it("that ended long ago are put away, and those that are lost are told", async () => {
    const page = await open();
    await draw(page, { prompt: "long ago" });
    await page.locator(".job.done").waitFor();
    const forgotten = (route: Route) =>
      route.fulfill({ status: 410, json: { error: { message: "the job is no longer known" } } });
    await page.route(/\/api\/jobs\/job-/, forgotten);
    await page.reload();
    await expect.poll(() => page.evaluate("sessionStorage.getItem('miro-studio-jobs')")).toBe("[]");
    expect(await page.getByRole("alert").count()).toBe(0);
    await page.unroute(/\/api\/jobs\/job-/);
    await draw(page, { prompt: "in the middle", steps: 90_000 });
    await page.getByText(/^Step \d+ of 90000/).waitFor();
    await page.route(/\/api\/jobs\/job-/, forgotten);
    await page.reload();
    await page.getByRole("alert").getByText("The job is no longer known.").waitFor();
  });

  it("whose answer alone was lost are taken up when the studio answers again", async () => {
    const page = await open();
    await page.route("**/api/jobs", async (route) => {
      await route.fetch();
      await route.abort();
    });
    await draw(page, { prompt: "answered nobody", steps: 90_000 });
    const job = page.getByRole("article", { name: "Job: answered nobody" });
    await job.getByText(/^Step \d+ of 90000/).waitFor();
    expect(await page.getByRole("alert").count()).toBe(0);
    await job.getByRole("button", { name: "Cancel" }).click();
    await job.getByText("Cancelled.").waitFor();
    expect(await job.count()).toBe(1);
  });

  it("of prompts that are read from the right stand on the right", async () => {
    const page = await open();
    const direction = (of: string) => page.evaluate(`getComputedStyle(document.querySelector("${of}")).direction`);
    expect(await direction("#prompt")).toBe("ltr");
    await draw(page, { prompt: "تفاحة حمراء" });
    await page.locator(".job.done").waitFor();
    await page.locator(".job-tile button").click();
    await page.locator(".viewer-prompt").waitFor();
    for (const of of ["#prompt", ".job-text strong", ".viewer-prompt"]) expect(await direction(of)).toBe("rtl");
  });

  it("of prompts that take many bytes are sent as others are", async () => {
    const page = await open();
    // More bytes than a browser lets go on when the page is left, and fewer characters.
    await draw(page, { prompt: "🦊".repeat(20_000) });
    await page.locator(".job.done").waitFor();
    expect(await page.getByText(/does not answer/).count()).toBe(0);
  });

  it("go on when the network falls silent without an end, as in a computer that slept", async () => {
    const { port } = new URL(studio.url);
    const streams: Socket[] = [];
    const between = createTcpServer((near) => {
      const far = connect(Number(port), "127.0.0.1");
      for (const [one, other] of [
        [near, far],
        [far, near],
      ] as const) {
        one.pipe(other);
        one.on("error", () => other.destroy());
        one.on("close", () => other.destroy());
      }
      far.on("data", (piece) => {
        if (piece.includes("text/event-stream")) streams.push(far);
      });
    });
    await new Promise<void>((resolve) => between.listen(0, "127.0.0.1", resolve));
    const url = `http://127.0.0.1:${(between.address() as AddressInfo).port}`;
    const page = await open({}, { of: { ...studio, url }, clock: true });
    try {
      await draw(page, { prompt: "silent", steps: 90_000 });
      await page.getByText(/^Step \d+ of 90000/).waitFor();
      const before = streams.splice(0);
      for (const stream of before) stream.unpipe().pause();
      // What was on its way when the network fell silent still arrives, and begins the time anew.
      const later = async () => {
        await page.clock.fastForward(41_000);
        return streams.length;
      };
      await expect.poll(later, { interval: 1000 }).toBeGreaterThan(0);
      await page.getByRole("button", { name: "Cancel" }).click();
      await page.getByText("Cancelled.").waitFor();
    } finally {
      await page.close();
      between.close();
    }
  });

  it("of many windows beside each other leave connections for everything else", async () => {
    const context = await browser.newContext({ viewport: { width: 1280, height: 900 } });
    const windows: Page[] = [];
    for (let i = 0; i < 4; i++) {
      const page = await context.newPage();
      page.setDefaultTimeout(60_000);
      await page.goto(studio.url);
      await page.locator(".reward").first().waitFor();
      windows.push(page);
      for (let job = 0; job < 2; job++) {
        await draw(page, { prompt: `window ${i}, job ${job}`, steps: 90_000 });
        await page.getByRole("article", { name: `Job: window ${i}, job ${job}` }).waitFor();
      }
    }
    const last = windows.at(-1)!.getByRole("article", { name: "Job: window 3, job 1" });
    await last.getByText(/^(Step|Waits)/).waitFor();
    await last.getByRole("button", { name: "Cancel" }).click();
    await last.getByText("Cancelled.").waitFor();
    for (const [i, page] of windows.entries()) {
      for (const job of i === 3 ? [0] : [0, 1])
        await page
          .getByRole("article", { name: `Job: window ${i}, job ${job}` })
          .getByRole("button", { name: "Cancel" })
          .click();
      await expect.poll(() => page.locator(".job.cancelled").count()).toBe(2);
    }
  });

  it("that fail say why, at the prompt", async () => {
    const page = await open();
    await draw(page, { prompt: "  " });
    await page.getByRole("alert").getByText("Please enter a prompt.").waitFor();
    await draw(page, { prompt: "a cat", images: 1 });
    await page.locator(".job.done").waitFor();
    expect(await page.getByRole("alert").count()).toBe(0);
  });

  it("are asked for once by a key that is held", async () => {
    const page = await open();
    const count = async () => (await api<Jobs>("/api/jobs?limit=200")).jobs.length;
    const before = await count();
    await number(page, "Steps").fill("2");
    await page.getByLabel("Prompt", { exact: true }).fill("held");
    await page.keyboard.down("Control");
    for (let i = 0; i < 10; i++) await page.keyboard.down("Enter");
    await page.keyboard.up("Enter");
    await page.keyboard.press("Enter");
    await page.keyboard.up("Control");
    await expect.poll(count).toBeGreaterThan(before);
    await page.getByRole("article", { name: "Job: held" }).getByText(/^Done/).first().waitFor();
    // The second press was one of its own, if the first had its answer by then.
    expect(await count()).toBeLessThanOrEqual(before + 2);
  });

  it("begin with an example, but where somebody writes before the models are there", async () => {
    const page = await open();
    const prompt = page.getByLabel("Prompt", { exact: true });
    expect(await prompt.inputValue()).not.toBe("");
    await page.evaluate("localStorage.clear()");
    let models: Route | undefined;
    await page.route(/api\/models$/, (route) => {
      models = route;
    });
    await page.reload();
    await prompt.focus();
    await expect.poll(() => models).toBeDefined();
    await models!.continue();
    await page.locator(".reward").first().waitFor();
    expect(await prompt.inputValue()).toBe("");
  });

  it("begin with what was set before, as far as the studio has it", async () => {
    const page = await open();
    await page.getByText("More settings").click();
    await number(page, "Best of").fill("2");
    const scorer = () => page.getByLabel("Best by the scorer").inputValue();
    await page.getByLabel("Best by the scorer").fill("sharpness,colorfulness=0.5");
    await page.evaluate(`{
      const kept = JSON.parse(localStorage.getItem("miro-studio-form"));
      localStorage.setItem("miro-studio-form", JSON.stringify({ ...kept, images: 99, sampler: "gone" }));
    }`);
    await page.reload();
    await page.getByText("More settings").click();
    expect(await scorer()).toBe("sharpness,colorfulness=0.5");
    expect(await number(page, "Images").inputValue()).toBe("16");
    expect(await page.getByLabel("Sampler", { exact: true }).inputValue()).toBe("euler");
    // A connection that comes back changes nothing.
    await page.getByLabel("Prompt", { exact: true }).fill("");
    await page.context().setOffline(true);
    await page.getByLabel("Search the prompts").fill("a");
    await page.getByText("The connection is lost").waitFor();
    await page.context().setOffline(false);
    await expect.poll(() => page.getByText("The connection is lost").count()).toBe(0);
    await page.getByText("No picture is like that.").or(page.locator(".card").first()).first().waitFor();
    expect([await page.getByLabel("Prompt", { exact: true }).inputValue(), await scorer()]).toEqual([
      "",
      "sharpness,colorfulness=0.5",
    ]);
  });

  it("keep the best of several, with its scores", async () => {
    const page = await open();
    await page.getByText("More settings").click();
    await number(page, "Best of").fill("3");
    await page.getByLabel("Best by the scorer").fill("sharpness");
    await draw(page);
    await page
      .locator(".scores")
      .getByText(/^sharpness -?[\d.]+$/)
      .waitFor();
  });
});

describe("the reward map", () => {
  it("is drawn from coarse to fine, shows its targets, and gives them to the sliders", async () => {
    const page = await open();
    await page.getByLabel("Prompt", { exact: true }).fill("a map");
    await number(page, "Steps").fill("3");
    await page.getByRole("link", { name: "Reward map" }).click();
    await page.getByLabel("Across").selectOption({ label: "Aesthetic" });
    await page.getByLabel("Up", { exact: true }).selectOption({ label: "CLIP" });
    await page.getByRole("button", { name: "Draw the map" }).click();
    await page.locator(".cells .drawn").nth(8).waitFor();
    // The corners and the middles come before what lies between them.
    expect(await page.locator("[data-cell='0'].drawn, [data-cell='24'].drawn").count()).toBe(2);
    await page.locator(".cells .drawn").nth(24).waitFor();
    const cell = page.locator("[data-cell='3']");
    await cell.hover();
    await page.getByText("Aesthetic 0.75, CLIP 1.00").first().waitFor();
    await cell.click();
    expect(await number(page, "Aesthetic, positive target").inputValue()).toBe("0.75");
    expect(await number(page, "CLIP, positive target").inputValue()).toBe("1.00");
    // One stop for Tab, from which arrows lead on.
    const stops = () => page.locator(".cells [tabindex='0']").evaluateAll((all) => all.map((one) => one.dataset.cell));
    expect(await stops()).toEqual(["3"]);
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("ArrowLeft");
    expect([await stops(), await page.locator(":focus").getAttribute("data-cell")]).toEqual([["7"], "7"]);
    const { pictures } = await api<{ pictures: { seed: number }[] }>("/api/pictures?q=map&limit=100");
    expect(pictures.length).toBe(25);
    expect(new Set(pictures.map(({ seed }) => seed)).size).toBe(1);
  });

  it("of two tabs, one a duplicate of the other, is drawn once and seen in both", async () => {
    const page = await open();
    await page.getByLabel("Prompt", { exact: true }).fill("a twin");
    await number(page, "Steps").fill("200");
    await page.getByRole("link", { name: "Reward map" }).click();
    await page.getByLabel("Pictures", { exact: true }).selectOption("3");
    await page.getByRole("button", { name: "Draw the map" }).click();
    await page.locator(".top-state").getByText("1 job").waitFor();
    const kept = await page.evaluate("JSON.stringify(sessionStorage)");
    const twin = await page.context().newPage();
    await twin.addInitScript(`for (const item of Object.entries(${kept})) sessionStorage.setItem(...item)`);
    await twin.goto(page.url());
    for (const one of [page, twin]) await one.locator(".cells .drawn").nth(8).waitFor();
    const { pictures } = await api<{ pictures: unknown[] }>("/api/pictures?q=twin&limit=100");
    expect(pictures.length).toBe(9);
  });

  it("that cannot be stopped says so", async () => {
    const page = await open();
    await page.getByLabel("Prompt", { exact: true }).fill("a long map");
    await number(page, "Steps").fill("90000");
    await page.getByRole("link", { name: "Reward map" }).click();
    await page.getByRole("button", { name: "Draw the map" }).click();
    await page.locator(".top-state").getByText("1 job").waitFor();
    await page.context().setOffline(true);
    await page.getByRole("button", { name: "Stop" }).click();
    await page.locator(".notice.bad").getByText("The studio does not answer.").waitFor();
  });

  it("has a strip for one reward", async () => {
    const page = await open();
    await page.getByLabel("Prompt", { exact: true }).fill("a strip");
    await number(page, "Steps").fill("3");
    await page.getByRole("button", { name: /^CLIP: a strip/ }).click();
    await page.getByRole("button", { name: "CLIP 0.25: take this target" }).click();
    expect(await number(page, "CLIP, positive target").inputValue()).toBe("0.25");
  });

  it("has one strip for a reward at a time: another one, or closing it, ends the drawing", async () => {
    const page = await open();
    await number(page, "Steps").fill("90000");
    const live = async () =>
      (await api<Jobs>("/api/jobs?limit=10")).jobs.filter(({ status }) => status === "queued" || status === "running");
    const strip = page.getByRole("button", { name: /^CLIP: a strip/ });
    let before: string | undefined;
    for (let turn = 0; turn < 2; turn++) {
      await strip.click();
      const isAnother = async () => {
        const ids = (await live()).map(({ id }) => id);
        return ids.length === 1 && ids[0] !== before;
      };
      await expect.poll(isAnother).toBe(true);
      before = (await live())[0]!.id;
    }
    await page.getByRole("button", { name: "Close the strip of CLIP" }).click();
    await expect.poll(async () => (await live()).length).toBe(0);
  });
});

describe("pictures", () => {
  /** A picture of the server, as its id and its file. */
  async function drawn(page: Page, prompt: string): Promise<{ id: string; png: Buffer; seed: number }> {
    await draw(page, { prompt });
    await page
      .getByRole("article", { name: `Job: ${prompt}` })
      .getByText(/^Done/)
      .waitFor();
    const { pictures } = await api<{ pictures: { id: string; seed: number }[] }>(`/api/pictures?q=${prompt}`);
    const { id, seed } = pictures[0]!;
    const answer = await fetch(`${studio.url}/api/pictures/${id}.png`);
    return { id, seed, png: Buffer.from(await answer.arrayBuffer()) };
  }

  it("give their settings to the form when they are dropped", async () => {
    const page = await open();
    await number(page, "CLIP, positive target").fill("0.5");
    const { png, seed } = await drawn(page, "dropped");
    await page.getByLabel("Prompt", { exact: true }).fill("another");
    await page.getByRole("button", { name: /Reset to 1/ }).click();
    await page.evaluate(`{
      const bytes = Uint8Array.from(atob("${png.toString("base64")}"), (c) => c.charCodeAt(0));
      const dataTransfer = new DataTransfer();
      dataTransfer.items.add(new File([bytes], "dropped.png", { type: "image/png" }));
      document.body.dispatchEvent(new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer }));
    }`);
    await page.getByText("The settings of the picture are taken over.").waitFor();
    expect(await page.getByLabel("Prompt", { exact: true }).inputValue()).toBe("dropped");
    expect(await page.getByLabel("Seed", { exact: true }).inputValue()).toBe(String(seed));
    expect(await number(page, "CLIP, positive target").inputValue()).toBe("0.51"); // the nearest of 64
    await page.getByLabel("Prompt", { exact: true }).fill("another");
    const chosen = page.waitForEvent("filechooser");
    await page.getByRole("button", { name: "Take over a picture's settings" }).press("Enter");
    await (await chosen).setFiles({ name: "dropped.png", mimeType: "image/png", buffer: png });
    await expect.poll(() => page.getByLabel("Prompt", { exact: true }).inputValue()).toBe("dropped");
    // What is no picture is said once, however often it comes.
    for (let i = 0; i < 2; i++) {
      const text = { name: "a.txt", mimeType: "text/plain", buffer: Buffer.from("no picture") };
      await page.getByLabel("Picture whose settings are taken over").setInputFiles(text);
      await page.getByText(/^Image: expected a picture that is whole, received no JPEG, PNG/).waitFor();
    }
    expect(await page.getByText(/^Image: expected a picture that is whole, received no JPEG, PNG/).count()).toBe(1);
  });

  it("have no target where the number is taken away, and one again where the slider is touched", async () => {
    const page = await open();
    const label = "Aesthetic, positive target";
    const [field, slider] = [number(page, label), page.getByLabel(label, { exact: true })];
    await field.fill("");
    await number(page, "CLIP, negative target").fill("");
    expect(await slider.getAttribute("aria-valuetext")).toBe("none");
    const { png, id } = await drawn(page, "of none");
    const settings = await api<Record<string, object>>(`/api/pictures/${id}/settings`);
    expect(settings.rewardTargets).toMatchObject({ aesthetic_score: null, clip_score: 1 });
    expect(settings.negativeRewardTargets).toMatchObject({ aesthetic_score: 0, clip_score: null });
    await slider.click({ position: { x: 4, y: 10 } }); // where it stands
    expect(await field.inputValue()).toBe("0.00");
    const file = { name: "none.png", mimeType: "image/png", buffer: png };
    await page.getByLabel("Picture whose settings are taken over").setInputFiles(file);
    await page.getByText("The settings of the picture are taken over.").waitFor();
    expect([await field.inputValue(), await field.getAttribute("placeholder")]).toEqual(["", "none"]);
    await page.getByRole("button", { name: /Reset to 1/ }).click();
    expect(await field.inputValue()).toBe("1.00");
  });

  it("are drawn again by their settings to the bit: variations, and options of the sampler", async () => {
    const page = await open();
    const LARGE = Number.MAX_SAFE_INTEGER - 4; // seeds of programs are larger than those of the page
    const more = { sampler: "euler_ancestral", samplerOptions: { eta: 0.5 }, variationSeed: 5, variationStrength: 0.4 };
    const answer = await fetch(`${studio.url}/api/jobs`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ prompt: "again", seed: LARGE, steps: 4, ...more }),
    });
    expect(answer.status).toBe(202);
    const found = async (count: number) => {
      await expect
        .poll(async () => (await api<{ pictures: unknown[] }>("/api/pictures?q=again")).pictures.length)
        .toBe(count);
      const { pictures } = await api<{ pictures: { id: string }[] }>("/api/pictures?q=again");
      return Promise.all(
        pictures.map(async ({ id }) => {
          const file = await (await fetch(`${studio.url}/api/pictures/${id}.png`)).arrayBuffer();
          return sharp(Buffer.from(file)).raw().toBuffer();
        }),
      );
    };
    await found(1);
    // What another program drew is there when somebody looks again.
    const card = page.getByRole("button", { name: `again, seed ${LARGE}: show large` });
    expect(await card.count()).toBe(0);
    await page.evaluate(`window.dispatchEvent(new Event("focus"))`);
    await card.click();
    await page.getByRole("button", { name: "Use settings" }).click();
    await page.getByText("The settings of the picture are taken over.", { exact: true }).waitFor();
    const seed = page.getByLabel("Seed", { exact: true });
    expect(await seed.inputValue()).toBe(`${LARGE}`);
    await seed.fill("0");
    await seed.fill(`${LARGE}`);
    await number(page, "Steps").focus();
    expect(await seed.inputValue()).toBe(`${LARGE}`);
    await number(page, "Images").fill("1");
    await generate(page);
    const [one, other] = await found(2);
    expect(one!.equals(other!)).toBe(true);
  });

  it("that are gone already are deleted without a word", async () => {
    const page = await open();
    const { id } = await drawn(page, "taken away");
    await fetch(`${studio.url}/api/pictures/${id}`, { method: "DELETE" });
    const card = page.getByRole("button", { name: /^taken away, / });
    await card.focus();
    await page.keyboard.press("Delete");
    await expect.poll(() => card.count()).toBe(0);
    await drawn(page, "seen large");
    const other = page.getByRole("button", { name: /^seen large, / });
    await other.click();
    await page.locator("dialog.viewer").waitFor();
    await page.keyboard.press("Delete");
    await expect.poll(() => other.count()).toBe(0);
    expect(await page.locator(".notice.bad").count()).toBe(0);
    expect((await api<{ pictures: unknown[] }>("/api/pictures?q=seen+large")).pictures).toEqual([]);
    // Who wants another thing of such a picture is told.
    await page.keyboard.press("Escape");
    const { id: last } = await drawn(page, "liked");
    await fetch(`${studio.url}/api/pictures/${last}`, { method: "DELETE" });
    await page.getByRole("button", { name: /^liked, / }).click();
    await page.locator("dialog.viewer").waitFor();
    await page.keyboard.press("f");
    await page.getByText("There is no such picture.").first().waitFor();
    await expect.poll(() => page.getByRole("button", { name: /^liked, / }).count()).toBe(0);
    expect(await page.locator("dialog.viewer").count()).toBe(0);
  });

  it("that another program has deleted leave the gallery where they cannot be shown", async () => {
    const page = await open();
    let held: Route[] | undefined = [];
    await page.route(/thumbnail$/, async (route) => {
      if (held) held.push(route);
      else await route.continue();
    });
    const { id } = await drawn(page, "not seen yet");
    const card = page.getByRole("button", { name: /^not seen yet, / });
    await card.waitFor();
    await fetch(`${studio.url}/api/pictures/${id}`, { method: "DELETE" });
    const asked = held;
    held = undefined;
    for (const route of asked) await route.continue();
    await expect.poll(() => card.count()).toBe(0);
    expect(await page.locator(".notice.bad").count()).toBe(0);
  });

  it("are drawn over: one of the gallery, and a file", async () => {
    const page = await open();
    const { png, id } = await drawn(page, "below");
    await page.locator(`[data-id="${id}"] .open`).click();
    await page.getByRole("button", { name: "Draw over it" }).click();
    await drawn(page, "above");
    await page.getByRole("button", { name: "Draw over nothing" }).click();
    await page.getByLabel("Picture to draw over").setInputFiles({ name: "a.png", mimeType: "image/png", buffer: png });
    await number(page, "Strength").fill("0.4");
    const { id: last } = await drawn(page, "over a file");
    const settings = await api<{ strength: number; image: unknown }>(`/api/pictures/${last}/settings`);
    expect(settings.strength).toBe(0.4);
    expect(settings.image).toBeDefined();
  });

  it("are compared, deleted, and brought back", async () => {
    const page = await open();
    await drawn(page, "left");
    await drawn(page, "right");
    for (const place of [0, 1]) {
      await page.locator(".card").nth(place).hover();
      await page.locator(".card").nth(place).getByRole("button", { name: "Choose, to compare or for a sheet" }).click();
    }
    await page.getByRole("button", { name: "Compare two" }).click();
    await page.getByRole("rowheader", { name: "Prompt" }).waitFor();
    expect(await page.getByRole("rowheader", { name: "Steps" }).count()).toBe(0); // the same in both
    await page.keyboard.press("Escape");
    await page.locator(".card").first().hover();
    const [saved] = await Promise.all([
      page.waitForEvent("download"),
      page.locator(".card").first().getByRole("button", { name: "Download" }).click(),
    ]);
    expect(saved.suggestedFilename()).toMatch(/^right-seed\d+\.png$/);
    expect((await sharp(await saved.path()).metadata()).width).toBe(16);
    const [sheet] = await Promise.all([
      page.waitForEvent("download"),
      page.getByRole("button", { name: "Download the 2 chosen pictures as one sheet" }).click(),
    ]);
    const { width, height } = await sharp(await sheet.path()).metadata();
    expect([width, height]).toEqual([16 + 4 + 16, 16]);
    await page.getByRole("button", { name: "Choose none" }).click();
    const card = page.locator(".card", { has: page.getByRole("button", { name: /^right, / }) }).first();
    await card.hover();
    await card.getByRole("button", { name: "Delete" }).click();
    await expect.poll(() => page.getByRole("button", { name: /^right, / }).count()).toBe(0);
    await page.getByRole("button", { name: "Undo" }).click();
    await page.getByRole("button", { name: /^right, / }).waitFor();
    expect((await api<{ pictures: unknown[] }>("/api/pictures?q=right")).pictures.length).toBe(1);
    // Of several that were deleted one after the other each comes back, the last one first.
    const places = () => page.locator(".card .open").evaluateAll((all) => all.map((one) => one.ariaLabel));
    const before = await places();
    await page.locator(".card .open").first().focus();
    for (const said of ["The picture is", "2 pictures are", "3 pictures are"]) {
      await page.keyboard.press("Delete");
      await page.getByText(`${said} in the trash.`).waitFor();
    }
    await page.getByRole("button", { name: "Undo" }).press("Enter");
    for (const said of ["2 pictures are", "The picture is"]) {
      await page.getByText(`${said} in the trash.`).waitFor();
      await page.keyboard.press("Enter"); // the focus has stayed
    }
    await expect.poll(places).toEqual(before);
  });

  it.each([undefined, "a-key-of-tests"])(
    "that a lost connection kept back come when it is back, key %s",
    async (key) => {
      const of = key === undefined ? studio : await serve(model, { key });
      try {
        const page = await open({}, { of, ready: key === undefined });
        if (key !== undefined) {
          await page.getByLabel("Key", { exact: true }).fill(key);
          await page.keyboard.press("Enter");
        }
        await draw(page, { prompt: "kept back" });
        await page.getByRole("article", { name: "Job: kept back" }).getByText(/^Done/).waitFor();
        await page.context().setOffline(true);
        await page.locator(".job-tile button").first().click();
        const large = page.locator("dialog.viewer");
        await page.getByText("The connection is lost").waitFor({ state: "attached" });
        expect(await large.locator("dd").count()).toBe(0);
        await page.context().setOffline(false);
        await large.locator("dd").first().waitFor();
        const width = "document.querySelector('.viewer-picture img')?.naturalWidth";
        await expect.poll(() => page.evaluate(width)).toBeGreaterThan(0);
      } finally {
        if (of !== studio) await of.end();
      }
    },
  );

  it("that are gone or damaged are no lost connection", async () => {
    const output = folder();
    const of = await serve(model, { output });
    try {
      const page = await open({}, { of, clock: true });
      const body = JSON.stringify({ prompt: "soon gone", imagesPerPrompt: 2, steps: 1 });
      const headers = { "content-type": "application/json" };
      await fetch(`${of.url}/api/jobs`, { method: "POST", headers, body });
      await expect.poll(() => pictureCount(of)).toBe(2);
      const day = join(output, readdirSync(output).find((name) => !name.startsWith("."))!);
      const [gone, damaged] = readdirSync(day).map((name) => join(day, name));
      rmSync(gone!);
      writeFileSync(damaged!, "no picture");
      const { pictures } = await api<{ pictures: { id: string }[] }>("/api/pictures", of);
      const asked: string[] = [];
      page.on("request", (one) => asked.push(new URL(one.url()).pathname));
      await page.reload();
      const thumbnails = pictures.map(({ id }) => `/api/pictures/${id}/thumbnail`);
      for (const one of thumbnails) await expect.poll(() => asked.filter((path) => path === one).length).toBe(2);
      await page.clock.runFor(2000); // Somebody who was lost would have been asked for by then.
      expect(asked).not.toContain("/health");
      expect(await page.getByText("The connection is lost").count()).toBe(0);
    } finally {
      await of.end();
    }
  });

  it("shown large stay so while their texts are marked", async () => {
    const page = await open();
    const { id } = await drawn(page, "marked");
    await page.locator(`[data-id="${id}"] .open`).click();
    const dialog = page.locator("dialog.viewer");
    const [box, text] = await Promise.all([dialog.boundingBox(), page.locator(".viewer-prompt").boundingBox()]);
    await page.mouse.move(text!.x + 2, text!.y + 5);
    await page.mouse.down();
    await page.mouse.move(box!.x + box!.width + 8, text!.y + 8, { steps: 4 });
    await page.mouse.up();
    expect(await dialog.count()).toBe(1);
    await page.mouse.click(box!.x + box!.width + 8, text!.y + 8);
    await expect.poll(() => dialog.count()).toBe(0);
  });

  it("fill a gallery of 2,000 of which only those in sight are there", async () => {
    const output = folder();
    const { png } = await drawn(await open(), "many");
    mkdirSync(join(output, "many"));
    const first = join(output, "many", "0.png");
    writeFileSync(first, png);
    for (let i = 1; i < 2000; i++) copyFileSync(first, join(output, "many", `${i}.png`));
    const full = await serve(model, { output });
    try {
      await expect.poll(() => pictureCount(full)).toBe(2000);
      const page = await open({}, { of: full });
      await page.locator(".card .open").first().focus();
      let loaded = 0;
      for (let turn = 0; turn < 40 && loaded < 1999; turn++) {
        const seen = loaded;
        await expect
          .poll(async () => {
            await page.keyboard.press("End");
            loaded = await focusedPlace(page);
            return loaded;
          })
          .toBeGreaterThan(seen);
      }
      expect(loaded).toBe(1999);
      // A connection that was lost for a while leads nobody back to the beginning.
      await page.context().setOffline(true);
      await generate(page);
      await page.getByRole("alert").getByText("The studio does not answer.").waitFor();
      await page.locator(".card .open").last().focus();
      await page.context().setOffline(false);
      await expect.poll(() => page.getByText("The connection is lost").count()).toBe(0);
      await expect.poll(() => page.getByRole("alert").count()).toBe(0);
      await page.keyboard.press("End");
      expect(await focusedPlace(page)).toBe(1999);
      expect(await page.locator(".card").count()).toBeLessThan(120);
    } finally {
      await full.end();
    }
  });
});

describe("masks", () => {
  const canvas = (page: Page) => page.getByLabel(/^Mask\. Arrow keys/);
  /** The share of the picture that is to be drawn anew. */
  const share = (page: Page) =>
    page.evaluate(`{
      const canvas = document.querySelector(".mask-editor canvas");
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      let opaque = 0;
      for (let i = 3; i < data.length; i += 4) opaque += data[i];
      opaque / 255 / (data.length / 4);
    }`) as Promise<number>;
  /** Opens the editor for a grey picture. */
  async function paintable(options: BrowserContextOptions = {}): Promise<Page> {
    const page = await open(options);
    await page.getByLabel("Picture to draw over").setInputFiles({ ...GREY, buffer: await grey() });
    await page.getByRole("button", { name: "Paint a mask …" }).click();
    await canvas(page).waitFor();
    return page;
  }
  const GREY = { name: "grey.png", mimeType: "image/png" };
  const grey = () =>
    sharp({ create: { width: 64, height: 64, channels: 3, background: "#777" } })
      .png()
      .toBuffer();
  /** Paints a line from top to bottom. @param x share of the width */
  async function line(page: Page, x: number): Promise<void> {
    const { x: left, y: top, width, height } = (await canvas(page).boundingBox())!;
    await page.mouse.move(left + x * width, top + 2);
    await page.mouse.down();
    await page.mouse.move(left + x * width, top + height / 2, { steps: 4 });
    await page.mouse.move(left + x * width, top + height - 2);
    await page.mouse.up();
  }

  it("are painted, and only their places are drawn anew", async () => {
    const page = await paintable();
    await line(page, 0.2);
    await page.getByRole("button", { name: "Done" }).click();
    expect(await number(page, "Strength").inputValue()).toBe("1");
    await draw(page, { prompt: "painted" });
    await page.getByRole("article", { name: "Job: painted" }).getByText(/^Done/).waitFor();
    const { pictures } = await api<{ pictures: { id: string }[] }>("/api/pictures?q=painted");
    const png = Buffer.from(await (await fetch(`${studio.url}/api/pictures/${pictures[0]!.id}.png`)).arrayBuffer());
    const { data, info } = await sharp(png).raw().toBuffer({ resolveWithObject: true });
    const middle = (info.width * info.height) / 2;
    const changed = (x: number) => data[(middle + Math.floor(x * info.width)) * info.channels] !== 0x77;
    expect([0.2, 0.5, 0.9].map(changed)).toEqual([true, false, false]);
    await page.getByRole("button", { name: "Change the mask …" }).click();
    await canvas(page).waitFor();
    await expect.poll(() => share(page)).toBeGreaterThan(0.1);
  });

  it("are erased, undone, turned over and cleared", async () => {
    const page = await paintable();
    await line(page, 0.3);
    const painted = await share(page);
    expect(painted).toBeGreaterThan(0.1);
    await page.getByRole("button", { name: "Erase" }).click();
    await line(page, 0.3);
    expect(await share(page)).toBeLessThan(0.01);
    await page.getByRole("button", { name: "Undo" }).click();
    expect(await share(page)).toBeCloseTo(painted, 3);
    await page.getByRole("button", { name: "Invert" }).click();
    expect(await share(page)).toBeCloseTo(1 - painted, 3);
    await page.getByRole("button", { name: "Clear" }).click();
    expect(await share(page)).toBe(0);
    await canvas(page).focus();
    await page.keyboard.press("Control+z");
    expect(await share(page)).toBeCloseTo(1 - painted, 3);
  });

  it("are painted with the keyboard, and with a finger", async () => {
    const page = await paintable({ hasTouch: true });
    expect(await page.locator(":focus").getAttribute("aria-label")).toMatch(/^Mask\./);
    for (let i = 0; i < 4; i++) await page.keyboard.press("]");
    await page.keyboard.press("Shift+ArrowUp");
    expect(await share(page)).toBe(0);
    await page.keyboard.down(" ");
    await page.keyboard.press("ArrowRight");
    await page.keyboard.press("ArrowRight");
    await page.keyboard.up(" ");
    const typed = await share(page);
    expect(typed).toBeGreaterThan(0.02);
    await page.keyboard.press("ArrowDown"); // the brush is up
    expect(await share(page)).toBeCloseTo(typed, 5);
    const { x, y, width, height } = (await canvas(page).boundingBox())!;
    await page.touchscreen.tap(x + 0.2 * width, y + 0.8 * height);
    await expect.poll(() => share(page)).toBeGreaterThan(typed + 0.01);
    expect(await serious(page)).toEqual([]);
  });

  it("cannot be painted on what the browser cannot show, which is said", async () => {
    const page = await open();
    await page.getByLabel("Picture to draw over").setInputFiles({ ...GREY, buffer: (await grey()).subarray(0, 40) });
    await page.getByRole("button", { name: "Paint a mask …" }).click();
    await page.getByText("The browser cannot show that file").first().waitFor();
    await expect.poll(() => page.locator("dialog").count()).toBe(0);
  });

  it("come from files, chosen or dropped, of the picture's proportions", async () => {
    const page = await paintable();
    const half = await sharp(Buffer.from([255, 0]), { raw: { width: 2, height: 1, channels: 1 } })
      .resize(32, 32, { kernel: "nearest", fit: "fill" })
      .png()
      .toBuffer();
    await page.getByLabel("File of a mask").setInputFiles({ name: "half.png", mimeType: "image/png", buffer: half });
    await expect.poll(() => share(page)).toBeGreaterThan(0.45);
    expect(await share(page)).toBeLessThan(0.55);
    const wide = await sharp(half).resize(64, 16, { fit: "fill" }).png().toBuffer();
    await page.getByLabel("File of a mask").setInputFiles({ name: "wide.png", mimeType: "image/png", buffer: wide });
    await page.getByText("The mask has 64 × 16 pixels, the picture 64 × 64.").first().waitFor();
    await page.getByRole("button", { name: "Clear" }).click();
    await page.evaluate(`{
      const bytes = Uint8Array.from(atob("${half.toString("base64")}"), (c) => c.charCodeAt(0));
      const dataTransfer = new DataTransfer();
      dataTransfer.items.add(new File([bytes], "half.png", { type: "image/png" }));
      const drop = new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer });
      document.querySelector(".mask-stage").dispatchEvent(drop);
    }`);
    await expect.poll(() => share(page)).toBeGreaterThan(0.45);
    expect(await page.getByText("The settings of the picture are taken over.").count()).toBe(0);
  });
});

describe("several models", () => {
  it("draw the same prompt and seed side by side", async () => {
    const two = await serve(model, { others: [tinyModel("other")] });
    try {
      const page = await open({}, { of: two });
      await page.getByLabel("Prompt", { exact: true }).fill("side by side");
      await number(page, "Steps").fill("3");
      await number(page, "Images").fill("2");
      await page.getByRole("button", { name: "All models" }).click();
      const card = page.getByRole("article", { name: "Comparison: side by side" });
      await card.getByText("All 2 models have ended.").waitFor();
      expect(await card.locator("h3").allTextContents()).toEqual(["tiny", "other"]);
      for (const name of ["Model tiny", "Model other"])
        expect(await card.getByRole("region", { name }).getByRole("button").count()).toBe(2);
      const { pictures } = await api<{ pictures: { seed: number; model: string }[] }>("/api/pictures", two);
      // The pictures of a call end in any order.
      const seeds = (of: string) =>
        pictures
          .filter(({ model }) => model === of)
          .map(({ seed }) => seed)
          .sort();
      expect(seeds("tiny")).toHaveLength(2);
      expect(seeds("other")).toEqual(seeds("tiny"));
      expect(await serious(page)).toEqual([]);
      // A picture is drawn again by the model that drew it.
      const chosen = () => page.locator(".model option:checked").textContent();
      expect(await chosen()).toBe("tiny");
      await card.getByRole("region", { name: "Model other" }).getByRole("button").first().click();
      await page.getByRole("button", { name: "Use settings" }).click();
      await expect.poll(chosen).toBe("other");
      // Neither a long prompt nor what the models say of it widens a narrow page.
      await page.setViewportSize({ width: 360, height: 740 });
      const long = `${"Fuchsschwanzgrasblütenstaubwolke".repeat(3)} ${"and one more fox ".repeat(20)}`.trim();
      await page.getByLabel("Prompt", { exact: true }).fill(long);
      await page.getByRole("button", { name: "All models" }).click();
      const narrow = page.getByRole("article", { name: `Comparison: ${long}` });
      await narrow.getByText("All 2 models have ended.").waitFor();
      expect(await narrow.locator(".warning").count()).toBeGreaterThan(0);
      expect(await page.evaluate("document.documentElement.scrollWidth")).toBe(360);
      await narrow.getByRole("button", { name: "Put away" }).click();
      await page.setViewportSize({ width: 1280, height: 900 });
      await page.reload();
      await card.getByText("All 2 models have ended.").waitFor();
      await card.getByRole("button", { name: "Put away" }).click();
      await expect.poll(() => card.count()).toBe(0);
    } finally {
      await two.end();
    }
  });
});

it("models whose folders have one name are told apart, and a picture of one is taken over by it", async () => {
  const others = ["a", "b"].map((run) => {
    const export_ = join(folder(), run, "export");
    cpSync(model, export_, { recursive: true });
    return export_;
  });
  const two = await serve(others[0]!, { others: others.slice(1) });
  try {
    const page = await open({}, { of: two });
    const select = page.locator(".model select");
    expect(await select.locator("option").allTextContents()).toEqual(["a/export", "b/export"]);
    await select.selectOption({ label: "b/export" });
    await draw(page);
    await page.locator(".job.done").waitFor();
    await page.locator(".job-tile button").first().click();
    await page.getByRole("button", { name: "Use settings" }).click();
    expect(await select.inputValue()).toBe(others[1]);
  } finally {
    await two.end();
  }
});

it("jobs of several models say their places at once, behind what waits already", async () => {
  const two = await serve(model, { others: [tinyModel("other")] });
  try {
    const page = await open({}, { of: two });
    await draw(page, { prompt: "the first", steps: 90_000 });
    await draw(page, { prompt: "the second", steps: 2 });
    await page.getByText("Waits: 1 job before it.").waitFor();
    await page.getByLabel("Prompt", { exact: true }).fill("the last ones");
    await page.getByRole("button", { name: "All models" }).click();
    const last = page.getByRole("article", { name: "Comparison: the last ones" });
    await last.getByRole("region", { name: "Model other" }).waitFor();
    expect(await last.locator(".column .job-state").allTextContents()).toEqual([
      "Waits: 2 jobs before it.",
      "Waits: 3 jobs before it.",
    ]);
    const order = await page.locator(".jobs > article").evaluateAll((all) => all.map((one) => one.ariaLabel));
    expect(order).toEqual(["Job: the first", "Job: the second", "Comparison: the last ones"]);
  } finally {
    await two.end();
  }
});

describe("the page", () => {
  it("is asked for each time, and what it names is kept: after an update none is left with the old one", async () => {
    const page = await fetch(studio.url);
    expect(page.headers.get("cache-control")).toBe("no-cache");
    const assets = [...(await page.text()).matchAll(/"(\.\/assets\/[^"]+)"/g)].map(
      ([, path]) => new URL(path!, page.url).href,
    );
    expect(assets.length).toBe(2);
    for (const path of assets) {
      const asset = await fetch(path);
      expect(asset.headers.get("cache-control")).toBe("public, max-age=31536000, immutable");
      expect((await fetch(`${path}.gone`)).headers.get("cache-control") ?? "").not.toMatch(/max-age/);
    }
  });

  it("fits on 360 pixels", async () => {
    const page = await open({ viewport: { width: 360, height: 740 } });
    await draw(page, { prompt: "a narrow one", images: 4 });
    await page.locator(".job.done").waitFor();
    for (const view of ["Gallery", "Reward map"]) {
      await page.getByRole("link", { name: view }).click();
      expect(await page.evaluate("document.documentElement.scrollWidth")).toBe(360);
    }
    expect(await page.evaluate("document.querySelector('.generate').getBoundingClientRect().bottom")).toBeLessThan(740);
    // The keyboard comes to the job, which stands below the prompt, before the rewards.
    await page.getByRole("button", { name: /^Generate/ }).focus();
    const stops: (string | null)[] = [];
    for (let i = 0; i < 20; i++) {
      await page.keyboard.press("Tab");
      stops.push(await page.locator(":focus").getAttribute("aria-label"));
    }
    expect(stops).toContain("Show picture 1 large");
    expect(stops.indexOf("Show picture 1 large")).toBeLessThan(stops.findIndex((stop) => /target$/.test(stop ?? "")));
  });

  it("keeps every field in its panel on 320 pixels", async () => {
    const page = await open({ viewport: { width: 320, height: 640 } });
    await page.getByText("More settings").click();
    const outside = await page.evaluate(`
      [...document.querySelectorAll("main .panel :is(input:not(.hidden), select, textarea, button)")]
        .filter((one) => one.checkVisibility())
        .filter((one) => one.getBoundingClientRect().right > one.closest(".panel").getBoundingClientRect().right)
        .map((one) => one.outerHTML)
    `);
    expect(outside).toEqual([]);
  });

  it("has room for fingers", async () => {
    const page = await open({ viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true });
    await page.getByText("More settings").click();
    // What stands below pictures is in the large view too, and a box may be reached by its label.
    const small = await page.evaluate(`
      [...document.querySelectorAll("main :is(button, a, input:not(.hidden), select, summary, label.check)")]
        .filter((one) => !one.closest(".card-tools, .links") && one.type !== "checkbox")
        .map((one) => ({ of: one.outerHTML.slice(0, 100), side: one.getBoundingClientRect() }))
        .filter(({ side: { width, height } }) => width < 24 || height < 24)
        .map(({ of }) => of)`);
    expect(small).toEqual([]);
  });

  it("goes back and forth between its views as the browser does", async () => {
    const page = await open();
    await page.getByRole("link", { name: "Reward map" }).click();
    await page.locator("section.map").waitFor();
    await page.goBack();
    await page.locator("section.gallery").waitFor();
    await page.goForward();
    await page.locator("section.map").waitFor();
    await page.reload();
    await page.locator("section.map").waitFor();
  });

  it("of all routes fits on 360 pixels as well", async () => {
    const page = await open(
      { viewport: { width: 360, height: 740 } },
      { of: { ...studio, url: `${studio.url}/docs` }, ready: false },
    );
    await page.getByRole("heading", { name: "POST /api/jobs", exact: true }).waitFor();
    expect(await page.evaluate("document.documentElement.scrollWidth")).toBe(360);
    expect(await serious(page)).toEqual([]);
  });

  it("is used with the keyboard alone", async () => {
    const page = await open();
    await page.keyboard.press("Tab");
    expect(await page.locator(":focus").textContent()).toBe("To the prompt");
    await page.keyboard.press("Enter");
    await expect.poll(() => page.evaluate("location.hash")).toBe("#prompt");
    await page.getByLabel("Prompt", { exact: true }).focus();
    await page.keyboard.press("Control+A");
    await page.keyboard.type("typed");
    await number(page, "Steps").focus();
    await page.keyboard.press("Control+A");
    await page.keyboard.type("3");
    await page.getByLabel("Prompt", { exact: true }).focus();
    await page.keyboard.press("Control+Enter");
    await page
      .getByRole("button", { name: /^typed, / })
      .first()
      .waitFor();
    // One stop in the gallery; arrows lead on from there.
    const focused = () => page.locator(":focus").getAttribute("aria-label");
    for (let i = 0; i < 80 && !/show large$/.test((await focused()) ?? ""); i++) await page.keyboard.press("Tab");
    const first = await focused();
    expect(first).toMatch(/: show large$/);
    await page.keyboard.press("ArrowRight");
    await expect.poll(() => focusedPlace(page)).toBe(1);
    await page.keyboard.press("ArrowLeft");
    await page.keyboard.press("Enter");
    const large = page.locator("dialog.viewer");
    await large.waitFor();
    const before = await large.getAttribute("aria-label");
    await page.keyboard.press("F");
    await expect.poll(() => page.evaluate("document.fullscreenElement?.className")).toBe("viewer-picture");
    await page.keyboard.press("F");
    await expect.poll(() => page.evaluate("document.fullscreenElement")).toBe(null);
    // The browser's own keys stay its own: search, and the way back.
    for (const key of ["Control+f", "Alt+ArrowRight", "Control+Delete"]) await page.keyboard.press(key);
    expect([await large.getAttribute("aria-label"), await page.getByLabel("Favourite").first().ariaSnapshot()]).toEqual(
      [before, '- button "Favourite"'],
    );
    await page.keyboard.press("ArrowRight");
    await expect.poll(() => large.locator("img").count()).toBe(1);
    await page.keyboard.press("ArrowLeft");
    expect(await large.getAttribute("aria-label")).toBe(before);
    await page.keyboard.press("Escape");
    await expect.poll(() => large.count()).toBe(0);
    expect(await focused()).toBe(first);
  });

  it.each(["light", "dark"] as const)("has no serious faults that axe knows, %s", async (colorScheme) => {
    const page = await open({ colorScheme });
    await draw(page, { images: 2 });
    await page.locator(".job.done").waitFor();
    await page.getByText("More settings").click();
    await page.getByText("Examples").click();
    expect(await serious(page)).toEqual([]);
    await page.getByRole("link", { name: "Reward map" }).click();
    expect(await serious(page)).toEqual([]);
    await page.locator(".job-tile button").first().click();
    await page.locator("dialog.viewer dd").first().waitFor();
    expect(await serious(page)).toEqual([]);
  });

  it("asks for the key once, and shows pictures with it", async () => {
    const locked = await serve(model, { key: "a-key-of-tests" });
    try {
      const page = await open({}, { of: locked, ready: false });
      const dialog = page.getByRole("dialog", { name: "Key of the studio" });
      await dialog.waitFor();
      expect(await page.getByText("This model has no rewards.").count()).toBe(0);
      for (let i = 0; i < 3; i++) await page.keyboard.press("Escape");
      expect(await dialog.isVisible()).toBe(true);
      for (const wrong of ["not-the-key", "ключ ключ"]) {
        await page.getByLabel("Key", { exact: true }).fill(wrong);
        await page.keyboard.press("Enter");
        await page.getByText("That is not the key.").waitFor();
        await expect.poll(() => page.getByLabel("Key", { exact: true }).inputValue()).toBe("");
      }
      await page.getByLabel("Key", { exact: true }).fill("a-key-of-tests");
      await page.keyboard.press("Enter");
      await page.locator(".reward").first().waitFor();
      await draw(page);
      await page.locator(".card img").first().waitFor();
      await expect.poll(() => page.evaluate("document.querySelector('.card img').naturalWidth")).toBeGreaterThan(0);
      await page.reload();
      await page.locator(".reward").first().waitFor();
      expect(await page.locator("dialog").count()).toBe(0);
    } finally {
      await locked.end();
    }
  });

  it("shows a lost connection, and goes on when the server is back", async () => {
    const output = folder();
    const first = await serve(model, { output });
    const page = await open({ viewport: { width: 360, height: 740 } }, { of: first });
    await draw(page, { prompt: "interrupted", steps: 90_000 });
    await page.getByText(/^Step \d+ of 90000/).waitFor();
    await first.end("SIGKILL");
    const lost = page.getByText("The connection is lost");
    await lost.waitFor();
    const [said, head] = await Promise.all([lost.boundingBox(), page.locator("header.top").boundingBox()]);
    expect([said!.x, said!.width]).toEqual([0, 360]);
    expect(Math.abs(said!.y - head!.height)).toBeLessThan(2);
    const again = await serve(model, { output, port: Number(new URL(first.url).port) });
    try {
      await expect.poll(() => page.getByText("The connection is lost").count()).toBe(0);
      await page.getByText(/lost when the server ended/).waitFor();
      await draw(page, { prompt: "after it" });
      await page.getByRole("article", { name: "Job: after it" }).getByText(/^Done/).waitFor();
    } finally {
      await again.end();
    }
  });

  it("weighs less than 150 kB of compressed script", async () => {
    const { gzipSync } = await import("node:zlib");
    const assets = new URL("../../packages/miro/web/assets/", import.meta.url);
    const scripts = readdirSync(assets).filter((file) => file.endsWith(".js"));
    const bytes = scripts.reduce((sum, file) => sum + gzipSync(readFileSync(new URL(file, assets))).length, 0);
    expect(bytes).toBeGreaterThan(1000);
    expect(bytes).toBeLessThan(150_000);
  });
});

/** The place in the gallery of the picture that has the focus; NaN where none has. */
async function focusedPlace(page: Page): Promise<number> {
  return Number((await page.evaluate("document.activeElement.parentElement?.dataset.place")) ?? Number.NaN);
}

/** How many pictures the index of a studio knows. */
async function pictureCount(of: Serving): Promise<number> {
  let count = 0;
  for (let cursor: string | null = ""; cursor !== null; ) {
    const query: string = cursor === "" ? "" : `&cursor=${cursor}`;
    const page: { pictures: unknown[]; next: string | null } = await api(`/api/pictures?limit=500${query}`, of);
    count += page.pictures.length;
    cursor = page.next;
  }
  return count;
}

/** What axe calls serious or critical, as `rule: element`. */
async function serious(page: Page): Promise<string[]> {
  await page.evaluate(readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8"));
  const { violations } = (await page.evaluate("axe.run()")) as {
    violations: { id: string; impact: string; nodes: { html: string; failureSummary: string }[] }[];
  };
  return violations
    .filter(({ impact }) => impact === "serious" || impact === "critical")
    .flatMap(({ id, nodes }) => nodes.map(({ html, failureSummary }) => `${id}: ${html} ${failureSummary}`));
}

describe("behind a proxy, below a path of its own", () => {
  /** Passes requests on while it is not told that nobody is there. */
  async function proxyTo(of: Serving) {
    let away: number | null = null;
    const server = createServer((asked, answer) => {
      const path = /^\/user\/me\/proxy(\/.*)$/.exec(asked.url!)?.[1];
      if (away !== null || path === undefined) {
        answer.writeHead(away ?? 404, { "content-type": "text/html" }).end("<h1>Nobody is there</h1>");
        return;
      }
      const { hostname, port } = new URL(of.url);
      const passed = request({ hostname, port, path, method: asked.method, headers: asked.headers }, (told) => {
        answer.writeHead(told.statusCode!, told.headers);
        told.pipe(answer);
      });
      passed.on("error", () => answer.destroy());
      answer.on("close", () => passed.destroy());
      asked.pipe(passed);
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/user/me/proxy/`;
    return {
      url,
      /** Cuts what is under way, and answers as proxies do whose server is gone; null: passes on again. */
      setAway(status: number | null) {
        away = status;
        if (away !== null) server.closeAllConnections();
      },
      end: () => {
        server.closeAllConnections();
        server.close();
      },
    };
  }

  it("draws, shows, and leads to its routes", async () => {
    const proxy = await proxyTo(studio);
    try {
      const page = await open({}, { of: { ...studio, url: proxy.url } });
      await draw(page, { prompt: "through a proxy" });
      const card = page.getByRole("button", { name: /^through a proxy, / });
      await expect.poll(() => page.evaluate("document.querySelector('.card img')?.naturalWidth")).toBeGreaterThan(0);
      await card.first().click();
      await page.locator("dialog.viewer dd").first().waitFor();
      await page.keyboard.press("Escape");
      const linked = async (name: string) => {
        const address = await page.getByRole("link", { name }).getAttribute("href");
        return new URL(address!, page.url()).href;
      };
      await page.goto(await linked("HTTP API"));
      await page.getByRole("heading", { name: "POST /api/jobs", exact: true }).waitFor();
      expect(await page.evaluate("getComputedStyle(document.querySelector('table')).borderCollapse")).toBe("collapse");
      expect(await linked("openapi.json")).toBe(`${proxy.url}openapi.json`);
    } finally {
      proxy.end();
    }
  });

  it.each([502, 404])(
    "takes a proxy that finds nobody, %i, for a lost connection, and loses no job",
    async (status) => {
      const proxy = await proxyTo(studio);
      try {
        const page = await open({}, { of: { ...studio, url: proxy.url } });
        await draw(page, { prompt: "not lost", steps: 90_000 });
        const job = page.getByRole("article", { name: "Job: not lost" });
        await job.getByText(/^Step \d+ of 90000/).waitFor();
        proxy.setAway(status);
        await page.getByText("The connection is lost").waitFor();
        await generate(page);
        await page.getByText("The studio does not answer.").waitFor();
        proxy.setAway(null);
        await expect.poll(() => page.getByText("The connection is lost").count()).toBe(0);
        const before = await job.getByText(/^Step/).textContent();
        await expect.poll(() => job.getByText(/^Step/).textContent()).not.toBe(before);
      } finally {
        proxy.end();
      }
    },
  );
});

describe("in a frame of another site's page, as a Space at the Hub", () => {
  it("draws, also where the browser keeps nothing for it", async () => {
    let framed: Serving | null = null;
    const hub = createServer((_, response) => {
      response.setHeader("content-type", "text/html");
      response.end(`<title>Hub</title><iframe src="${framed!.url}" width="1200" height="800"></iframe>`);
    });
    // Another site than the studio's 127.0.0.1.
    await new Promise<void>((resolve) => hub.listen(0, "localhost", resolve));
    const origin = `http://localhost:${(hub.address() as AddressInfo).port}`;
    try {
      framed = await serve(model, { frame: origin });
      const page = await open({}, { of: { ...framed, url: origin }, ready: false });
      const inside = page.frameLocator("iframe");
      await inside.locator(".reward").first().waitFor();
      await inside.getByLabel("Prompt", { exact: true }).fill("a cat in a frame");
      await inside.getByRole("button", { name: /^Generate/ }).click();
      await inside
        .getByRole("button", { name: /^a cat in a frame, seed \d+: show large$/ })
        .first()
        .waitFor();
    } finally {
      hub.close();
      await framed?.end();
    }
  });
});
