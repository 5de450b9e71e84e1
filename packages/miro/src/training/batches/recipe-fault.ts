/** Something in a recipe that does not fit, with the key that it is about. */
export interface RecipeFault {
  /** As the file writes it: `trainer.batch_size`. */
  key: string;
  /** The line for the reader; it names the key. */
  text: string;
}

/**
 * A fault in the usual form: `trainer.batch_size: expected …`.
 * @param key as the file writes it
 * @param problem what is expected and what was found
 */
export function recipeFault(key: string, problem: string): RecipeFault {
  return { key, text: `${key}: ${problem}` };
}
