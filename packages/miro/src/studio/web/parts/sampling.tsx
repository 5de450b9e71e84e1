/** Sampling settings, the seed, and what is drawn over. */
import { useEffect, useId, useLayoutEffect, useRef, useState } from "preact/hooks";
import { type Model, pictureUrl, thumbnailUrl } from "../state/api.js";
import { form, lastSeed, model, randomSeed, set, source } from "../state/form.js";
import { isMasked, mask, maskSize, show } from "../state/mask.js";
import { tell } from "../state/notices.js";
import { Choice, FileButton, NumberField, Slider } from "./field.js";
import { Icon, IconButton } from "./icon.js";
import { MASK_COLOUR, MaskEditor } from "./mask-editor.js";
import { Picture } from "./picture.js";

export function Sampling() {
  const chosen = model.value;
  const { steps, guidance, guidanceOff, images } = form.value;
  if (chosen === null) return null;
  const fine = chosen.defaults.guidanceScale < 2;
  return (
    <section class="panel sampling" aria-labelledby="sampling-title">
      <h2 id="sampling-title">Sampling</h2>
      <div class="fields">
        <Slider
          label="Steps"
          value={steps}
          min={1}
          max={100}
          step={1}
          most={chosen.limits.steps}
          onChange={(value) => set({ steps: value })}
        />
        <Slider
          label="Guidance"
          value={guidance}
          min={0}
          max={fine ? 3 : 15}
          step={fine ? 0.05 : 0.5}
          most={100}
          disabled={guidanceOff}
          onChange={(value) => set({ guidance: value })}
        >
          <label class="check">
            <input
              type="checkbox"
              checked={guidanceOff}
              onChange={(event) => set({ guidanceOff: event.currentTarget.checked })}
            />
            off
          </label>
        </Slider>
        <Slider
          label="Images"
          value={images}
          min={1}
          max={Math.min(16, chosen.limits.images)}
          step={1}
          onChange={(value) => set({ images: value })}
        />
        <Seed />
      </div>
      <SourcePanel />
      <MoreSettings chosen={chosen} />
    </section>
  );
}

function MoreSettings({ chosen }: { chosen: Model }) {
  const { sampler, shift, guidanceType, negativePrompt, bestOf, scorer, samplerOptions } = form.value;
  const id = useId();
  return (
    <details>
      <summary>More settings</summary>
      <div class="fields">
        <div class="field wide">
          <label for={`${id}-negative`}>Negative prompt</label>
          <input
            id={`${id}-negative`}
            type="text"
            dir="auto"
            value={negativePrompt}
            placeholder="what guidance leads away from"
            onInput={(event) => set({ negativePrompt: event.currentTarget.value })}
          />
        </div>
        <Choice
          label="Sampler"
          value={sampler}
          choices={chosen.samplers.map((name) => [name, name])}
          onChange={(value) => set({ sampler: value, samplerOptions: null })}
        >
          {samplerOptions !== null && (
            <p class="help">
              {Object.entries(samplerOptions)
                .map(([name, value]) => `${name} ${value}`)
                .join(", ")}
            </p>
          )}
        </Choice>
        <Choice
          label="Guidance over the steps"
          value={guidanceType}
          choices={[
            ["constant", "constant"],
            ["linear", "rising"],
          ]}
          onChange={(value) => set({ guidanceType: value })}
        />
        <Slider
          label="Shift"
          value={shift}
          min={0.05}
          max={5}
          step={0.05}
          most={100}
          onChange={(value) => set({ shift: value })}
        />
        <Slider
          label="Best of"
          value={bestOf}
          min={1}
          max={16}
          step={1}
          most={64}
          onChange={(value) => set({ bestOf: value })}
        />
        {bestOf > 1 && (
          <div class="field wide">
            <label for={`${id}-scorer`}>Best by the scorer</label>
            <input
              id={`${id}-scorer`}
              list={`${id}-scorers`}
              value={scorer}
              onInput={(event) => set({ scorer: event.currentTarget.value })}
            />
            <datalist id={`${id}-scorers`}>
              {chosen.scorers.map((name) => (
                <option key={name} value={name} />
              ))}
            </datalist>
            <p class="help">
              One, or several with weights: <code>sharpness,colorfulness=0.5</code>
            </p>
          </div>
        )}
      </div>
    </details>
  );
}

