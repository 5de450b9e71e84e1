import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, normalize } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { MiroError } from "../../errors.js";
import {
  downloadTimeoutMs,
  hubAuthorization,
  hubCache,
  hubEndpoint,
  hubOffline,
  hubOrigins,
  metadataTimeoutMs,
  symlinksDisabled,
} from "./hub-environment.js";
import { proxyFor } from "./hub-proxy.js";

interface Recorded<T> {
  cases: { set: Record<string, string>; python: T }[];
}
const recorded = <T>(name: string) =>
  (JSON.parse(readFileSync(new URL(`./fixtures/${name}.json`, import.meta.url), "utf8")) as Recorded<T>).cases;

/** Every variable that has to do with the Hub. */
const NAMES = Object.keys(process.env).filter((name) =>
  /^(HF_|HUGGING|TRANSFORMERS_OFFLINE|XDG_CACHE_HOME)/.test(name),
);
let home: string;
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), "miro-home-"));
  for (const name of NAMES) vi.stubEnv(name, undefined);
  vi.stubEnv("HOME", home);
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(home, { recursive: true, force: true });
});

type Answers = Record<string, unknown> & { error?: true };

describe("the environment says what it says to Python", () => {
  it.each(recorded<Answers>("hub-environment"))("%j", ({ set: { file, content, ...variables }, python }) => {
    if (file !== undefined) {
      mkdirSync(dirname(join(home, file)), { recursive: true });
      writeFileSync(join(home, file), content!);
    }
    for (const [name, value] of Object.entries(variables)) vi.stubEnv(name, value);
    const read = (answer: () => unknown) => {
      try {
        return answer() ?? null;
      } catch (error) {
        expect(error).toBeInstanceOf(MiroError);
        // An error names the place and never shows a token.
        expect((error as Error).message).toMatch(/^(HF_\w+|\/.*\/token): /);
        for (const value of [variables.HF_TOKEN, content])
          if (value) expect((error as Error).message).not.toContain(value);
        return { error: true };
      }
    };
    const ours = {
      cache: read(() =>
        normalize(hubCache())
          .replace(home, "{home}")
          .replace(/(.)\/$/, "$1"),
      ),
      endpoint: read(hubEndpoint),
      offline: read(() => hubOffline() !== null),
      authorization: read(hubAuthorization),
      metadataTimeout: read(() => metadataTimeoutMs() / 1000),
      downloadTimeout: read(() => downloadTimeoutMs() / 1000),
      symlinksDisabled: read(symlinksDisabled),
    };
    if (python.error) expect([ours.metadataTimeout, ours.downloadTimeout]).toContainEqual({ error: true });
    else expect(ours).toEqual(python);
  });

  it("but a variable that is set to nothing counts as not set, where Python takes the current folder or no host", () => {
    for (const name of ["HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME", "HF_ENDPOINT"]) {
      vi.stubEnv(name, "");
    }
    expect(hubCache()).toBe(join(home, ".cache", "huggingface", "hub"));
    expect(hubEndpoint()).toBe("https://huggingface.co");
  });

  it("and white space inside of a token is an error, where Python lets the Hub refuse it", () => {
    vi.stubEnv("HF_TOKEN", "hf_abc def");
    expect(hubAuthorization).toThrow(
      /^HF_TOKEN: expected an access token, .* found white space at character 7 of 10; /,
    );
    expect(hubAuthorization).not.toThrow(/abc|def/);
  });
});

describe("an address in HF_ENDPOINT", () => {
  it.each([
    "hf-mirror.com",
    "ftp://mirror",
    "https://",
    "https://a b",
    "https://mirror\n",
    "https://m/?a",
    "https://m/#a",
  ])("%j is refused with an example", (address) => {
    vi.stubEnv("HF_ENDPOINT", address);
    expect(hubEndpoint).toThrow(/^HF_ENDPOINT: expected an address such as https:\/\/huggingface\.co, received /);
  });

  it("may hold name and password, which are sent and never shown", () => {
    vi.stubEnv("HF_ENDPOINT", "https://me:p%40ss@mirror.example/hf/");
    vi.stubEnv("HF_TOKEN", "hf_abc");
    expect(hubEndpoint()).toBe("https://mirror.example/hf");
    expect(hubAuthorization()).toBe(`Basic ${Buffer.from("me:p@ss").toString("base64")}`);
    // A mirror that leads to the Hub tells it nothing.
    for (const known of ["https://huggingface.co", "https://hf.co"]) {
      expect(hubOrigins().has(known)).toBe(true);
      expect(hubAuthorization(new URL(`${known}/a/b`))).toBe("Bearer hf_abc");
    }
    vi.stubEnv("HF_ENDPOINT", "ftp://me:p%40ss@mirror.example");
    expect(hubEndpoint).toThrow(/received "ftp:\/\/mirror\.example"/);
  });
});

describe("the servers that get the token", () => {
  it.each([
    ["http://mirror.example", ["http://mirror.example", "https://mirror.example"], ["https://mirror.example:8443"]],
    ["https://mirror.example", ["https://mirror.example"], ["http://mirror.example", "https://cdn.mirror.example"]],
    ["http://mirror.example:8080", ["http://mirror.example:8080"], ["https://mirror.example:8080"]],
  ])("of %s are itself, also when it leads from http to https, and the Hub", (endpoint, trusted, strangers) => {
    vi.stubEnv("HF_ENDPOINT", endpoint);
    for (const origin of [...trusted, "https://huggingface.co"]) expect(hubOrigins().has(origin)).toBe(true);
    for (const origin of strangers) expect(hubOrigins().has(origin)).toBe(false);
    vi.stubEnv("HF_ENDPOINT", endpoint.replace("//", "//me:secret@"));
    vi.stubEnv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1");
    for (const origin of trusted) expect(hubAuthorization(new URL(origin))).toMatch(/^Basic /);
    expect(hubAuthorization(new URL("https://huggingface.co"))).toBeUndefined();
  });
});

describe("the proxy of an address is the one that Python takes", () => {
  it.each(recorded<Record<string, string | null>>("hub-proxy"))("%j", ({ set, python }) => {
    const ours = Object.fromEntries(
      Object.keys(python).map((url) => [url, proxyFor(new URL(url), set)?.address.href ?? null]),
    );
    const expected = Object.entries(python).map(([url, proxy]) => [url, proxy === null ? null : new URL(proxy).href]);
    expect(ours).toEqual(Object.fromEntries(expected));
  });

  it.each(["socks5://me:secret@proxy:1080", "ftp://proxy", "http://", "http://a b"])(
    "%j is refused by name",
    (address) => {
      expect(() => proxyFor(new URL("https://hub/"), { ALL_PROXY: address })).toThrow(
        /^ALL_PROXY: expected a proxy such as/,
      );
      expect(() => proxyFor(new URL("https://hub/"), { ALL_PROXY: address })).not.toThrow(/secret/);
      expect(proxyFor(new URL("https://hub/"), { ALL_PROXY: address, no_proxy: "hub" })).toBeNull();
    },
  );
});
