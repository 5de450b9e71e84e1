/** The parts of a running studio, as its families of routes see them. */
import type { FastifyInstance } from "fastify";
import type { WorkContext } from "./bodies.js";
import type { Engine } from "./engine.js";
import type { Gallery } from "./gallery.js";
import type { Job, JobWork } from "./job.js";
import type { Metrics } from "./metrics.js";
import type { JobQueue } from "./queue.js";

export interface StudioParts {
  readonly app: FastifyInstance;
  readonly engine: Engine;
  readonly gallery: Gallery;
  readonly queue: JobQueue;
  readonly metrics: Metrics;
  /** What requests are made into work with. */
  readonly workContext: WorkContext;
  /** Where the server listens. */
  readonly url: string;
  submit(work: JobWork, requestKey?: string): Job;
}
