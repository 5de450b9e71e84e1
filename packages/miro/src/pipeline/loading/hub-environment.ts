/**
 * Where the Hub is, where its cache lies and who asks: the environment variables of Python's `huggingface_hub`, with
 * values written as there (`~`, `$VAR`, a slash at the end, the spellings of "yes"). `fixtures/hub-environment.json`
 * holds what Python makes of them. A variable that is set to nothing counts as not set.
 */
import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { InvalidInputError, invalid, MiroError, systemReason } from "../../errors.js";
import { trimEnd } from "../../files/trim.js";

/** Where the Hub is unless `HF_ENDPOINT` names another. */
export const PUBLIC_ENDPOINT = "https://huggingface.co";

/** The Hub's address, without a slash at the end, and without the name and password that may stand in it. */
export function hubEndpoint(): string {
  const url = endpointUrl();
  url.username = url.password = "";
  return trimEnd(url.href, (c) => c === "/");
}

/** The name and password in `HF_ENDPOINT`, as a header. */
function endpointCredentials(): string | undefined {
  const { username, password } = endpointUrl();
  if (username === "" && password === "") return undefined;
  return `Basic ${Buffer.from(`${decoded(username)}:${decoded(password)}`).toString("base64")}`;
}

function endpointUrl(): URL {
  const text = process.env.HF_ENDPOINT || PUBLIC_ENDPOINT;
  const url =
    /^https?:\/\/[^\s/]/i.test(text) && !/[\s\p{Cc}]/u.test(text) && URL.canParse(text) ? new URL(text) : null;
  if (url === null || url.search !== "" || url.hash !== "") {
    throw invalid("HF_ENDPOINT", `an address such as ${PUBLIC_ENDPOINT}`, withoutCredentials(text));
  }
  return url;
}

/** An address as it may be shown. */
export function withoutCredentials(address: string): string {
  return address.replace(/^([a-z\d+.-]*:\/\/)?[^/]*@/i, "$1");
}

/** Percent-encoded text as it was meant; what is no such encoding stays. */
export function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** The variable that says that the Hub must not be asked, or null. */
export function hubOffline(): "HF_HUB_OFFLINE" | "TRANSFORMERS_OFFLINE" | null {
  const name = process.env.HF_HUB_OFFLINE ? "HF_HUB_OFFLINE" : "TRANSFORMERS_OFFLINE";
  return isTrue(name) ? name : null;
}

/** Whether files of a snapshot must be files of their own, without symbolic links. */
export function symlinksDisabled(): boolean {
  return isTrue("HF_HUB_DISABLE_SYMLINKS");
}

function isTrue(name: string): boolean {
  return /^(1|on|yes|true)$/i.test(process.env[name] ?? "");
}

/** How long the Hub may take to say what it has, in milliseconds. */
export function metadataTimeoutMs(): number {
  return seconds("HF_HUB_ETAG_TIMEOUT");
}

/** How long a download may bring nothing, in milliseconds. */
export function downloadTimeoutMs(): number {
  return seconds("HF_HUB_DOWNLOAD_TIMEOUT");
}

function seconds(name: string): number {
  const text = process.env[name] || "10";
  const value = /^\s*[+]?\d+(_\d+)*\s*$/.test(text) ? Number(text.replaceAll("_", "")) : Number.NaN;
  // A timer takes 31 bits of milliseconds.
  if (Number.isNaN(value)) throw invalid(name, "a whole number of seconds", text);
  return Math.min((value || 10) * 1000, 2 ** 31 - 1);
}

function hubHome(): string {
  const { HF_HOME, XDG_CACHE_HOME } = process.env;
  return expanded(HF_HOME || join(XDG_CACHE_HOME || join(home(), ".cache"), "huggingface"));
}

/** The cache folder that Python's `huggingface_hub` uses. */
export function hubCache(): string {
  const { HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE } = process.env;
  return expanded(HF_HUB_CACHE || HUGGINGFACE_HUB_CACHE || join(hubHome(), "hub"));
}

/** The folder for what libraries keep there beside repositories. */
export function hubAssets(): string {
  return expanded(process.env.HF_ASSETS_CACHE || join(hubHome(), "assets"));
}

