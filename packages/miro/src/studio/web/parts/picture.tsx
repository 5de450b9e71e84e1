/** A picture of the studio. Where a key is wanted the browser cannot load it by itself, and it is fetched. */
import { useEffect, useState } from "preact/hooks";
import { ask, key, returns } from "../state/api.js";

/** Another number each time that what was missed should be asked for again: when the connection is back. */
function useTurn(): [turn: number, miss: () => void] {
  const [missed, setMissed] = useState(false);
  return [missed ? returns.value : 0, () => setMissed(true)];
}

/** The address under which an image of the studio can be shown; null until it is there. */
export function useSource(url: string, onMissed?: () => void): string | null {
  // What the page itself has made needs no key.
  const wanted = key.value !== null && !url.startsWith("blob:");
  const [made, setMade] = useState<{ url: string; blob: string } | null>(null);
  const [turn, miss] = useTurn();
  useEffect(() => {
    if (!wanted) return;
    let blob: string | null = null;
    let gone = false;
    void ask(url)
      .then((answer) => answer.blob())
      .then((bytes) => {
        if (gone) return;
        blob = URL.createObjectURL(bytes);
        setMade({ url, blob });
      })
      .catch(() => {
        // The alternative text stands in its place.
        miss();
        onMissed?.();
      });
    return () => {
      gone = true;
      if (blob !== null) URL.revokeObjectURL(blob);
    };
  }, [url, wanted, turn]);
  if (!wanted) return url;
  return made?.url === url ? made.blob : null;
}

interface PictureProps {
  url: string;
  alt: string;
  class?: string;
  /** What is seen until the picture is there. */
  preview?: string | null;
  /** Called when it cannot be shown, for whatever reason. */
  onMissed?: () => void;
}

export function Picture({ url, alt, class: name = "", preview = null, onMissed }: PictureProps) {
  const source = useSource(url, onMissed);
  const [turn, miss] = useTurn();
  const style = preview === null ? {} : { background: `url("${preview}") center / cover` };
  return source === null ? (
    <span class={`waiting ${name}`} role="img" aria-label={alt} style={style} />
  ) : (
    <img
      key={turn}
      class={name}
      src={source}
      alt={alt}
      style={style}
      decoding="async"
      draggable={false}
      onError={() => {
        miss();
        // The browser does not say why: whether the studio is there turns out by asking, and by what it says.
        if (!url.startsWith("blob:")) void ask(url).catch(() => onMissed?.());
      }}
    />
  );
}

/** Saves a file of the studio, with its settings inside, under the name that it comes with. */
export async function download(url: string): Promise<void> {
  const answer = await ask(url);
  const name = /filename\*=UTF-8''([^;]+)/.exec(answer.headers.get("content-disposition") ?? "")?.[1];
  saveBlob(await answer.blob(), name === undefined ? "picture.png" : decodeURIComponent(name));
}

export function saveBlob(blob: Blob, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** One picture of several: two side by side, three and four in two rows, more in as square a grid as can be. */
export async function composeSheet(urls: readonly string[]): Promise<Blob> {
  const gap = 4;
  const bitmaps = await Promise.all(urls.map(async (url) => createImageBitmap(await (await ask(url)).blob())));
  const columns = Math.ceil(Math.sqrt(bitmaps.length));
  const rows = Math.ceil(bitmaps.length / columns);
  const [width, height] = [Math.max(...bitmaps.map((b) => b.width)), Math.max(...bitmaps.map((b) => b.height))];
  const canvas = document.createElement("canvas");
  canvas.width = columns * width + (columns - 1) * gap;
  canvas.height = rows * height + (rows - 1) * gap;
  const context = canvas.getContext("2d")!;
  context.fillStyle = "rgb(245, 245, 245)";
  context.fillRect(0, 0, canvas.width, canvas.height);
  for (const [i, bitmap] of bitmaps.entries()) {
    context.drawImage(bitmap, (i % columns) * (width + gap), Math.floor(i / columns) * (height + gap));
    bitmap.close();
  }
  return new Promise((resolve, reject) =>
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("The sheet could not be made."))), "image/png"),
  );
}
