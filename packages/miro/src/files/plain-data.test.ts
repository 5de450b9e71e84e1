import { describe, expect, it } from "vitest";
import { InvalidInputError } from "../errors.js";
import { checkPlainData } from "./plain-data.js";

const check = (value: unknown) => () => checkPlainData(value, (place) => `file:${place}`);

describe("data of a stranger", () => {
  it.each(["__proto__", "constructor", "prototype"])("must not have the key %s, at any depth", (key) => {
    expect(check(JSON.parse(`{"${key}": 1}`))).toThrow(`file:${key}: the key "${key}" is not allowed`);
    expect(check(JSON.parse(`{"a": [{"b": {"${key}": {}}}]}`))).toThrow(`file:a.0.b.${key}: the key`);
    expect(check(JSON.parse(`{"a": "${key}", "b": ["${key}"]}`))).not.toThrow();
  });

  it("must not hold itself; the same value in two places may stand", () => {
    const shared = { x: 1 };
    expect(check({ a: shared, b: [shared, shared] })).not.toThrow();
    const circle: Record<string, unknown> = { a: {} };
    (circle.a as Record<string, unknown>).b = [circle];
    expect(check(circle)).toThrow(/^file:a\.b\.0: "a\.b\.0" holds itself/);
    expect(check(circle)).toThrow(InvalidInputError);
  });

  it("must not be too deep, nor grow without measure where it names itself again and again", () => {
    let deep: unknown = 1;
    for (let i = 0; i < 101; i++) deep = [deep];
    expect(check(deep)).toThrow(/more than 100 levels deep/);
    let wide: unknown = "lol";
    for (let i = 0; i < 30; i++) wide = [wide, wide];
    expect(check(wide)).toThrow(/more than 1000000 values/);
  });
});
