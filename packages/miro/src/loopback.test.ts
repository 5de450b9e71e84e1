import { expect, it } from "vitest";
import { isLoopback } from "./loopback.js";

it.each(["localhost", "::1", "0:0:0:0:0:0:0:1", "127.0.0.1", "127.1.2.3", "::ffff:127.0.0.1"])(
  "%s is this machine alone",
  (host) => {
    expect(isLoopback(host)).toBe(true);
  },
);

it.each([
  "0.0.0.0",
  "::",
  "127.evil.example",
  "127.0.0.1.example",
  "::ffff:10.0.0.1",
  "128.0.0.1",
  "localhost.example",
  "10.0.0.1",
  "",
])("%j may be reached by others", (host) => expect(isLoopback(host)).toBe(false));
