/** Text in XML (SVG, XMP, Pango markup) and back. */

const ENTITIES = new Map(Object.entries({ amp: "&", lt: "<", gt: ">", quot: '"', apos: "'" }));
const NAMES = new Map([...ENTITIES].map(([name, character]) => [character, name]));

/** Text for an element or an attribute. What XML cannot hold at all, control characters, is the caller's to remove. */
export function escapeXml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&${NAMES.get(character)};`);
}

/** The text behind the five named entities and numbers; what is no entity stays as it is. */
export function unescapeXml(text: string): string {
  return text.replace(/&(?:#x([0-9a-fA-F]{1,6})|#(\d{1,7})|(\w+));/g, (whole, hex, decimal, name) => {
    if (name !== undefined) return ENTITIES.get(name) ?? whole;
    const code = hex !== undefined ? Number.parseInt(hex, 16) : Number(decimal);
    return code <= 0x10ffff ? String.fromCodePoint(code) : whole;
  });
}
