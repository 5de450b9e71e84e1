/** Reading the bodies of requests: JSON, forms with files, files alone. */
import type { FastifyRequest } from "fastify";
import { invalid, MiroError } from "../../errors.js";
import { message } from "../../message.js";
import type { Uploads } from "./bodies.js";
import { MAX_UPLOAD_BYTES } from "./limits.js";

/** Types of bodies that are files. */
export const FILE_TYPES = ["image/png", "image/webp", "image/jpeg", "application/octet-stream"];

/** The parts of a form, by name; names of lists (`image[]`) stand without their brackets for files. */
export interface Form {
  fields: Map<string, string[]>;
  files: Map<string, Uint8Array[]>;
}

/** A body that is not read: too large (413), or of another type (415). */
export class RefusedBody extends MiroError {
  constructor(
    message: string,
    readonly statusCode: 413 | 415,
  ) {
    super(message);
  }
}

/** The JSON and the files of a request. */
export async function readRequest(request: FastifyRequest): Promise<{ body: unknown; uploads: Uploads }> {
  if (!request.isMultipart()) return { body: request.body, uploads: {} };
  const { fields, files } = await readForm(request);
  const text = fields.get("request")?.at(-1);
  if (text === undefined) throw invalid("request", "a part with the JSON of the job", message`none`);
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    throw invalid("request", "JSON", text);
  }
  return { body, uploads: { image: files.get("image")?.[0], mask: files.get("mask")?.[0] } };
}

/**
 * The parts of a form; every file is read whole.
 * @throws RefusedBody where they are too large together; InvalidInputError for what is no form
 */
export async function readForm(request: FastifyRequest): Promise<Form> {
  try {
    return await partsOf(request);
  } catch (error) {
    if ((error as { code?: string }).code === "FST_REQ_FILE_TOO_LARGE")
      throw new RefusedBody(`a file of the form holds more than ${MAX_UPLOAD_BYTES / 2 ** 20} MiB`, 413);
    // What the parser says of a form that is damaged carries no status.
    if (error instanceof MiroError || (error as { statusCode?: number }).statusCode !== undefined) throw error;
    throw invalid("body", "multipart/form-data", (error as Error).message);
  }
}

async function partsOf(request: FastifyRequest): Promise<Form> {
  const form: Form = { fields: new Map(), files: new Map() };
  let size = 0;
  for await (const part of request.parts()) {
    if (part.type === "file") {
      const bytes = new Uint8Array(await part.toBuffer());
      size += bytes.length;
      add(form.files, part.fieldname.replace(/\[\d*\]$/, ""), bytes);
    } else {
      if (part.valueTruncated || part.fieldnameTruncated)
        throw new RefusedBody("a field of the form is too large", 413);
      const text = String(part.value);
      size += text.length;
      add(form.fields, part.fieldname, text);
    }
    if (size > MAX_UPLOAD_BYTES)
      throw new RefusedBody(`the parts of the form hold more than ${MAX_UPLOAD_BYTES / 2 ** 20} MiB`, 413);
  }
  return form;
}

function add<T>(map: Map<string, T[]>, name: string, value: T): void {
  map.set(name, [...(map.get(name) ?? []), value]);
}

export async function readFileBody(request: FastifyRequest): Promise<Buffer> {
  if (Buffer.isBuffer(request.body)) return request.body;
  if (!request.isMultipart()) throw invalid("body", "a picture file, or a form with one", message`another`);
  const { files } = await readForm(request);
  const first = [...files.values()][0]?.[0];
  if (first === undefined) throw invalid("image", "a picture file", message`none`);
  return Buffer.from(first);
}

/** Fields of forms that are texts whatever they look like. */
const TEXTS = new Set(["prompt", "negativePrompt", "model", "user"]);

/**
 * The fields of a form as the JSON object that they stand for: `a[b]=0.5` is `{ a: { b: 0.5 } }`, `a[]=1` a list.
 * Numbers, true and false, objects and lists are read as JSON, other values are texts.
 */
export function formToJson({ fields }: Form): Record<string, unknown> {
  const body: Record<string, unknown> = {};
  for (const [name, texts] of fields) {
    const [, key = "", member] = /^([A-Za-z]\w*)(?:\[(\w*)\])?$/.exec(name) ?? [];
    if (key === "")
      throw invalid(name.slice(0, 100), "a field such as steps or rewardTargets[sharpness]", message`another`);
    const values = texts.map((text) => (TEXTS.has(key) ? text : readField(text)));
    if (member === undefined) body[key] = values.at(-1);
    else if (member === "") body[key] = values;
    else body[key] = { ...(Object(body[key]) === body[key] ? (body[key] as object) : {}), [member]: values.at(-1) };
  }
  return body;
}

function readField(text: string): unknown {
  if (!/^(?:true|false|null|-?\d[\d.eE+-]*|[[{].*[\]}])$/s.test(text)) return text;
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
