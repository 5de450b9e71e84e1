/** Caption texts as every model is given them. */
import { checkText } from "../../arguments.js";

/**
 * Removes each literal `<PERSON>` and nothing else: spaces around it stay, so two may follow each other. The published
 * preparation does the same to every text it encodes or scores; the `.txt` member keeps the original.
 */
export function cleanCaption(caption: string): string {
  checkText("caption", caption);
  return caption.replaceAll("<PERSON>", "");
}
