/**
 * What VQAScore asks of a picture: whether it shows the caption, in the chat form that the model was tuned with (Lin et
 * al. 2024). A row of ids has one place for the picture.
 */
import { checkText } from "../arguments.js";
import type { Tokenizer } from "../text/tokenizer.js";
import { WHITE_SPACE } from "../text/whitespace.js";

/** Stands in a row for the tokens of the picture. */
export const IMAGE_ID = -200;
/** What the model is to answer. */
const ANSWER = "Yes";
/** Ids of a row; what is longer is cut. */
const MAX_IDS = 2048;

const SYSTEM =
  "A chat between a curious user and an artificial intelligence assistant. " +
  "The assistant gives helpful, detailed, and polite answers to the user's questions.";

/** White space as Python has it. */
const SPACE = `[${WHITE_SPACE}\\x1c-\\x1f]`;
const SPACES = new RegExp(`${SPACE}{2,}`, "gu");
const EDGE = new RegExp(SPACE, "u");

/**
 * A caption as the published scores have it: without what stands between fences of three backticks, an open fence with
 * all that follows; tags become blanks; no backticks; white space of several characters is one blank.
 */
export function cleanVqaCaption(text: string): string {
  checkText("text", text);
  const outside = text.replace(/```.*?```/gs, "");
  const fence = outside.indexOf("```");
  const closed = fence < 0 ? outside : outside.slice(0, fence);
  // A tag needs its end: behind the last one nothing is searched, so that no text takes long.
  const end = closed.lastIndexOf(">") + 1;
  const untagged = closed.slice(0, end).replace(/<[^>]+>/g, " ") + closed.slice(end);
  return strip(untagged.replaceAll("`", "").replace(SPACES, " "));
}

function strip(text: string): string {
  let start = 0;
  let end = text.length;
  while (start < end && EDGE.test(text[start]!)) start++;
  while (end > start && EDGE.test(text[end - 1]!)) end--;
  return text.slice(start, end);
}

/** The ids of the question about a caption; both parts around {@link IMAGE_ID} have their own end token. */
export function vqaRow(tokenizer: Tokenizer, caption: string): number[] {
  return wholeRow(tokenizer, caption).slice(0, MAX_IDS);
}

/** Whether the end of the question about a caption is cut off. */
export function vqaTruncates(tokenizer: Tokenizer, caption: string): boolean {
  return wholeRow(tokenizer, caption).length > MAX_IDS;
}

function wholeRow(tokenizer: Tokenizer, caption: string): number[] {
  const question = `Does this figure show "${cleanVqaCaption(caption)}"? Please answer yes or no.`;
  const before = tokenizer.encode(`${SYSTEM} USER: `);
  const after = tokenizer.encode(`\n${question} ASSISTANT: `);
  return [...before, IMAGE_ID, ...after];
}

/** The ids of the answer whose probability is the score, with its end token. */
export function vqaLabels(tokenizer: Tokenizer): number[] {
  return tokenizer.encode(ANSWER);
}
