/** Short notices. A dialog shows them too, since the page behind it cannot be used. */
import { dismiss, notices } from "../state/notices.js";
import { IconButton } from "./icon.js";

export function Notices() {
  return (
    <div class="notices" role="status" aria-live="polite">
      {notices.value.map(({ id, topic, text, kind, action }) => (
        <div key={topic} class={`notice ${kind}`}>
          <span>{text}</span>
          {action && (
            <button
              type="button"
              onClick={() => {
                dismiss(id);
                action.run();
              }}
            >
              {action.label}
            </button>
          )}
          <IconButton icon="close" label="Close the notice" onClick={() => dismiss(id)} />
        </div>
      ))}
    </div>
  );
}
