/** The whole page. */
import { signal } from "@preact/signals";
import { useEffect, useState } from "preact/hooks";
import { connected, giveKey, key, keyWanted } from "../state/api.js";
import { chooseModel, model, models, takeOverDropped } from "../state/form.js";
import { liveJobs } from "../state/jobs.js";
import { startError } from "../state/start.js";
import { THEMES, theme } from "../state/theme.js";
import { Dialog } from "./dialog.js";
import { Gallery } from "./gallery.js";
import { IconButton } from "./icon.js";
import { Jobs } from "./jobs.js";
import { Notices } from "./notices.js";
import { Prompt } from "./prompt.js";
import { RewardMap } from "./reward-map.js";
import { Rewards } from "./rewards.js";
import { Sampling } from "./sampling.js";
import { Compare, Viewer } from "./viewer.js";

const view = signal<"gallery" | "map">("gallery");
/** The address says which view is shown, so that the browser's way back leads to the one before. */
function follow(): void {
  if (location.hash === "#map") view.value = "map";
  else if (location.hash === "" || location.hash === "#gallery") view.value = "gallery";
}
follow();
window.addEventListener("hashchange", follow);

/** On a narrow page everything is in one column, and what is drawn comes between the prompt and the other controls. */
const column = matchMedia("(max-width: 900px)");
const narrow = signal(column.matches);
column.addEventListener("change", () => {
  narrow.value = column.matches;
});

export function App() {
  return (
    <>
      <a class="skip" href="#prompt">
        To the prompt
      </a>
      <Header />
      <main>
        <div class="side">
          <Prompt />
          {narrow.value && <Jobs />}
          <Rewards />
          <Sampling />
          <Links />
        </div>
        <div class="stage">
          {startError.value && (
            <p class="error" role="alert">
              {startError.value}
            </p>
          )}
          {!narrow.value && <Jobs />}
          <nav class="tabs" aria-label="Views">
            <Tab name="gallery" label="Gallery" />
            <Tab name="map" label="Reward map" />
          </nav>
          {view.value === "gallery" ? <Gallery /> : <RewardMap />}
        </div>
      </main>
      <Viewer />
      <Compare />
      <KeyDialog />
      <DropZone />
      <Notices />
    </>
  );
}

function Tab({ name, label }: { name: "gallery" | "map"; label: string }) {
  return (
    <a href={`#${name}`} aria-current={view.value === name ? "page" : undefined}>
      {label}
    </a>
  );
}

function Header() {
  const waiting = liveJobs.value.length;
  const next = THEMES[(THEMES.indexOf(theme.value) + 1) % THEMES.length]!;
  return (
    <header class="top">
      <h1>
        <span class="brand">MIRO</span> <span class="sub">studio</span>
      </h1>
      <div class="top-state" role="status">
        {!connected.value ? (
          <span class="lost">The connection is lost; the page keeps trying.</span>
        ) : waiting > 0 ? (
          <span class="busy">
            {waiting} {waiting === 1 ? "job" : "jobs"}
          </span>
        ) : null}
      </div>
      {models.value.length > 0 && (
        <label class="model">
          <span>Model</span>
          <select value={model.value?.id} onChange={(event) => chooseModel(event.currentTarget.value)}>
            <ModelOptions />
          </select>
        </label>
      )}
      <IconButton
        icon={theme.value === "light" ? "sun" : theme.value === "dark" ? "moon" : "system"}
        label={`Colours: ${theme.value}. Change to ${next}`}
        onClick={() => {
          theme.value = next;
        }}
      />
    </header>
  );
}

/** The models; variants of one are together. */
function ModelOptions() {
  const bases = [...new Set(models.value.map(({ name }) => name.split("@", 1)[0]!))];
  return bases.map((base) => {
    const some = models.value.filter(({ name }) => name.split("@", 1)[0] === base);
    const options = some.map(({ id, name }) => (
      <option key={id} value={id}>
        {some.length > 1 ? name.slice(base.length + 1) || base : name}
      </option>
    ));
    return some.length > 1 ? (
      <optgroup key={base} label={base}>
        {options}
      </optgroup>
    ) : (
      options
    );
  });
}

/** Where the model comes from. Nothing of these pages is asked for before somebody goes there. */
const LINKS = {
  Paper: "https://arxiv.org/abs/2510.25897",
  Project: "https://nicolas-dufour.github.io/miro/",
  Model: "https://huggingface.co/nicolas-dufour/miro",
  Package: "https://www.npmjs.com/package/miro-t2i",
};

function Links() {
  return (
    <nav class="links" aria-label="About MIRO">
      {Object.entries(LINKS).map(([name, url]) => (
        <a key={name} href={url} target="_blank" rel="noreferrer">
          {name}
        </a>
      ))}
      {key.value === null && <a href="docs">HTTP API</a>}
    </nav>
  );
}

function KeyDialog() {
  const [typed, setTyped] = useState("");
  if (keyWanted.value === "no") return null;
  return (
    <Dialog label="Key of the studio" class="key">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (typed.trim() !== "") giveKey(typed.trim());
          setTyped("");
        }}
      >
        <h2>This studio wants a key</h2>
        <p class="help">It is kept until this tab is closed.</p>
        {keyWanted.value === "wrong" && (
          <p class="error" role="alert">
            That is not the key.
          </p>
        )}
        <label for="key">Key</label>
        <input
          id="key"
          type="password"
          autocomplete="current-password"
          value={typed}
          onInput={(event) => setTyped(event.currentTarget.value)}
        />
        <button type="submit" class="generate small">
          Open the studio
        </button>
      </form>
    </Dialog>
  );
}

/** Takes the settings of a picture that is dropped anywhere. */
function DropZone() {
  const [over, setOver] = useState(false);
  useEffect(() => {
    const hasFile = (event: DragEvent) => event.dataTransfer?.types.includes("Files") ?? false;
    const drag = (event: DragEvent) => {
      if (!hasFile(event)) return;
      event.preventDefault();
      setOver(true);
    };
    const leave = (event: DragEvent) => {
      if (event.relatedTarget === null) setOver(false);
    };
    const drop = (event: DragEvent) => {
      if (!hasFile(event)) return;
      event.preventDefault();
      setOver(false);
      const file = event.dataTransfer?.files[0];
      if (file) takeOverDropped(file);
    };
    const on = { dragenter: drag, dragover: drag, dragleave: leave, drop } as const;
    for (const [name, listener] of Object.entries(on)) window.addEventListener(name as "drop", listener);
    return () => {
      for (const [name, listener] of Object.entries(on)) window.removeEventListener(name as "drop", listener);
    };
  }, []);
  return over ? <div class="drop">Drop a picture to take over its settings</div> : null;
}
