/** Schemas of routes: how bodies are checked that the routes check themselves, and how schemas are described. */
import type { FastifySchemaCompiler } from "fastify";
import { createJsonSchemaTransform, type jsonSchemaTransform, validatorCompiler } from "fastify-type-provider-zod";
import { z } from "zod";
import { declarationOf, isDeclared, wordsOf } from "../../options.js";

/**
 * Checks everything but the body, whose schema then stands in the description of the routes alone: the routes' own
 * errors say field, expected and received.
 */
export const checkedByRoute: FastifySchemaCompiler<unknown> = (route) =>
  route.httpPart === "body" ? (value: unknown) => ({ value }) : validatorCompiler(route as never);

/** Schemas as OpenAPI has them, with the help of declared options. */
export const schemaTransform: typeof jsonSchemaTransform = createJsonSchemaTransform({
  zodToJsonConfig: {
    override: ({ zodSchema, jsonSchema }) => {
      const schema = zodSchema as unknown as z.ZodType;
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

/** The parameters of a route whose path ends in an id. */
export const idParams = z.object({ id: z.string().max(64) });
