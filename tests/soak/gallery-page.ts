/**
 * The page of a studio with thousands of pictures, in Chromium: its first paint, and its frames while it is scrolled.
 */
import { existsSync } from "node:fs";
import { chromium } from "playwright-core";

const CHROMIUM = process.env.MIRO_CHROMIUM ?? "/usr/bin/chromium";
/** Pixels of one turn of the wheel, and how often the place is looked at that it has led to. */
const WHEEL = 2400;
const TURN_MS = 30;

/** What was measured of the page. */
export interface GalleryFigures {
  pictures: number;
  /** From the request of the page until the first small picture is there. */
  firstPictureMs: number;
  /** Between frames while all pictures are scrolled through. */
  frameMs: { p50: number; p95: number; max: number };
  scrolledSeconds: number;
  /** Most pictures that were in the document at once. */
  mostInDocument: number;
}

/** @returns null where there is no Chromium */
export async function measureGallery(url: string, pictures: number): Promise<GalleryFigures | null> {
  if (!existsSync(CHROMIUM)) {
    console.log(`left out: the page; there is no Chromium at ${CHROMIUM}`);
    return null;
  }
  const browser = await chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox"] });
  try {
    const page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
    page.setDefaultTimeout(120_000);
    const began = performance.now();
    await page.goto(url);
    // The page's own policy forbids what `waitForFunction` does with a text.
    while (!(await page.evaluate("document.querySelector('.card img')?.naturalWidth > 0")))
      await page.waitForTimeout(5);
    const firstPictureMs = performance.now() - began;
    await page.evaluate(`{
      const seen = (window.seen = { frames: [], most: 0, last: 0 });
      let before = performance.now();
      const look = (now) => {
        seen.frames.push(now - before);
        before = now;
        const cards = document.querySelectorAll(".card");
        seen.most = Math.max(seen.most, cards.length);
        for (const { dataset } of cards) seen.last = Math.max(seen.last, Number(dataset.place));
        requestAnimationFrame(look);
      };
      requestAnimationFrame(look);
    }`);
    await page.mouse.move(900, 600);
    const scrolling = performance.now();
    for (;;) {
      await page.mouse.wheel(0, WHEEL);
      await page.waitForTimeout(TURN_MS);
      if (((await page.evaluate("window.seen.last")) as number) >= pictures - 1) break;
      if (performance.now() - scrolling > 600_000) throw new Error("the end of the gallery was not reached");
    }
    const scrolledSeconds = (performance.now() - scrolling) / 1000;
    const { frames, most } = (await page.evaluate("window.seen")) as { frames: number[]; most: number };
    frames.sort((a, b) => a - b);
    const at = (share: number) => Math.round(frames[Math.min(frames.length - 1, Math.floor(share * frames.length))]!);
    return {
      pictures,
      firstPictureMs: Math.round(firstPictureMs),
      scrolledSeconds,
      mostInDocument: most,
      frameMs: { p50: at(0.5), p95: at(0.95), max: Math.round(frames.at(-1)!) },
    };
  } finally {
    await browser.close();
  }
}
