// What the page keeps: in the browser, and in the page where the browser refuses.
import { afterEach, expect, test, vi } from "vitest";
import { local, session } from "./storage.js";

afterEach(() => vi.unstubAllGlobals());

const denied = () => {
  throw new DOMException("Access is denied for this document.", "SecurityError");
};

test("what the browser keeps is kept there", () => {
  const kept = new Map<string, string>();
  vi.stubGlobal("localStorage", {
    getItem: (key: string) => kept.get(key) ?? null,
    setItem: (key: string, text: string) => kept.set(key, text),
    removeItem: (key: string) => kept.delete(key),
  });
  expect(local.getItem("a")).toBe(null);
  local.setItem("a", "1");
  expect([...kept]).toEqual([["a", "1"]]);
  expect(local.getItem("a")).toBe("1");
  local.removeItem("a");
  expect([kept.size, local.getItem("a")]).toEqual([0, null]);
});

test("where the browser has no storage for the page, or no more room, the page keeps it", () => {
  Object.defineProperty(globalThis, "sessionStorage", { get: denied, configurable: true });
  try {
    expect(session.getItem("a")).toBe(null);
    session.setItem("a", "1");
    expect(session.getItem("a")).toBe("1");
    session.removeItem("a");
    expect(session.getItem("a")).toBe(null);
  } finally {
    Reflect.deleteProperty(globalThis, "sessionStorage");
  }
  vi.stubGlobal("localStorage", { getItem: () => "old", setItem: denied, removeItem: () => {} });
  local.setItem("b", "new");
  expect(local.getItem("b")).toBe("new");
});
