/** Schemas of routes: how requests are checked, and how schemas are described. */
import type { FastifySchemaCompiler } from "fastify";
import {
  createJsonSchemaTransform,
  createJsonSchemaTransformObject,
  type jsonSchemaTransform,
  type jsonSchemaTransformObject,
} from "fastify-type-provider-zod";
import { z } from "zod";
import { invalid } from "../../errors.js";
import { expectation } from "../../expectations.js";
import { message } from "../../message.js";
import { declarationOf, isDeclared, wordsOf } from "../../options.js";

/** Checks a part of a request. */
export const checkedBySchema: FastifySchemaCompiler<unknown> = (route) => (value) => {
  const result = (route.schema as z.ZodType).safeParse(value, { error: expectation });
  if (result.success) return { value: result.data };
  const issue = result.error.issues[0]!;
  const isUnknown = issue.code === "unrecognized_keys";
  const path = [...issue.path, ...(isUnknown ? [issue.keys[0]!] : [])].map(String);
  const expected = isUnknown ? "a field that is known" : issue.message.replace(/^expected /, "");
  const received = path.reduce<unknown>((part, key) => (part as Record<string, unknown> | null)?.[key], value);
  return { error: invalid(path.join(".") || "body", expected, isUnknown ? message`an unknown one` : received) };
};

/**
 * Checks everything but the body, whose schema then stands in the description of the routes alone: the routes' own
 * errors say field, expected and received.
 */
export const checkedByRoute: FastifySchemaCompiler<unknown> = (route) =>
  route.httpPart === "body" ? (value: unknown) => ({ value }) : checkedBySchema(route);

/** The schemas that the description names, apart from those of a program that describes routes of its own. */
const names = z.registry<{ id: string }>();

/** Gives a schema a name in the description. */
export function named<T extends z.ZodType>(id: string, schema: T): T {
  names.add(schema, { id });
  return schema;
}

/** Bodies of a request or of an answer by their type. */
export interface Contents {
  description?: string;
  content: Readonly<Record<string, { schema: z.ZodType }>>;
}

/** The bytes of a file. */
export const file = z.any().meta({ type: "string", format: "binary" });

/** Several types of a body. @param description of an answer */
export function contents(types: Readonly<Record<string, z.ZodType>>, description?: string): Contents {
  const content = Object.fromEntries(Object.entries(types).map(([type, schema]) => [type, { schema }]));
  return { content, ...(description !== undefined && { description }) };
}

/** Whether a body may be a form. */
export function takesForms(body: object): boolean {
  return "content" in body && "multipart/form-data" in (body as Contents).content;
}

/** The body of a refusal. */
export const errorBody = named(
  "Error",
  z.object({
    error: z.object({
      message: z.string(),
      field: z.string().optional(),
      expected: z.string().optional(),
      received: z.unknown().optional(),
    }),
  }),
);

/** The body of a refusal in the form of OpenAI. */
export const openaiError = named(
  "OpenAIError",
  z.object({
    error: z.object({
      message: z.string(),
      type: z.string(),
      param: z.string().nullable(),
      code: z.string().nullable(),
    }),
  }),
);

/** The body of a refusal in the form of the web UI. */
export const webuiError = named(
  "WebUIError",
  z.object({
    error: z.string(),
    detail: z.union([z.string(), z.array(z.object({ loc: z.array(z.string()), msg: z.string(), type: z.string() }))]),
    body: z.string(),
    errors: z.string(),
  }),
);

/** The families of routes, by the beginning of their paths. */
const FAMILIES = [
  { begins: "/v1/", tag: "OpenAI", refusal: openaiError },
  { begins: "/sdapi/", tag: "Stable Diffusion WebUI", refusal: webuiError },
  { begins: "/", tag: "MIRO", refusal: errorBody },
];

const config = {
  schemaRegistry: names,
  zodToJsonConfig: {
    override: ({ zodSchema, jsonSchema }: { zodSchema: unknown; jsonSchema: object }) => {
      const schema = zodSchema as z.ZodType;
      Object.assign(jsonSchema, schema.meta());
      if (isDeclared(schema)) Object.assign(jsonSchema, { description: wordsOf(declarationOf(schema).help) });
    },
  },
};
const describeSchemas = createJsonSchemaTransform(config);
const describeNames = createJsonSchemaTransformObject(config);

/** Routes as OpenAPI has them, with the help of declared options, and with the refusals that every route may give. */
export const schemaTransform: typeof jsonSchemaTransform = (document) => {
  const { schema = {}, url, route } = document;
  const { tag, refusal } = FAMILIES.find(({ begins }) => url.startsWith(begins))!;
  const { body, response, ...others } = schema as { body?: z.ZodType | Contents; response?: object };
  const describe = (given: object) => describeSchemas({ ...document, schema: given }).schema as Record<string, unknown>;
  const types = body && "content" in body ? Object.entries(body.content) : null;
  const described = describe({
    ...others,
    tags: [tag],
    operationId: [String(route.method).toLowerCase(), ...(url.match(/[a-z\d]+/gi) ?? [])]
      .map((word, i) => (i === 0 ? word : word.charAt(0).toUpperCase() + word.slice(1)))
      .join(""),
    ...(types === null && body && { body }),
    response: { ...response, default: refusal.describe("A refusal, or an error in the server") },
  });
  if (types)
    described.body = {
      content: Object.fromEntries(types.map(([type, one]) => [type, { schema: describe({ body: one.schema }).body }])),
    };
  return { schema: described, url };
};

/** The whole description; of what answers and requests could share, no request has anything. */
export const documentTransform: typeof jsonSchemaTransformObject = (document) => {
  const whole = describeNames(document);
  const schemas = "components" in whole ? whole.components?.schemas : undefined;
  for (const name of Object.keys(schemas ?? {})) if (name.endsWith("Input")) delete schemas![name];
  return whole;
};

/** The answer of a route that has nothing to tell. */
export const nothing = z.null().describe("Done");

/** The parameters of a route whose path ends in an id. */
export const idParams = z.object({ id: z.string().max(64) });

/** A number of a question, which is text; an empty one is none. */
export function queried<T extends z.ZodType>(number: T) {
  return z.preprocess((text) => (text === "" ? undefined : text), number);
}
