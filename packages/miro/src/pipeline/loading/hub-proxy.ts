/**
 * Which way a request takes: `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy`, in small or capital letters, by
 * the rules of Python's `urllib.request.getproxies` and of the HTTP client that `huggingface_hub` uses.
 * `fixtures/hub-proxy.json` holds what Python makes of them.
 */
import { BlockList, isIP, isIPv4, isIPv6 } from "node:net";
import type { Agent, Dispatcher } from "undici";
import { invalid } from "../../errors.js";
import { decoded, withoutCredentials } from "./hub-environment.js";

/** A proxy, and the variable that names it. */
export interface Proxy {
  address: URL;
  variable: string;
}

type Environment = Readonly<Record<string, string | undefined>>;

/**
 * The proxy for an address, or null for none.
 *
 * @throws InvalidInputError naming the variable, when its value is no address of a proxy that is known here
 */
export function proxyFor(url: URL, environment: Environment = process.env): Proxy | null {
  const settings = proxySettings(environment);
  const exceptions = (settings.get("no")?.value ?? "").split(",").map((entry) => entry.trim());
  if (exceptions.includes("*") || exceptions.some((entry) => entry !== "" && excludes(entry, url))) return null;
  const setting = settings.get(url.protocol.slice(0, -1)) ?? settings.get("all");
  if (setting === undefined) return null;
  const { value, variable } = setting;
  const text = value.includes("://") ? value : `http://${value}`;
  const address = URL.canParse(text) ? new URL(text) : null;
  if (address === null || !/^https?:$/.test(address.protocol) || address.hostname === "") {
    const what = "a proxy such as http://proxy.example:3128 (SOCKS is not supported)";
    throw invalid(variable, what, withoutCredentials(value));
  }
  return { address, variable };
}

/** The values by scheme. A name in small letters wins, also when it is set to nothing. */
function proxySettings(environment: Environment): Map<string, { value: string; variable: string }> {
  const names = Object.keys(environment).filter((name) => /._proxy$/i.test(name));
  const settings = new Map<string, { value: string; variable: string }>();
  const scheme = (name: string) => name.slice(0, -"_proxy".length).toLowerCase();
  for (const name of names) {
    if (environment[name]) settings.set(scheme(name), { value: environment[name], variable: name });
  }
  // In a CGI script HTTP_PROXY is what the visitor's header `Proxy:` says.
  if (environment.REQUEST_METHOD !== undefined) settings.delete("http");
  for (const name of names.filter((name) => name.endsWith("_proxy"))) {
    if (environment[name]) settings.set(scheme(name), { value: environment[name], variable: name });
    else settings.delete(scheme(name));
  }
  return settings;
}

/**
 * Whether an entry of `no_proxy` means this address: a host, a domain, a network, or one of them with scheme or port.
 */
function excludes(entry: string, url: URL): boolean {
  const host = url.hostname.replace(/^\[|\]$/g, "");
  const [address = "", prefix, ...more] = entry.split("/");
  if (isIP(address) && more.length === 0) {
    if (prefix === undefined) return sameAddress(address, host);
    return /^\d{1,3}$/.test(prefix) && inNetwork(host, address, Number(prefix));
  }
  const [scheme, rest] = entry.includes("://") ? entry.split("://", 2) : ["all", entry];
  const match = /^(\[[^\]]*\]|[^:/]*)(?::(\d+))?$/.exec(rest!);
  if (match === null || (scheme !== "all" && scheme!.toLowerCase() !== url.protocol.slice(0, -1))) return false;
  // The standard port of a scheme counts as none, as in Python.
  if (match[2] !== undefined && match[2] !== url.port) return false;
  const name = match[1]!.replace(/^\[|\]$/g, "").toLowerCase();
  if (name === "" || name === "*") return true;
  if (isIPv6(name)) return sameAddress(name, host);
  const [, wildcard, domain] = /^(\*?)(\.?.*)$/.exec(name)!;
  if (wildcard === "*" && !domain!.startsWith(".") && !entry.includes("://")) return false;
  if (domain!.startsWith(".")) return host.length > domain!.length && host.endsWith(domain!);
  if (host === domain) return true;
  // `localhost` and an entry with a scheme mean that host alone, another name its domain too.
  const alone = wildcard === "" && (entry.includes("://") || name === "localhost");
  return !alone && host.endsWith(`.${domain}`);
}

function sameAddress(a: string, b: string): boolean {
  return isIP(b) !== 0 && inNetwork(b, a, isIPv4(a) ? 32 : 128);
}

function inNetwork(host: string, network: string, prefix: number): boolean {
  const family = isIPv4(network) ? "ipv4" : "ipv6";
  if (isIP(host) === 0 || (isIPv4(host) ? "ipv4" : "ipv6") !== family) return false;
  if (prefix > (family === "ipv4" ? 32 : 128)) return false;
  const list = new BlockList();
  list.addSubnet(network, prefix, family);
  return list.check(host, family);
}

/**
 * Connections of one piece of work: each request goes straight or through the proxy that the environment names for it.
 * @param limits of waiting; by default the requests limit it themselves
 */
export async function openConnections(
  limits: Pick<Agent.Options, "headersTimeout" | "bodyTimeout"> = { headersTimeout: 0, bodyTimeout: 0 },
): Promise<Dispatcher> {
  const { Agent, Dispatcher, ProxyAgent } = await import("undici");
  class Connections extends Dispatcher {
    readonly #ways = new Map<string, Dispatcher>();

    override dispatch(options: Dispatcher.DispatchOptions, handler: Dispatcher.DispatchHandlers): boolean {
      const proxy = proxyFor(new URL(String(options.origin)));
      const key = proxy?.address.href ?? "";
      const way = this.#ways.get(key) ?? (proxy ? through(proxy.address) : new Agent(limits));
      this.#ways.set(key, way);
      return way.dispatch(options, handler);
    }

    override async close(): Promise<void> {
      await Promise.all([...this.#ways.values()].map((way) => way.close()));
    }

    override async destroy(): Promise<void> {
      await Promise.all([...this.#ways.values()].map((way) => way.destroy()));
    }
  }
  const through = ({ origin, username, password }: URL) => {
    const credentials = `${decoded(username)}:${decoded(password)}`;
    const token = credentials === ":" ? undefined : `Basic ${Buffer.from(credentials).toString("base64")}`;
    return new ProxyAgent({ ...limits, uri: origin, proxyTunnel: false, ...(token && { token }) });
  };
  return new Connections();
}
