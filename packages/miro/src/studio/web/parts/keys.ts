/** Keys that the page has a use for. */

/** Whether a key is pressed together with one that makes it the browser's, as in Alt+Left and Ctrl+F. */
export function isBrowsers({ altKey, ctrlKey, metaKey }: KeyboardEvent): boolean {
  return altKey || ctrlKey || metaKey;
}
