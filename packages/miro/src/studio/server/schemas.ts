/** Schemas of routes: how requests are checked, and how schemas are described. */
import type { FastifySchemaCompiler } from "fastify";
import { createJsonSchemaTransform, type jsonSchemaTransform } from "fastify-type-provider-zod";
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

/** Schemas as OpenAPI has them, with the help of declared options. */
export const schemaTransform: typeof jsonSchemaTransform = createJsonSchemaTransform({
  zodToJsonConfig: {
    override: ({ zodSchema, jsonSchema }) => {
      const schema = zodSchema as unknown as z.ZodType;
      // In this form an answer without a body is described as one.
      if (schema === nothing) {
        for (const key of ["nullable", "enum"]) delete jsonSchema[key];
        jsonSchema.type = "null";
      }
      if (isDeclared(schema)) jsonSchema.description = wordsOf(declarationOf(schema).help);
    },
  },
});

/** The body of a refusal. */
export const errorBody = z.object({
  error: z.object({
    message: z.string(),
    field: z.string().optional(),
    expected: z.string().optional(),
    received: z.unknown().optional(),
  }),
});

/** The answer of a route that has nothing to tell. */
export const nothing = z.null().describe("Done");

/** The parameters of a route whose path ends in an id. */
export const idParams = z.object({ id: z.string().max(64) });
