import fc from "fast-check";
import { expect, it } from "vitest";
import { EventParser } from "./event-parser.js";

const STREAM =
  ': alive\n\nid: 1\nevent: step\ndata: {"step":1}\n\nid: 2\r\nevent: done\r\ndata: a\r\ndata: b: c\r\n\r\ndata: last\n\n';

it("gives the same events however the stream is cut into pieces", () => {
  const whole = new EventParser().push(STREAM);
  expect(whole).toEqual([
    { id: 1, event: "step", data: '{"step":1}' },
    { id: 2, event: "done", data: "a\nb: c" },
    { id: null, event: "message", data: "last" },
  ]);
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: STREAM.length })), (cuts) => {
      const parser = new EventParser();
      const ends = [...cuts.sort((a, b) => a - b), STREAM.length];
      expect(ends.flatMap((end, i) => parser.push(STREAM.slice(ends[i - 1] ?? 0, end)))).toEqual(whole);
    }),
  );
});

it("takes numbers alone for ids, and fields it does not know for nothing", () => {
  const parser = new EventParser();
  expect(parser.push("id: last\nretry: 5\ndata\n\nid: 12\nevent: step\n\n")).toEqual([
    { id: null, event: "message", data: "" },
  ]);
});

it("keeps an event back until it is whole", () => {
  const parser = new EventParser();
  expect(parser.push("event: picture\ndata: 1\n")).toEqual([]);
  expect(parser.push("\n")).toEqual([{ id: null, event: "picture", data: "1" }]);
});
