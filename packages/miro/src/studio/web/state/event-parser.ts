/** Server-sent events from the pieces of a stream. `EventSource` cannot send a key, so the page reads them itself. */
export interface StreamEvent {
  id: number | null;
  event: string;
  data: string;
}

export class EventParser {
  #rest = "";

  /** The events that are whole with this piece. */
  push(piece: string): StreamEvent[] {
    this.#rest = (this.#rest + piece).replaceAll("\r\n", "\n");
    const blocks = this.#rest.split("\n\n");
    this.#rest = blocks.pop()!;
    return blocks.map(read).filter((event) => event !== null);
  }
}

function read(block: string): StreamEvent | null {
  const event: StreamEvent = { id: null, event: "message", data: "" };
  const data: string[] = [];
  for (const line of block.split("\n")) {
    const [, name, value = ""] = /^([^:]*)(?:: ?(.*))?$/.exec(line) ?? [];
    if (name === "id" && /^\d+$/.test(value)) event.id = Number(value);
    else if (name === "event") event.event = value;
    else if (name === "data") data.push(value);
  }
  if (data.length === 0) return null;
  event.data = data.join("\n");
  return event;
}
