/**
 * The mask of what is drawn over: the places that are drawn anew. It is kept as what was done, in the order in which it
 * was done, so that each can be undone and the mask has the picture's own size only when it is sent.
 */
import { signal } from "@preact/signals";
import { set, source } from "./form.js";

/** Of a canvas. */
type Pixel = [x: number, y: number];

/** A line of the brush. Lengths are in widths of the picture. */
export interface Stroke {
  kind: "stroke";
  erase: boolean;
  /** Diameter of the brush. */
  size: number;
  points: [number, number][];
}

/** What can be done to a mask. A file's picture is white, and opaque where things are drawn anew. */
export type MaskEdit = Stroke | { kind: "clear" } | { kind: "invert" } | { kind: "file"; picture: CanvasImageSource };

export const mask = signal<readonly MaskEdit[]>([]);
/** Width and height of the picture that the mask belongs to, once it was shown. */
export const maskSize = signal<[number, number] | null>(null);

/** Whether the mask says anything. */
export const isMasked = (edits: readonly MaskEdit[]) => edits.length > 0 && edits.at(-1)!.kind !== "clear";

export function addEdit(edit: MaskEdit): void {
  // What is cleared need not be kept but for an undo; a second clearing does nothing.
  if (edit.kind === "clear" && !isMasked(mask.value)) return;
  // With a mask the places are drawn anew altogether, unless something else is asked for.
  if (mask.value.length === 0) set({ strength: 1 });
  mask.value = [...mask.value, edit];
}

export function undo(): void {
  mask.value = mask.value.slice(0, -1);
}

/** A mask belongs to one picture. */
export function startMask(): void {
  source.subscribe(() => {
    mask.value = [];
    maskSize.value = null;
  });
}

/** Does one thing on a canvas that is opaque where things are drawn anew. */
export function paint(context: CanvasRenderingContext2D, edit: MaskEdit): void {
  const { width, height } = context.canvas;
  context.globalCompositeOperation = "source-over";
  if (edit.kind === "clear") context.clearRect(0, 0, width, height);
  else if (edit.kind === "file") {
    context.clearRect(0, 0, width, height);
    context.drawImage(edit.picture, 0, 0, width, height);
  } else if (edit.kind === "invert") {
    // Opaque where nothing was, and nothing where it was opaque.
    context.globalCompositeOperation = "source-out";
    context.fillStyle = "#fff";
    context.fillRect(0, 0, width, height);
  } else {
    context.globalCompositeOperation = edit.erase ? "destination-out" : "source-over";
    context.strokeStyle = context.fillStyle = "#fff";
    context.lineCap = context.lineJoin = "round";
    context.lineWidth = edit.size * width;
    const [[x, y], ...rest] = edit.points.map(([x, y]) => [x * width, y * width]) as [Pixel, ...Pixel[]];
    // The brush set down: a line of no length is nothing, whatever its ends, in browsers that follow the standard.
    context.beginPath();
    context.arc(x, y, context.lineWidth / 2, 0, 2 * Math.PI);
    context.fill();
    context.beginPath();
    context.moveTo(x, y);
    for (const [toX, toY] of rest) context.lineTo(toX, toY);
    context.stroke();
  }
}

/** Shows a mask on a canvas in one colour; nothing is shown where the picture stays. */
export function show(canvas: HTMLCanvasElement, edits: readonly MaskEdit[], colour: string): void {
  const context = canvas.getContext("2d")!;
  context.clearRect(0, 0, canvas.width, canvas.height);
  for (const edit of edits) paint(context, edit);
  context.globalCompositeOperation = "source-in";
  context.fillStyle = colour;
  context.fillRect(0, 0, canvas.width, canvas.height);
}

/** The mask as a file of the picture's size: white where things are drawn anew, black where the picture stays. */
export async function maskFile(): Promise<Blob | null> {
  if (!isMasked(mask.value) || maskSize.value === null) return null;
  const [width, height] = maskSize.value;
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  show(canvas, mask.value, "#fff");
  const context = canvas.getContext("2d")!;
  context.globalCompositeOperation = "destination-over";
  context.fillStyle = "#000";
  context.fillRect(0, 0, width, height);
  return new Promise((resolve, reject) =>
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("The mask could not be made."))), "image/png"),
  );
}

/** A mask from a file: white places are drawn anew. @throws Error with a sentence for what is no such picture */
export async function maskOfFile(file: Blob, width: number, height: number): Promise<MaskEdit> {
  const picture = await createImageBitmap(file).catch(() => {
    throw new Error("That file is no picture that the browser can read.");
  });
  // The same proportions, but for what rounding does.
  if (Math.abs(picture.width * height - picture.height * width) > Math.max(width, height, picture.width)) {
    const sizes = `The mask has ${picture.width} × ${picture.height} pixels, the picture ${width} × ${height}.`;
    picture.close();
    throw new Error(`${sizes} They need the same proportions.`);
  }
  const canvas = document.createElement("canvas");
  canvas.width = picture.width;
  canvas.height = picture.height;
  const context = canvas.getContext("2d")!;
  context.drawImage(picture, 0, 0);
  picture.close();
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  const { data } = pixels;
  for (let i = 0; i < data.length; i += 4) {
    const light = 0.299 * data[i]! + 0.587 * data[i + 1]! + 0.114 * data[i + 2]!;
    data[i + 3] = Math.round((light * data[i + 3]!) / 255);
    data[i] = data[i + 1] = data[i + 2] = 255;
  }
  context.putImageData(pixels, 0, 0);
  return { kind: "file", picture: canvas };
}
