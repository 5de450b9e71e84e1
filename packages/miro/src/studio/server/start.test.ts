/** The studio in a program. */
import { existsSync } from "node:fs";
import { Server } from "node:net";
import { networkInterfaces } from "node:os";
import { join } from "node:path";
import { afterAll, expect, it, vi } from "vitest";
import type { StudioOptions } from "./options.js";
import { startStudio } from "./start.js";
import { TinyStudios } from "./testing/tiny-studio.js";

const studios = new TinyStudios();
afterAll(() => studios.end());

it("serves until it is closed, however often, and frees its port and its folder", async () => {
  const output = studios.folder();
  const options: StudioOptions = { models: [studios.model()], port: 0, output, key: "a-long-key" };
  const studio = await startStudio(options);
  const port = Number(new URL(studio.url).port);
  const ask = (key: string) => fetch(`${studio.url}/api/models`, { headers: { authorization: `Bearer ${key}` } });
  expect((await ask("another-key")).status).toBe(401);
  expect(await (await ask("a-long-key")).json()).toMatchObject([{ id: expect.stringMatching(/tiny$/), loaded: false }]);
  await expect(startStudio({ ...options, output: studios.folder(), port })).rejects.toThrow(
    /is taken; choose another `port`$/,
  );
  await expect(startStudio(options)).rejects.toThrow(/another studio serves these pictures .*choose another `output`$/);
  await Promise.all([studio.close(), studio.close(), studio[Symbol.asyncDispose]()]);
  await expect(ask("a-long-key")).rejects.toThrow();
  expect(existsSync(join(output, ".studio", "index.sqlite"))).toBe(true);
  await (await startStudio({ ...options, port })).close();
});

const hasIpv6 = Object.values(networkInterfaces()).some((all) => all?.some(({ address }) => address === "::1"));

it.skipIf(!hasIpv6)("takes an address of IPv6 as it stands in a URL", async () => {
  const studio = await startStudio({ models: [studios.model()], port: 0, output: studios.folder(), host: "[::1]" });
  expect(studio.url).toMatch(/^http:\/\/\[::1\]:\d+$/);
  expect((await fetch(`${studio.url}/health`)).status).toBe(200);
  await studio.close();
});

it("does not start once its signal has stopped it", async () => {
  const output = studios.folder();
  const options: StudioOptions = { models: [studios.model()], port: 0, output };
  const stop = new AbortController();
  const listen = vi.spyOn(Server.prototype, "listen").mockImplementationOnce(function (this: Server, given: unknown) {
    listen.mockRestore();
    stop.abort(new Error("stopped"));
    return this.listen(given);
  });
  await expect(startStudio({ ...options, signal: stop.signal })).rejects.toThrow("stopped");
  await (await startStudio(options)).close(); // the folder is free
});

it.each<[object, RegExp]>([
  [{ prot: 1 }, /^prot: .*did you mean port\?$/],
  [{ port: 65_536 }, /^port: expected a port from 0 to 65535, received 65536$/],
  [{ allowOrigins: ["example.org"] }, /^allowOrigins\.0: expected an origin such as https:\/\/example\.org/],
  [{ host: "0.0.0.0" }, /^host: .* others need `key` or `insecure: true`, received "0\.0\.0\.0"$/],
  [{ key: "tiny-k!" }, /^key: expected a key of 8 to 200 printable ASCII characters, no spaces, received one of 7$/],
  [{ key: "no spaces" }, /^key: expected .*, received one with others$/],
])("refuses %j, and tells nothing of a key", async (options, told) => {
  await expect(startStudio({ ...options, output: studios.folder() })).rejects.toThrow(told);
});
