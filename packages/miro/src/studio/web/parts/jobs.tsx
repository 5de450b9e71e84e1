/** Jobs of this tab: what waits, what is being drawn, and the last one that ended. */
import { messageOf, pictureUrl, thumbnailUrl } from "../state/api.js";
import { show } from "../state/gallery.js";
import {
  cancel,
  forget,
  groupOf,
  isEnded,
  type Job,
  type JobState,
  jobs,
  progressOf,
  secondsLeft,
} from "../state/jobs.js";
import { tell } from "../state/notices.js";
import { useNow } from "./field.js";
import { IconButton } from "./icon.js";
import { composeSheet, Picture, saveBlob } from "./picture.js";

const bad = (error: unknown) => tell(messageOf(error), { kind: "bad" });

export function Jobs() {
  const groups = new Map<string, Job[]>();
  for (const job of jobs.value) {
    const group = groupOf(job);
    // The newest job comes first in the list; columns are in the order of the models.
    if (group !== null) groups.set(group, [job, ...(groups.get(group) ?? [])]);
  }
  if (groups.size === 0) return null;
  const first = (group: readonly Job[]) => Math.min(...group.map(place));
  const shown = [...groups].toSorted(([, a], [, b]) => first(a) - first(b));
  return (
    <section class="jobs" aria-label="Jobs">
      {shown.map(([id, group]) =>
        group[0]!.purpose.kind === "compare" ? (
          <ComparisonCard key={id} group={group} />
        ) : (
          <JobCard key={id} job={group[0]!} />
        ),
      )}
    </section>
  );
}

/** What is drawn comes first, then what waits, in the order of the queue. */
function place({ state: { value } }: Job): number {
  if (value.status === "running") return -1;
  return isEnded(value) ? Number.POSITIVE_INFINITY : (value.position ?? Number.MAX_SAFE_INTEGER);
}

/** What a job is doing, as a sentence. */
function saysOf(state: JobState, now: number): string {
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
  return (
    <article class={`job ${state.status}`} aria-label={`Job: ${job.prompt}`}>
      <CardHead prompt={job.prompt} says={saysOf(state, now)} isStep={state.status === "running"} group={[job]} />
      <JobBody job={job} class={`of-${job.total}`} />
    </article>
  );
}

/** The same prompt, seed and settings with several models, a column for each. */
function ComparisonCard({ group }: { group: readonly Job[] }) {
  const states = group.map(({ state }) => state.value);
  const now = useNow(!states.every(isEnded));
  const done = states.filter(isEnded).length;
  const says = done === group.length ? `All ${done} models have ended.` : `${done} of ${group.length} models.`;
  const [{ prompt }] = group as [Job];
  return (
    <article class="job comparison" aria-label={`Comparison: ${prompt}`}>
      <CardHead prompt={prompt} says={says} group={group} />
      <div class="columns" style={{ "--n": String(group.length) }}>
        {group.map((job, i) => {
          const model = job.purpose.kind === "compare" ? job.purpose.model : "";
          return (
            <section key={job.id} class={`column ${states[i]!.status}`} aria-label={`Model ${model}`}>
              <h3>{model}</h3>
              <span class="job-state">{saysOf(states[i]!, now)}</span>
              <JobBody job={job} class={`of-column of-${job.total}`} />
            </section>
          );
        })}
      </div>
    </article>
  );
}

interface HeadProps {
  prompt: string;
  says: string;
  /** What it says changes with every step: no screen reader should read each of them. */
  isStep?: boolean;
  group: readonly Job[];
}

function CardHead({ prompt, says, isStep = false, group }: HeadProps) {
  const live = group.filter(({ state }) => !isEnded(state.value));
  const finished = group.flatMap(({ state }) => state.value.tiles.flatMap(({ picture }) => picture ?? []));
  return (
    <header>
      <div class="job-text">
        <strong dir="auto" title={prompt}>
          {prompt}
        </strong>
        <span class="job-state" role="status" aria-live={isStep ? "off" : "polite"}>
          {says}
        </span>
      </div>
      {live.length === 0 ? (
        <>
          {finished.length > 1 && (
            <IconButton
              icon="download"
              label="Download all as one sheet"
              onClick={() =>
                void composeSheet(finished.map(pictureUrl))
                  .then((blob) => saveBlob(blob, "miro-sheet.png"))
                  .catch(bad)
              }
            />
          )}
          <IconButton icon="close" label="Put away" onClick={() => forget(...group)} />
        </>
      ) : (
        <button type="button" class="quiet" onClick={() => void Promise.all(live.map(cancel)).catch(bad)}>
          Cancel
        </button>
      )}
    </header>
  );
}

/** Progress, errors and pictures of a job. */
function JobBody({ job, class: name }: { job: Job; class: string }) {
  const state = job.state.value;
  const ended = isEnded(state);
  const finished = state.tiles.some(({ picture }) => picture !== null);
  return (
    <>
      {state.status === "running" && <progress max={1} value={progressOf(state)} aria-label="Progress" />}
      {state.error && (
        <p class="error" role="alert">
          {state.error}
        </p>
      )}
      {state.warnings.map((text) => (
        <p class="warning" key={text} title={text}>
          {text}
        </p>
      ))}
      {(state.status === "running" || finished) && (
        <div class={`job-tiles ${name}`}>
          {state.tiles.map(({ picture, preview, step, steps, scores }, i) => {
            const best = Object.entries(scores ?? {});
            if (ended && picture === null) return null;
            return (
              <div class="job-tile" key={i}>
                {picture ? (
                  <button type="button" onClick={() => void show(picture)} aria-label={`Show picture ${i + 1} large`}>
                    <Picture url={thumbnailUrl(picture)} alt={`${job.prompt}, picture ${i + 1}`} preview={preview} />
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
    </>
  );
}
