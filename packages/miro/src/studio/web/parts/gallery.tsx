/** The gallery: only the rows that can be seen are there, so that ten thousand pictures scroll like ten. */
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { messageOf, type PictureEntry, pictureUrl, thumbnailUrl } from "../state/api.js";
import {
  choose,
  chosen,
  comparing,
  complete,
  galleryError,
  loading,
  missed,
  more,
  pictures,
  query,
  reload,
  remove,
  setFavourite,
  shown,
} from "../state/gallery.js";
import { tell } from "../state/notices.js";
import { Icon, IconButton } from "./icon.js";
import { isBrowsers } from "./keys.js";
import { composeSheet, download, Picture, saveBlob } from "./picture.js";

/** Rows that are there above and below what can be seen. */
const AROUND = 2;
const GAP = 10;

export function Gallery() {
  const { q, favourite } = query.value;
  const waiting = useRef<ReturnType<typeof setTimeout>>(undefined);
  const search = (changes: Partial<typeof query.value>, ms = 0) => {
    query.value = { ...query.value, ...changes };
    clearTimeout(waiting.current);
    waiting.current = setTimeout(() => void reload(), ms);
  };
  const nothing = pictures.value.length === 0 && complete.value === true;
  return (
    <section class="gallery" aria-labelledby="gallery-title">
      <header>
        <h2 id="gallery-title">Gallery</h2>
        <div class="search">
          <Icon name="search" />
          <input
            type="search"
            aria-label="Search the prompts"
            placeholder="Search"
            value={q}
            onInput={(event) => search({ q: event.currentTarget.value }, 200)}
          />
        </div>
        <button type="button" class="quiet" aria-pressed={favourite} onClick={() => search({ favourite: !favourite })}>
          <Icon name="heart" filled={favourite} /> Favourites
        </button>
        {chosen.value.length > 0 && <Chosen ids={chosen.value} />}
      </header>
      {galleryError.value && <p class="error">{galleryError.value}</p>}
      {nothing && (
        <p class="empty">
          {q.trim() !== "" || favourite ? "No picture is like that." : "Pictures that you draw come here."}
        </p>
      )}
      <Grid entries={pictures.value} />
      <p class="visually-hidden" aria-live="polite">
        {loading.value ? "Loads pictures" : ""}
      </p>
    </section>
  );
}

/** What can be done with the pictures that are chosen. */
function Chosen({ ids }: { ids: readonly string[] }) {
  const sheet = async () => saveBlob(await composeSheet(ids.map(pictureUrl)), "miro-sheet.png");
  return (
    <fieldset class="chosen-tools">
      <legend class="visually-hidden">Chosen pictures</legend>
      <button
        type="button"
        class="quiet strong"
        disabled={ids.length < 2}
        onClick={() => {
          comparing.value = true;
        }}
      >
        <Icon name="compare" /> {ids.length < 2 ? "Choose one more" : "Compare two"}
      </button>
      <IconButton
        icon="download"
        label={`Download the ${ids.length} chosen pictures as one sheet`}
        disabled={ids.length < 2}
        onClick={() => void sheet().catch((error) => tell(messageOf(error), { kind: "bad" }))}
      />
      <IconButton
        icon="close"
        label="Choose none"
        onClick={() => {
          chosen.value = [];
        }}
      />
    </fieldset>
  );
}

