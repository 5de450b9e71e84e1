/** Schemas of routes: how bodies are checked that the routes check themselves, and how schemas are described. */
import type { FastifySchemaCompiler } from "fastify";
import { createJsonSchemaTransform, type jsonSchemaTransform, validatorCompiler } from "fastify-type-provider-zod";
import type { z } from "zod";
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
