import { expect, it } from "vitest";
import { readPng } from "../pictures/png.js";
import { sharp } from "../pictures/sharp.js";
import { protocolOf, terminalPicture } from "./terminal-picture.js";

/** A picture of few colours, with a height that is no multiple of six. */
const COLOURS = [
  [255, 0, 0],
  [0, 255, 0],
  [0, 0, 255],
  [255, 255, 255],
  [0, 0, 0],
] as const;
const [width, height] = [23, 17];
const data = new Uint8Array(
  Array.from({ length: width * height }, (_, i) => COLOURS[(i * i + (i >> 3)) % COLOURS.length]!).flat(),
);
const image = { width, height, data };

/** A text with letters for what a terminal obeys. */
const visible = (text: string) => text.replaceAll("\x1b", "<ESC>").replaceAll("\x07", "<BEL>");

/** Draws sixels as a terminal does. */
function drawSixels(text: string): { width: number; height: number; data: Uint8Array } {
  const [, size, body] = /^<ESC>P0;1q"1;1;(\d+;\d+)([^<]*)<ESC>\\\n$/.exec(visible(text))!;
  const [width, height] = size!.split(";").map(Number) as [number, number];
  const drawn = new Uint8Array(width * height * 3);
  const palette: number[][] = [];
  let [colour, x, top] = [0, 0, 0];
  for (const [token] of body!.matchAll(/#\d+(?:;2;\d+;\d+;\d+)?|!\d+[?-~]|[?-~]|[$-]/g)) {
    if (token.startsWith("#")) {
      const [number, , ...rgb] = token.slice(1).split(";").map(Number);
      colour = number!;
      if (rgb.length > 0) palette[colour] = rgb.map((value) => Math.round((value * 255) / 100));
    } else if (token === "$") x = 0;
    else if (token === "-") [x, top] = [0, top + 6];
    else {
      const bits = token.charCodeAt(token.length - 1) - 63;
      for (let count = token.startsWith("!") ? Number.parseInt(token.slice(1), 10) : 1; count > 0; count--, x++)
        for (let y = 0; y < 6; y++) if (bits & (1 << y)) drawn.set(palette[colour]!, ((top + y) * width + x) * 3);
    }
  }
  return { width, height, data: drawn };
}

it("as sixels is what a terminal draws of them", async () => {
  expect(drawSixels(await terminalPicture(image, "sixel"))).toEqual(image);
});

it("of many colours is near as sixels", async () => {
  const gradient = Uint8Array.from({ length: 64 * 64 * 3 }, (_, i) => ((i / 3) % 64) * 4 * ((i % 3) + 1) * 0.33);
  const drawn = drawSixels(await terminalPicture({ width: 64, height: 64, data: gradient }, "sixel"));
  const distance = drawn.data.reduce((sum, value, i) => sum + Math.abs(value - gradient[i]!), 0) / gradient.length;
  expect(distance).toBeLessThan(8);
});

it("in kitty's protocol is a PNG in parts of at most 4096 bytes, the last of which says so", async () => {
  const noise = Uint8Array.from({ length: 64 * 64 * 3 }, (_, i) => Math.sin(i * i) * 128 + 128);
  const text = await terminalPicture({ width: 64, height: 64, data: noise }, "kitty");
  const parts = [...visible(text).matchAll(/<ESC>_G([^;]*);([^<]*)<ESC>\\/g)];
  expect(parts.length).toBeGreaterThan(1);
  expect(parts.map(([, keys]) => keys)).toEqual(
    parts.map((_, i) => `${i === 0 ? "a=T,f=100,q=2," : ""}m=${i < parts.length - 1 ? 1 : 0}`),
  );
  for (const [, , part] of parts) expect(part!.length).toBeLessThanOrEqual(4096);
  const png = Buffer.from(parts.map(([, , part]) => part).join(""), "base64");
  expect(new Uint8Array(await sharp(png).raw().toBuffer())).toEqual(noise);
});

it("for iTerm2 is an inline PNG with its size", async () => {
  const [, size, base64] = /^<ESC>\]1337;File=inline=1;size=(\d+);width=23px;height=17px:([^<]+)<BEL>\n$/.exec(
    visible(await terminalPicture(image, "iterm")),
  )!;
  const png = Buffer.from(base64!, "base64");
  expect(png.length).toBe(Number(size));
  expect(readPng(png, "picture")).toMatchObject({ width, height });
});

it.each([
  [{ TERM: "xterm-kitty" }, "kitty"],
  [{ TERM: "xterm-256color", KITTY_WINDOW_ID: "1" }, "kitty"],
  [{ TERM_PROGRAM: "ghostty" }, "kitty"],
  [{ TERM_PROGRAM: "iTerm.app" }, "iterm"],
  [{ LC_TERMINAL: "iTerm2", TERM: "xterm" }, "iterm"],
  [{ TERM_PROGRAM: "WezTerm" }, "iterm"],
  [{ TERM: "foot" }, "sixel"],
  [{ TERM: "xterm-sixel" }, "sixel"],
  [{ KONSOLE_VERSION: "230800" }, "sixel"],
  [{ KONSOLE_VERSION: "210400" }, null],
  [{ TERM: "tmux-256color", KITTY_WINDOW_ID: "1" }, null],
  [{ TERM: "xterm-256color" }, null],
  [{}, null],
])("%o shows by %s", (env, protocol) => {
  expect(protocolOf(env)).toBe(protocol);
});