function Grid({ entries }: { entries: readonly PictureEntry[] }) {
  const box = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(0);
  const [range, setRange] = useState<[number, number]>([0, 6]);
  /** The picture that Tab leads to. */
  const [active, setActive] = useState(0);
  const wantsFocus = useRef(false);
  const least = width < 420 ? 104 : width < 1400 ? 150 : 190;
  const columns = Math.max(2, Math.floor((width + GAP) / (least + GAP)));
  const side = (width - GAP * (columns - 1)) / columns;
  const height = side + GAP;
  const rows = Math.ceil(entries.length / columns);

  useLayoutEffect(() => {
    const observer = new ResizeObserver(([entry]) => setWidth(entry!.contentRect.width));
    observer.observe(box.current!);
    return () => observer.disconnect();
  }, []);
  useEffect(() => {
    if (width === 0) return;
    let frame = 0;
    const look = () => {
      frame = 0;
      if (box.current === null) return; // the gallery has just gone
      const { top } = box.current.getBoundingClientRect();
      const first = Math.max(0, Math.floor(-top / height) - AROUND);
      const last = Math.ceil((window.innerHeight - top) / height) + AROUND;
      setRange(([a, b]) => (a === first && b === last ? [a, b] : [first, last]));
      if (last * columns > entries.length - columns * 12) void more();
    };
    const soon = () => {
      frame ||= requestAnimationFrame(look);
    };
    look();
    window.addEventListener("scroll", soon, { passive: true });
    window.addEventListener("resize", soon);
    return () => {
      cancelAnimationFrame(frame);
      window.removeEventListener("scroll", soon);
      window.removeEventListener("resize", soon);
    };
  }, [width, height, columns, entries.length]);
  useLayoutEffect(() => {
    if (!wantsFocus.current) return;
    const tile = box.current!.querySelector<HTMLElement>(`[data-place="${active}"] .open`);
    if (tile === null) return;
    wantsFocus.current = false;
    tile.focus({ preventScroll: true });
  });

  const go = (place: number) => {
    const to = Math.min(entries.length - 1, Math.max(0, place));
    wantsFocus.current = true;
    setActive(to);
    const { top } = box.current!.getBoundingClientRect();
    const y = top + Math.floor(to / columns) * height;
    if (y < 80) window.scrollBy({ top: y - 80 });
    else if (y + height > window.innerHeight - 20) window.scrollBy({ top: y + height - window.innerHeight + 20 });
  };
  const keys = (event: KeyboardEvent) => {
    if (isBrowsers(event)) return;
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
    const entry = entries[active];
    if (by !== undefined) go(active + by);
    else if (event.key === "Home") go(0);
    else if (event.key === "End") go(entries.length - 1);
    else if (event.key === "Delete" && entry) {
      void remove(entry);
      go(active);
    } else return;
    event.preventDefault();
  };
  const [from, to] = [Math.min(range[0], rows) * columns, Math.min(range[1], rows) * columns];
  const at = Math.min(active, Math.max(0, entries.length - 1));
  const places = Array.from({ length: Math.max(0, Math.min(to, entries.length) - from) }, (_, i) => from + i);
  // The picture that has the focus stays, wherever it is scrolled to.
  if (at < entries.length && !places.includes(at)) places.push(at);
  return (
    // biome-ignore lint/a11y/noStaticElementInteractions: the keys are those of the buttons inside
    <div ref={box} class="grid" style={{ height: `${Math.max(0, rows * height - GAP)}px` }} onKeyDown={keys}>
      {width > 0 &&
        places.map((place) => {
          const entry = entries[place]!;
          const [column, row] = [place % columns, Math.floor(place / columns)];
          return (
            <Card
              key={entry.id}
              entry={entry}
              place={place}
              side={side}
              isActive={place === at}
              x={column * (side + GAP)}
              y={row * height}
              onFocus={() => setActive(place)}
            />
          );
        })}
    </div>
  );
}

interface CardProps {
  entry: PictureEntry;
  place: number;
  side: number;
  x: number;
  y: number;
  isActive: boolean;
  onFocus: () => void;
}

function Card({ entry, place, side, x, y, isActive, onFocus }: CardProps) {
  const { id, prompt, favourite, seed } = entry;
  const isChosen = chosen.value.includes(id);
  return (
    <figure
      class={`card ${isChosen ? "chosen" : ""}`}
      data-place={place}
      data-id={id}
      style={{ width: `${side}px`, height: `${side}px`, transform: `translate(${x}px, ${y}px)` }}
      onFocusCapture={onFocus}
    >
      <button
        type="button"
        class="open"
        tabIndex={isActive ? 0 : -1}
        aria-label={`${prompt}${seed === null ? "" : `, seed ${seed}`}: show large`}
        title={prompt}
        onClick={() => {
          shown.value = entry;
        }}
      >
        <Picture url={thumbnailUrl(id)} alt="" onMissed={() => void missed(entry)} />
      </button>
      <figcaption class="card-tools">
        <IconButton
          icon="heart"
          filled={favourite}
          pressed={favourite}
          label={favourite ? "No favourite any more" : "Favourite"}
          onClick={() => void setFavourite(entry, !favourite)}
        />
        <IconButton
          icon="compare"
          pressed={isChosen}
          label="Choose, to compare or for a sheet"
          onClick={() => choose(id)}
        />
        <IconButton
          icon="download"
          label="Download"
          onClick={() => void download(pictureUrl(id)).catch((error) => tell(messageOf(error), { kind: "bad" }))}
        />
        <IconButton icon="trash" label="Delete" onClick={() => void remove(entry)} />
      </figcaption>
    </figure>
  );
}
