/**
 * `GET /docs`: a plain page of all routes, made of the same description as `/openapi.json`; it asks for nothing else.
 */
import type { FastifyInstance } from "fastify";

/** What is read of a JSON schema. */
interface Schema {
  type?: string | string[];
  enum?: unknown[];
  const?: unknown;
  description?: string;
  default?: unknown;
  properties?: Record<string, Schema>;
  required?: string[];
  items?: Schema;
  anyOf?: Schema[];
  format?: string;
  minimum?: number;
  maximum?: number;
}

interface Operation {
  summary?: string;
  description?: string;
  parameters?: { name: string; in: string; required?: boolean; schema?: Schema }[];
  requestBody?: { content: Record<string, { schema?: Schema }> };
}

/** A description of routes, as OpenAPI has it. */
export interface Description {
  info?: { title?: string; version?: string };
  paths?: Record<string, Record<string, unknown> | undefined>;
}

const STYLE = `
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 62rem; margin: 0 auto; padding: 1rem; }
h2 { margin: 2.5rem 0 0.25rem; font-size: 1.05rem; }
code { font-family: ui-monospace, monospace; }
code, td { overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; }
th, td { border-bottom: 1px solid #8886; padding: 0.25rem 0.5rem; text-align: left; vertical-align: top; }
td:nth-child(-n + 2) { white-space: nowrap; }
td:first-child { font-weight: 600; }
@media (max-width: 44rem) {
  tr { display: flex; flex-wrap: wrap; column-gap: 0.75rem; padding: 0.5rem 0; border-bottom: 1px solid #8886; }
  tr:first-child { display: none; }
  td { padding: 0; border: 0; }
  td:nth-child(-n + 2) { white-space: normal; }
  td:last-child { flex-basis: 100%; }
}
`;

/** Adds the page and its style. */
export function addDocsPage(app: FastifyInstance): void {
  app.get("/docs", { schema: { hide: true } }, async (_, reply) =>
    reply.type("text/html; charset=utf-8").send(docsPage(app.swagger() as Description)),
  );
  app.get("/docs/style.css", { schema: { hide: true } }, async (_, reply) =>
    reply.type("text/css; charset=utf-8").send(STYLE),
  );
}

/** The page of a description. What it names is relative to it: a proxy may serve it below a path of its own. */
function docsPage({ info, paths = {} }: Description): string {
  const title = escaped(`${info?.title ?? ""} ${info?.version ?? ""}`);
  const routes = Object.entries(paths).flatMap(([path, methods = {}]) =>
    Object.entries(methods).map(([method, operation]) => route(method, path, operation as Operation)),
  );
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>${title}</title>
<link rel="icon" href="favicon.svg" type="image/svg+xml">
<link rel="stylesheet" href="docs/style.css">
</head>
<body>
<main>
<h1>${title}</h1>
<p>The same as <a href="openapi.json">openapi.json</a>, for people.</p>
${routes.join("\n")}
</main>
</body>
</html>
`;
}

function route(
  method: string,
  path: string,
  { summary, description, parameters = [], requestBody }: Operation,
): string {
  const rows = parameters.map(({ name, in: place, required, schema }) => row(name, place, required, schema));
  for (const { schema } of Object.values(requestBody?.content ?? {}).slice(0, 1))
    for (const [name, of] of Object.entries(schema?.properties ?? {}))
      rows.push(row(name, "body", schema?.required?.includes(name), of));
  const table =
    rows.length > 0
      ? `<table><tr><th>name</th><th>in</th><th>type</th><th>what</th></tr>${rows.join("\n")}</table>`
      : "";
  return `<h2><code>${escaped(method.toUpperCase())} ${escaped(path)}</code></h2>
<p>${escaped([summary, description].filter(Boolean).join(". "))}</p>
${table}`;
}

function row(name: string, place: string, required = false, schema: Schema = {}): string {
  const otherwise = schema.default === undefined ? [] : [`default: ${JSON.stringify(schema.default)}`];
  const what = [schema.description, ...otherwise].filter(Boolean).join("; ");
  const cells = [`${name}${required ? " (required)" : ""}`, place, typeOf(schema), what];
  return `<tr>${cells.map((cell) => `<td>${escaped(cell)}</td>`).join("")}</tr>`;
}

function typeOf({ type, enum: values, const: only, anyOf, items, format, minimum, maximum }: Schema): string {
  if (format === "binary") return "file";
  if (only !== undefined) return JSON.stringify(only);
  if (values) return values.map((value) => JSON.stringify(value)).join(" | ");
  if (anyOf) return [...new Set(anyOf.map(typeOf))].join(" | ");
  if (items) return `list of ${typeOf(items)}`;
  const range = [minimum, maximum].map((end) => (end === undefined || Math.abs(end) > 2 ** 52 ? "" : `${end}`));
  return `${[type ?? "any"].flat().join(" | ")}${range.some(Boolean) ? ` ${range[0]}…${range[1]}` : ""}`;
}

function escaped(text: string): string {
  const names: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
  return text.replace(/[&<>"']/g, (character) => names[character]!);
}
