/** One picture large, with everything that can be done with it; and two beside each other. */
import { useEffect, useRef, useState } from "preact/hooks";
import { askJson, messageOf, type PictureEntry, pictureUrl, returns, type Settings } from "../state/api.js";
import { draw } from "../state/draw.js";
import { model, models, set, source, takeOver } from "../state/form.js";
import {
  choose,
  chosen,
  comparing,
  entryOf,
  more,
  pictures,
  remove as removePicture,
  setFavourite,
  shown,
} from "../state/gallery.js";
import { tell } from "../state/notices.js";
import { Dialog } from "./dialog.js";
import { Icon, IconButton } from "./icon.js";
import { isBrowsers } from "./keys.js";
import { download, Picture } from "./picture.js";
import { differences, type Row, rowsOf } from "./settings.js";

const bad = (error: unknown) => tell(messageOf(error), { kind: "bad" });

function useSettings(id: string | undefined): Settings | null {
  const [known, setKnown] = useState<{ id: string; settings: Settings } | null>(null);
  useEffect(() => {
    if (id === undefined || known?.id === id) return;
    let gone = false;
    askJson<Settings>(`api/pictures/${id}/settings`)
      .then((settings) => {
        if (!gone) setKnown({ id, settings });
      })
      .catch(bad);
    return () => {
      gone = true;
    };
  }, [id, returns.value]); // What a lost connection has kept back is asked for again.
  return known?.id === id ? known!.settings : null;
}

export function Viewer() {
  const entry = shown.value;
  return entry === null ? null : <Large entry={entry} />;
}

function Large({ entry }: { entry: PictureEntry }) {
  const { id, prompt, favourite } = entry;
  const settings = useSettings(id);
  const place = pictures.value.findIndex((one) => one.id === id);
  const stage = useRef<HTMLDivElement>(null);
  const fullScreen = () => {
    const change = document.fullscreenElement ? document.exitFullscreen() : stage.current!.requestFullscreen();
    change.catch(bad);
  };
  const close = () => {
    shown.value = null;
  };
  const go = (by: number) => {
    const to = pictures.value[place + by];
    if (place >= 0 && to) shown.value = to;
    if (place + by > pictures.value.length - 20) void more();
  };
  const remove = () => {
    const next = pictures.value[place + 1] ?? pictures.value[place - 1] ?? null;
    void removePicture(entry);
    shown.value = place < 0 ? null : next;
  };
  const use = (run: (settings: Settings) => void) => {
    if (settings === null) return;
    run(settings);
    close();
  };
  return (
    <Dialog
      label={`Picture: ${prompt}`}
      class="viewer"
      onClose={close}
      onKeyDown={(event) => {
        if (isBrowsers(event)) return;
        if (event.key === "ArrowLeft") go(-1);
        else if (event.key === "ArrowRight") go(1);
        else if (event.key === "f") void setFavourite(entry, !favourite);
        else if (event.key === "F") fullScreen();
        else if (event.key === "Delete") remove();
        else return;
        event.preventDefault();
      }}
    >
      <div class="viewer-picture" ref={stage}>
        <Picture url={pictureUrl(id)} alt={prompt} key={id} />
        <IconButton icon="left" class="before" label="Newer picture" disabled={place <= 0} onClick={() => go(-1)} />
        <IconButton
          icon="right"
          class="after"
          label="Older picture"
          disabled={place < 0 || place >= pictures.value.length - 1}
          onClick={() => go(1)}
        />
      </div>
      <div class="viewer-side">
        <div class="viewer-tools">
          <IconButton
            icon="heart"
            filled={favourite}
            pressed={favourite}
            label="Favourite"
            onClick={() => void setFavourite(entry, !favourite)}
          />
          <IconButton
            icon="compare"
            pressed={chosen.value.includes(id)}
            label="Choose, to compare or for a sheet"
            onClick={() => choose(id)}
          />
          <IconButton
            icon="download"
            label="Download the PNG"
            onClick={() => void download(pictureUrl(id)).catch(bad)}
          />
          <IconButton icon="trash" label="Delete" onClick={remove} />
          <IconButton icon="expand" label="Full screen" onClick={fullScreen} />
          <IconButton icon="close" class="last" label="Close" onClick={close} />
        </div>
        {/* A long one is scrolled, with the keyboard too. */}
        <p class="viewer-prompt" dir="auto" aria-live="polite" tabIndex={prompt.length > 300 ? 0 : undefined}>
          {prompt}
        </p>
        <div class="viewer-actions">
          <button type="button" class="quiet strong" disabled={settings === null} onClick={() => use(takeOver)}>
            <Icon name="sliders" /> Use settings
          </button>
          <button
            type="button"
            class="quiet"
            onClick={() => {
              source.value = { kind: "picture", id };
              tell("The next pictures are drawn over this one.");
              close();
            }}
          >
            <Icon name="picture" /> Draw over it
          </button>
          <button
            type="button"
            class="quiet"
            disabled={settings === null}
            onClick={() =>
              use((known) => {
                takeOver(known);
                set({ images: Math.min(4, model.value?.limits.images ?? 1), variation: 0.2, variationSeed: null });
                void draw();
              })
            }
          >
            <Icon name="vary" /> Vary
          </button>
        </div>
        <Rows rows={settings === null ? [] : rowsOf(settings, models.value).filter(({ name }) => name !== "Prompt")} />
      </div>
    </Dialog>
  );
}

function Rows({ rows }: { rows: readonly Row[] }) {
  return (
    <dl class="rows">
      {rows.map(({ name, value }) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

export function Compare() {
  const [first, second] = chosen.value.slice(-2);
  if (!comparing.value || first === undefined || second === undefined) return null;
  return <Pair ids={[first, second]} />;
}

function Pair({ ids }: { ids: [string, string] }) {
  const [entries, setEntries] = useState<PictureEntry[]>([]);
  const settings = [useSettings(ids[0]), useSettings(ids[1])];
  useEffect(() => {
    Promise.all(ids.map(entryOf)).then(setEntries).catch(bad);
  }, [ids[0], ids[1]]);
  const close = () => {
    comparing.value = false;
  };
  const [a, b] = settings.map((one) => (one === null ? null : rowsOf(one, models.value)));
  const rows = a && b ? differences(a, b) : null;
  return (
    <Dialog label="Two pictures" class="compare" onClose={close}>
      <div class="viewer-tools">
        <h2>Two pictures</h2>
        <IconButton icon="close" class="last" label="Close" onClick={close} />
      </div>
      <div class="pair">
        {ids.map((id, i) => (
          <figure key={id}>
            <Picture url={pictureUrl(id)} alt={entries[i]?.prompt ?? "A picture"} />
            <figcaption dir="auto">{entries[i]?.prompt}</figcaption>
          </figure>
        ))}
      </div>
      {rows && rows.length === 0 && <p class="help">Their settings are the same.</p>}
      {rows && rows.length > 0 && (
        <table>
          <caption>Where their settings differ</caption>
          <tbody>
            {rows.map(({ name, values: [one, other] }) => (
              <tr key={name}>
                <th scope="row">{name}</th>
                <td>{one}</td>
                <td>{other}</td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
    </Dialog>
  );
}