function tokenPath(): string {
  return expanded(process.env.HF_TOKEN_PATH || join(hubHome(), "token"));
}

/** `~`, `~user`, `$VAR` and `${VAR}` in a path, in this order; unknown names stay as they are. */
function expanded(path: string): string {
  const user = /^~[^/]*/.exec(path)?.[0];
  const folder = user === undefined ? undefined : user === "~" ? home() : homeOf(user.slice(1));
  const rooted = folder === undefined ? path : trimEnd(folder, (c) => c === "/") + path.slice(user!.length);
  return (rooted || "/").replace(
    /\$(?:(\w+)|\{([^}]*)\})/g,
    (all, plain, braced) => process.env[plain ?? braced] ?? all,
  );
}

function home(): string {
  return process.env.HOME || homedir();
}

function homeOf(user: string): string | undefined {
  try {
    const lines = readFileSync("/etc/passwd", "utf8").split("\n");
    return lines.map((line) => line.split(":")).find(([name]) => name === user)?.[5];
  } catch {
    return undefined;
  }
}

/** Servers that the token is sent to, by their origins: the Hub as it is asked, and as it may lead to itself. */
export function hubOrigins(): ReadonlySet<string> {
  const { protocol, host, port, origin } = endpointUrl();
  // A server that leads from http to https remains the same one.
  const secure = protocol === "http:" && port === "" ? [`https://${host}`] : [];
  return new Set([origin, ...secure, PUBLIC_ENDPOINT, "https://hf.co"]);
}

/**
 * How a request says who asks: the token of the environment or of the stored login, or the name and password in
 * `HF_ENDPOINT`, which take its place as in Python, but at that host alone.
 *
 * @param url what is asked for; by default at the endpoint
 * @throws InvalidInputError when the token cannot be one; it is never shown
 */
export function hubAuthorization(url = endpointUrl()): string | undefined {
  const credentials = url.hostname === endpointUrl().hostname ? endpointCredentials() : undefined;
  if (credentials !== undefined) return credentials;
  const token = hubToken();
  return token === undefined ? undefined : `Bearer ${token}`;
}

function hubToken(): string | undefined {
  if (isTrue("HF_HUB_DISABLE_IMPLICIT_TOKEN")) return undefined;
  const name = process.env.HF_TOKEN ? "HF_TOKEN" : "HUGGING_FACE_HUB_TOKEN";
  if (process.env[name]) return cleaned(process.env[name], name) ?? storedToken();
  return storedToken();
}

/** What `hf auth login` left. */
function storedToken(): string | undefined {
  const path = tokenPath();
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw new MiroError(
      `${path}: the stored login cannot be read: ${systemReason(error)}; set HF_TOKEN_PATH to another file, or HF_HUB_DISABLE_IMPLICIT_TOKEN=1 to send no token`,
      { cause: error },
    );
  }
  return cleaned(bytes.toString("utf8"), path);
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: Python strips these four as white space
const SPACE = /[\s\x1c-\x1f\x85]/;

/** Without line ends and space around it; undefined when nothing is left. */
function cleaned(text: string, where: string): string | undefined {
  const line = text.replace(/[\r\n]/g, "");
  const start = Array.from(line).findIndex((character) => !SPACE.test(character));
  const token = trimEnd(start < 0 ? "" : line.slice(start), (character) => SPACE.test(character));
  const odd = [...token].findIndex((character) => !/^[\x21-\x7e]$/.test(character));
  if (odd === -1) return token || undefined;
  const character = [...token][odd]!;
  const code = character.codePointAt(0)!;
  const what = /\s/.test(character)
    ? "white space"
    : code < 0x80
      ? "a control character"
      : "a character outside of ASCII";
  throw new InvalidInputError(
    `${where}: expected an access token, letters and digits such as hf_…, found ${what} at character ${odd + 1} of ${[...token].length}; copy the token again from ${PUBLIC_ENDPOINT}/settings/tokens`,
  );
}

/** What `HF_HUB_USER_AGENT_ORIGIN` adds to the name of the program. */
export function userAgent(): string {
  const origin = process.env.HF_HUB_USER_AGENT_ORIGIN;
  return origin && /^[\x20-\x7e]+$/.test(origin) ? `miro-t2i; origin/${origin}` : "miro-t2i";
}