function Seed() {
  const { seed, randomSeed: random, variation } = form.value;
  const id = useId();
  return (
    <div class="field">
      <div class="field-head">
        <label for={id}>Seed</label>
        <label class="check">
          <input
            type="checkbox"
            checked={random}
            onChange={(event) => {
              const { checked } = event.currentTarget;
              // The seed that was drawn with goes on being used.
              set({ randomSeed: checked, ...(!checked && lastSeed.value !== null && { seed: lastSeed.value }) });
            }}
          />
          random
        </label>
      </div>
      <div class="seed">
        <NumberField
          id={id}
          min={0}
          max={Number.MAX_SAFE_INTEGER}
          step={1}
          disabled={random}
          value={random ? (lastSeed.value ?? seed) : seed}
          onChange={(value) => set({ seed: value })}
        />
        <IconButton icon="dice" label="Another seed" onClick={() => set({ seed: randomSeed(), randomSeed: false })} />
      </div>
      {random && lastSeed.value !== null && <p class="help">The last pictures began with {lastSeed.value}.</p>}
      {!random && (
        <Slider
          label="Variation"
          value={variation}
          min={0}
          max={1}
          step={0.05}
          onChange={(value) => set({ variation: value, variationSeed: null })}
        />
      )}
    </div>
  );
}

/** What is drawn over: image to image, and with a mask in-painting. */
function SourcePanel() {
  const { value } = source;
  const [painting, setPainting] = useState(false);
  useEffect(
    () => () => {
      if (value?.kind === "file") URL.revokeObjectURL(value.url);
    },
    [value],
  );
  const most = model.value?.limits.uploadBytes ?? 0;
  return (
    <div class="source">
      {value === null ? (
        <FileButton
          label="Picture to draw over"
          class="quiet"
          onFile={(file) => {
            if (file.size > most) tell(`The file has more than ${most / 2 ** 20} MiB.`, { kind: "bad" });
            else source.value = { kind: "file", file, url: URL.createObjectURL(file) };
          }}
        >
          Draw over a picture …
        </FileButton>
      ) : (
        <div class="source-set">
          <span class="source-picture">
            <Picture url={value.kind === "file" ? value.url : thumbnailUrl(value.id)} alt="What is drawn over" />
            <MaskPreview />
          </span>
          <Slider
            label="Strength"
            value={form.value.strength}
            min={0}
            max={1}
            step={0.05}
            help={
              isMasked(mask.value)
                ? "How much of the painted places is drawn anew; 1: all of it."
                : "0 keeps the picture, 1 draws it anew."
            }
            onChange={(strength) => set({ strength })}
          />
          <IconButton
            icon="close"
            label="Draw over nothing"
            onClick={() => {
              source.value = null;
            }}
          />
          <button type="button" class="quiet" onClick={() => setPainting(true)}>
            <Icon name="brush" /> {isMasked(mask.value) ? "Change the mask …" : "Paint a mask …"}
          </button>
        </div>
      )}
      {painting && value !== null && (
        <MaskEditor
          url={value.kind === "file" ? value.url : pictureUrl(value.id)}
          onSize={(size) => {
            maskSize.value = size;
          }}
          onClose={() => setPainting(false)}
        />
      )}
    </div>
  );
}

/** The mask over the small picture. */
function MaskPreview() {
  const canvas = useRef<HTMLCanvasElement>(null);
  const [edits, size] = [mask.value, maskSize.value];
  useLayoutEffect(() => {
    if (canvas.current) show(canvas.current, edits, MASK_COLOUR);
  }, [edits, size]);
  if (size === null || !isMasked(edits)) return null;
  const [width, height] = size;
  return <canvas ref={canvas} width={160} height={Math.max(1, Math.round((160 * height) / width))} />;
}
