/** Sliders of the model's rewards, with strips of pictures below them. */
import { thumbnailUrl } from "../state/api.js";
import { form, isTarget, model, resetTargets, setTarget, targetOf } from "../state/form.js";
import { closeStrip, drawStrip, STRIP, stripOf } from "../state/strips.js";
import { TargetSlider } from "./field.js";
import { Icon, IconButton } from "./icon.js";
import { Picture } from "./picture.js";

export function Rewards() {
  if (model.value === null) return null;
  const { rewards } = model.value;
  const off = form.value.guidanceOff;
  return (
    <section class="panel rewards" aria-labelledby="rewards-title">
      <h2 id="rewards-title">Rewards</h2>
      {rewards.length > 0 && off && <p class="help">Guidance is off: negative targets have no effect.</p>}
      {rewards.length === 0 && <p class="help">This model has no rewards.</p>}
      {rewards.length > 0 && (
        <div class="reward-grid">
          <div class="reward-head">
            <span>
              Positive
              <button type="button" class="link" onClick={() => resetTargets(false)}>
                <Icon name="reset" /> Reset to 1
              </button>
            </span>
            <span>
              Negative
              <button type="button" class="link" onClick={() => resetTargets(true)}>
                <Icon name="reset" /> Reset to 0
              </button>
            </span>
          </div>
          {rewards.map(({ key, label, colour }) => (
            <div class="reward" key={key} style={{ "--c": colour }}>
              <div class="reward-name">
                <i class="dot" aria-hidden="true" />
                <span title={key}>{label}</span>
                <IconButton
                  icon="strip"
                  label={`${label}: a strip of pictures at 0, ¼, ½, ¾ and 1`}
                  onClick={() => void drawStrip(key)}
                />
              </div>
              <TargetSlider
                colour={colour}
                value={targetOf(key)}
                onChange={(value) => setTarget(key, value)}
                label={`${label}, positive target`}
              />
              <TargetSlider
                colour={colour}
                value={targetOf(key, true)}
                onChange={(value) => setTarget(key, value, true)}
                label={`${label}, negative target`}
              />
              <Strip name={key} label={label} />
            </div>
          ))}
        </div>
      )}
    </section>
  );
}

function Strip({ name, label }: { name: string; label: string }) {
  const job = stripOf(name);
  if (job === null) return null;
  const { tiles, error, ...state } = job.state.value;
  return (
    <div class="strip">
      {STRIP.map((target, i) => {
        const { picture, preview } = tiles[i]!;
        return (
          <button
            type="button"
            key={target}
            disabled={picture === null}
            title={`${label} ${target.toFixed(2)}`}
            aria-label={`${label} ${target.toFixed(2)}: take this target`}
            aria-pressed={isTarget(name, target)}
            onClick={() => setTarget(name, target)}
          >
            {picture ? (
              <Picture url={thumbnailUrl(picture)} alt="" preview={preview} />
            ) : preview ? (
              <img src={preview} alt="" />
            ) : (
              <span class="waiting" />
            )}
            <span>{target.toFixed(2)}</span>
          </button>
        );
      })}
      <IconButton icon="close" label={`Close the strip of ${label}`} onClick={() => closeStrip(name)} />
      {state.status === "queued" && <p class="help">Waits, {state.position ?? 0} before it.</p>}
      {error && <p class="error">{error}</p>}
    </div>
  );
}
