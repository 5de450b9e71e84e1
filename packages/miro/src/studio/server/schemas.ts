/** Schemas of bodies that the routes check themselves, so that their errors say field, expected and received. */
import type { FastifySchemaCompiler } from "fastify";
import { validatorCompiler } from "fastify-type-provider-zod";

/** Checks everything but the body, whose schema then stands in the description of the routes alone. */
export const checkedByRoute: FastifySchemaCompiler<unknown> = (route) =>
  route.httpPart === "body" ? (value: unknown) => ({ value }) : validatorCompiler(route as never);
