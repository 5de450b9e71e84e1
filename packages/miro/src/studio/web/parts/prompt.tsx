/** The prompt, the button, and examples. */
import { draw, formError, sending } from "../state/draw.js";
import { examplesOf, form, model, models, set, takeOverDropped } from "../state/form.js";
import { FileButton } from "./field.js";
import { Icon } from "./icon.js";

export function Prompt() {
  const { prompt, images } = form.value;
  const error = formError.value;
  const bad = error?.field === "prompt" || error?.field?.startsWith("prompt.");
  return (
    <form
      class="panel prompt"
      onSubmit={(event) => {
        event.preventDefault();
        void draw();
      }}
    >
      <label class="title" for="prompt">
        Prompt
      </label>
      <textarea
        id="prompt"
        dir="auto"
        rows={3}
        value={prompt}
        placeholder="What do you want to see?"
        aria-invalid={bad}
        aria-describedby={error ? "form-error" : undefined}
        onInput={(event) => set({ prompt: event.currentTarget.value })}
        onKeyDown={(event) => {
          if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.repeat) void draw();
        }}
      />
      {error && (
        <p id="form-error" class="error" role="alert">
          {error.message}
        </p>
      )}
      <div class="prompt-row">
        <button type="submit" class="generate" disabled={sending.value || model.value === null}>
          <strong>Generate</strong>
          <span>
            {images} {images === 1 ? "image" : "images"}
          </span>
        </button>
        {models.value.length > 1 && (
          <button
            type="button"
            class="quiet"
            title="The same prompt, seed and settings with every model"
            onClick={() => void draw(models.value)}
          >
            All models
          </button>
        )}
      </div>
      <details class="examples">
        <summary>Examples</summary>
        <ul>
          {(model.value ? examplesOf(model.value) : []).map((example) => (
            <li key={example}>
              <button type="button" class="chip" onClick={() => set({ prompt: example })}>
                {example}
              </button>
            </li>
          ))}
        </ul>
      </details>
      <p class="hint">
        <Icon name="picture" />
        <span>
          <FileButton label="Picture whose settings are taken over" class="link" onFile={takeOverDropped}>
            Take over a picture's settings …
          </FileButton>
          <span class="dropping"> or drop it anywhere.</span>
        </span>
      </p>
    </form>
  );
}
