/** What the server takes at most. */
/** Bytes of a JSON body, and of an upload with files. */
export const MAX_JSON_BYTES = 2 ** 20;
export const MAX_UPLOAD_BYTES = 32 * 2 ** 20;
/** Bytes of all uploads of jobs that wait, which are held in memory. */
export const MAX_WAITING_BYTES = 256 * 2 ** 20;
/** Pixels of a picture that is uploaded. */
export const MAX_UPLOAD_PIXELS = 64_000_000;
/** Pictures of a sweep. */
export const MAX_SWEEP_PICTURES = 1024;
/** How long a finished job is known, and how long after that its id is known to have been one. */
export const KEEP_JOB_MS = 3_600_000;
export const KEEP_ID_MS = 24 * 3_600_000;
/** Pictures of small waiting jobs that are drawn in one batch. */
export const BATCH = 8;
/** A sign of life on streams that have nothing to tell. */
export const HEARTBEAT_MS = 15_000;
/** How long a request may take to arrive: an upload over a slow line, and no more of one that has broken off. */
export const REQUEST_MS = 600_000;
/** How long a client may send on a body that was refused. */
export const SEND_ON_MS = 30_000;
/** How long the end of the server may take. */
export const CLOSE_MS = 5_000;
