/** Output whose reader is gone: a terminal that was closed, a pipe that ended, a full disk. It ends no work. */

/**
 * Lets writing to stdout and stderr fail without an exception: a reader that has hung up, a full disk, a lost terminal.
 * @returns tells the first failure of stdout that is not a reader's hanging up, because whoever wanted the output lacks
 * it then
 */
export function surviveLostOutput(): () => NodeJS.ErrnoException | null {
  let lost: NodeJS.ErrnoException | null = null;
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPIPE") lost ??= error;
  });
  process.stderr.on("error", () => {});
  return () => lost;
}

/** Writes what need not arrive. */
export function writeSafely(stream: NodeJS.WriteStream, text: string): void {
  try {
    stream.write(text);
  } catch {
    // Failures come as events, but for a stream whose device was gone before it was opened.
  }
}
