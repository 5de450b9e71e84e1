/**
 * What the browser keeps over a reload. It may refuse: a page in the frame of another site's page, as a Space at the
 * Hub is, has no storage where cookies of third parties are blocked. Things are then kept while the page is open.
 */

class BrowserStorage {
  readonly #name: "localStorage" | "sessionStorage";
  /** What the browser refused to keep. */
  readonly #here = new Map<string, string>();

  constructor(name: "localStorage" | "sessionStorage") {
    this.#name = name;
  }

  getItem(key: string): string | null {
    const here = this.#here.get(key);
    if (here !== undefined) return here;
    try {
      return globalThis[this.#name].getItem(key);
    } catch {
      return null;
    }
  }

  setItem(key: string, text: string): void {
    try {
      globalThis[this.#name].setItem(key, text);
      this.#here.delete(key);
    } catch {
      this.#here.set(key, text);
    }
  }

  removeItem(key: string): void {
    this.#here.delete(key);
    try {
      globalThis[this.#name].removeItem(key);
    } catch {
      // There is none.
    }
  }
}

/** For as long as the browser keeps it, in every tab. */
export const local = new BrowserStorage("localStorage");
/** For this tab. */
export const session = new BrowserStorage("sessionStorage");
