/** The reward map: a grid of pictures over the targets of two rewards. */
import { useState } from "preact/hooks";
import { thumbnailUrl } from "../state/api.js";
import { form, isTarget, model, setTarget } from "../state/form.js";
import { nearestCell } from "../state/map-order.js";
import { tell } from "../state/notices.js";
import {
  type RewardMap as MapState,
  mapChoice,
  mapPreviews,
  rewardMap,
  startMap,
  stopMap,
  targetsOfCell,
} from "../state/reward-map.js";
import { isBrowsers } from "./keys.js";
import { Picture } from "./picture.js";

const SIDES = [3, 5, 9];

export function RewardMap() {
  const rewards = model.value?.rewards ?? [];
  const { x, y, side } = mapChoice.value;
  const map = rewardMap.value;
  const choose = (changes: Partial<typeof mapChoice.value>) => {
    mapChoice.value = { ...mapChoice.value, ...changes };
  };
  if (rewards.length < 2) return <p class="empty">A map needs a model with two rewards.</p>;
  const axis = (name: "x" | "y", label: string) => (
    <div class="field">
      <label for={`map-${name}`}>{label}</label>
      <select
        id={`map-${name}`}
        value={mapChoice.value[name]}
        onChange={(event) => {
          const key = event.currentTarget.value;
          const other = name === "x" ? "y" : "x";
          // Both axes the same would be a line: they change places.
          choose({ [name]: key, ...(mapChoice.value[other] === key && { [other]: mapChoice.value[name] }) });
        }}
      >
        {rewards.map(({ key, label }) => (
          <option key={key} value={key}>
            {label}
          </option>
        ))}
      </select>
    </div>
  );
  return (
    <section class="map" aria-label="Reward map">
      <p class="help">
        One seed, drawn over the targets of two rewards. Point at a picture to see its targets; click to take them.
      </p>
      <div class="map-form">
        {axis("x", "Across")}
        {axis("y", "Up")}
        <div class="field">
          <label for="map-side">Pictures</label>
          <select
            id="map-side"
            value={String(side)}
            onChange={(event) => choose({ side: Number(event.currentTarget.value) })}
          >
            {SIDES.map((n) => (
              <option key={n} value={String(n)}>
                {n} × {n}
              </option>
            ))}
          </select>
        </div>
        {map?.running ? (
          <button type="button" class="quiet" onClick={() => void stopMap()}>
            Stop
          </button>
        ) : (
          <button
            type="button"
            class="generate small"
            disabled={form.value.prompt.trim() === "" || x === y}
            onClick={startMap}
          >
            Draw the map
          </button>
        )}
      </div>
      {map?.error && (
        <p class="error" role="alert">
          {map.error}
        </p>
      )}
      {map && <Cells map={map} />}
    </section>
  );
}

function Cells({ map }: { map: MapState }) {
  const [at, setAt] = useState<number | null>(null);
  /** The cell that Tab leads to; arrows lead on from there. */
  const [active, setActive] = useState(0);
  const rewards = model.value?.rewards ?? [];
  const style = (key: string) => rewards.find((reward) => reward.key === key) ?? { label: key, colour: "#888" };
  const [x, y] = [style(map.x), style(map.y)];
  const drawn = Object.keys(map.pictures).map(Number);
  const previews = mapPreviews.value;
  const total = map.side ** 2;
  const says = (cell: number) => {
    const targets = targetsOfCell(map, cell);
    return `${x.label} ${targets.x.toFixed(2)}, ${y.label} ${targets.y.toFixed(2)}`;
  };
  const take = (cell: number) => {
    const targets = targetsOfCell(map, cell);
    setTarget(map.x, targets.x);
    setTarget(map.y, targets.y);
    tell(`Taken over: ${says(cell)}.`);
  };
  const isTaken = (cell: number) => {
    const targets = targetsOfCell(map, cell);
    return isTarget(map.x, targets.x) && isTarget(map.y, targets.y);
  };
  const keys = (event: KeyboardEvent) => {
    if (isBrowsers(event)) return;
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -map.side, ArrowDown: map.side }[event.key];
    const cell = Number((event.target as HTMLElement).dataset.cell);
    if (by === undefined || Number.isNaN(cell)) return;
    event.preventDefault();
    const next = (event.currentTarget as HTMLElement).querySelector<HTMLElement>(`[data-cell="${cell + by}"]`);
    if (Math.abs(by) === 1 && Math.floor(cell / map.side) !== Math.floor((cell + by) / map.side)) return;
    next?.focus();
  };
  return (
    <figure class="map-figure">
      <div class="map-plot">
        <span class="axis up" style={{ "--c": y.colour }}>
          <b>{y.label}</b> 0 → 1
        </span>
        {/* biome-ignore lint/a11y/noStaticElementInteractions: the keys are those of the buttons inside */}
        <div
          class="cells"
          style={{ gridTemplateColumns: `repeat(${map.side}, 1fr)` }}
          onMouseLeave={() => setAt(null)}
          onKeyDown={keys}
        >
          {Array.from({ length: total }, (_, cell) => {
            const picture = map.pictures[cell];
            const preview = previews[cell];
            const near = picture || preview ? null : nearestCell(cell, map.side, drawn);
            return (
              <button
                type="button"
                key={cell}
                data-cell={cell}
                tabIndex={cell === Math.min(active, total - 1) ? 0 : -1}
                class={picture ? "drawn" : "coming"}
                aria-label={`${says(cell)}${picture ? "" : ", not drawn yet"}`}
                aria-pressed={isTaken(cell)}
                onMouseEnter={() => setAt(cell)}
                onFocus={() => {
                  setAt(cell);
                  setActive(cell);
                }}
                onClick={() => take(cell)}
              >
                {picture ? (
                  <Picture url={thumbnailUrl(picture)} alt="" />
                ) : preview ? (
                  <img src={preview} alt="" />
                ) : near !== null ? (
                  <Picture class="near" url={thumbnailUrl(map.pictures[near]!)} alt="" />
                ) : null}
              </button>
            );
          })}
        </div>
        <span class="axis across" style={{ "--c": x.colour }}>
          <b>{x.label}</b> 0 → 1
        </span>
      </div>
      <figcaption>
        <span role="status">
          {at === null ? `“${map.prompt}”, seed ${map.seed}, ${drawn.length} of ${total} pictures` : says(at)}
        </span>
      </figcaption>
    </figure>
  );
}
