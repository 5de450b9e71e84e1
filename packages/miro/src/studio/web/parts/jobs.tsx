/** Jobs of this tab: what waits, what is being drawn, and the last one that ended. */
import { messageOf, pictureUrl, thumbnailUrl } from "../state/api.js";
import { show } from "../state/gallery.js";
import { cancel, forget, isEnded, type Job, type JobState, jobs, progressOf, secondsLeft } from "../state/jobs.js";
import { tell } from "../state/notices.js";
import { useNow } from "./field.js";
import { IconButton } from "./icon.js";
import { composeSheet, Picture, saveBlob } from "./picture.js";

export function Jobs() {
  const drawn = jobs.value.filter(({ purpose }) => purpose.kind === "draw").toSorted((a, b) => place(a) - place(b));
  if (drawn.length === 0) return null;
  return (
    <section class="jobs" aria-label="Jobs">
      {drawn.map((job) => (
        <JobCard key={job.id} job={job} />
      ))}
    </section>
  );
}

/** What is drawn comes first, then what waits, in the order of the queue. */
function place({ state: { value } }: Job): number {
  if (value.status === "running") return -1;
  return isEnded(value) ? Number.POSITIVE_INFINITY : (value.position ?? 0);
}

/** What a job is doing, as a sentence. */
export function saysOf(state: JobState, now: number): string {
  const { status, position, startedAt, finishedAt } = state;
  if (status === "queued") {
    if (position === null) return "Sent.";
    return position === 0 ? "Begins." : `Waits: ${position} ${position === 1 ? "job" : "jobs"} before it.`;
  }
  if (status === "running") {
    const { steps, step } = current(state);
    const left = secondsLeft(state, now);
    const time = left === null ? "" : `, ${timeText(left)} left`;
    return steps === 0 ? "Begins." : `Step ${step} of ${steps}${time}`;
  }
  if (status === "cancelled") return "Cancelled.";
  if (status === "done") {
    const took = startedAt === null || finishedAt === null ? 0 : (finishedAt - startedAt) / 1000;
    return took > 0.3 ? `Done in ${timeText(took)}.` : "Done.";
  }
  return "Failed.";
}

/** The picture that is being drawn. */
function current({ tiles }: JobState): { step: number; steps: number } {
  return (
    tiles.findLast(({ step, picture }) => step > 0 && picture === null) ??
    tiles.findLast(({ step }) => step > 0) ??
    tiles[0]!
  );
}

function timeText(seconds: number): string {
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  return seconds < 90 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`;
}

function JobCard({ job }: { job: Job }) {
  const state = job.state.value;
  const ended = isEnded(state);
  const now = useNow(!ended);
  const progress = state.status === "done" ? 1 : progressOf(state);
  const finished = state.tiles.flatMap(({ picture }) => picture ?? []);
  return (
    <article class={`job ${state.status}`} aria-label={`Job: ${job.prompt}`}>
      <header>
        <div class="job-text">
          <strong title={job.prompt}>{job.prompt}</strong>
          <span class="job-state" role="status">
            {saysOf(state, now)}
          </span>
        </div>
        {ended ? (
          <>
            {finished.length > 1 && (
              <IconButton
                icon="download"
                label="Download all as one sheet"
                onClick={() =>
                  void composeSheet(finished.map(pictureUrl))
                    .then((blob) => saveBlob(blob, "miro-sheet.png"))
                    .catch((error) => tell(messageOf(error), { kind: "bad" }))
                }
              />
            )}
            <IconButton icon="close" label="Put away" onClick={() => forget(job)} />
          </>
        ) : (
          <button
            type="button"
            class="quiet"
            onClick={() => void cancel(job).catch((error) => tell(messageOf(error), { kind: "bad" }))}
          >
            Cancel
          </button>
        )}
      </header>
      {state.status === "running" && <progress max={1} value={progress} aria-label="Progress" />}
      {state.error && (
        <p class="error" role="alert">
          {state.error}
        </p>
      )}
      {state.warnings.map((text) => (
        <p class="warning" key={text}>
          {text}
        </p>
      ))}
      {(state.status === "running" || finished.length > 0) && (
        <div class={`job-tiles of-${job.total}`}>
          {state.tiles.map((tile, i) => {
            const { picture, preview, step, steps, scores } = tile;
            const best = Object.entries(scores ?? {});
            if (ended && picture === null) return null;
            return (
              <div class="job-tile" key={i}>
                {picture ? (
                  <button type="button" onClick={() => void show(picture)} aria-label={`Show picture ${i + 1} large`}>
                    <Picture url={thumbnailUrl(picture)} alt={`${job.prompt}, picture ${i + 1}`} />
                  </button>
                ) : preview ? (
                  <img class="preview" src={preview} alt={`Preview ${i + 1} at step ${step} of ${steps}`} />
                ) : (
                  <span class="waiting" />
                )}
                {best.length > 0 && (
                  <span class="scores">{best.map(([name, score]) => `${name} ${score.toFixed(3)}`).join(", ")}</span>
                )}
              </div>
            );
          })}
        </div>
      )}
    </article>
  );
}
