import { empty, scope, type Tensor, tensor } from "@miro-t2i/torch";
import { expect, test } from "vitest";
import { packed, toDevice } from "./to-device.js";

test("a batch that was sent as one buffer has the same values, dtypes, shapes and places; one tensor is sent once", () => {
  scope(() => {
    const x = tensor([
      [1, 2, 3],
      [4, 5, 6],
    ]);
    const batch = {
      x,
      transposed: x.transpose(0, 1),
      row: x.narrow(0, 1, 1),
      half: x.to("float16"),
      mask: x.gt(2),
      rewards: { a: tensor([0.5, Number.NaN]), ids: tensor([1n, -2n]), same: x },
      none: empty([0, 3]),
      scalar: tensor(7),
    };
    const sizes: number[] = [];
    const sent: Tensor[] = [];
    const there = packed(
      batch,
      (bytes) => {
        sizes.push(bytes);
        return empty([bytes], { dtype: "uint8" });
      },
      (buffer) => {
        sent.push(buffer.clone());
        return sent[0]!;
      },
    );
    expect(sent.length).toBe(1);
    expect(sizes).toEqual([8 * 256]); // of nine tensors one came twice, and an empty one needs no place
    const told = (value: object): unknown =>
      Object.entries(value).map(([key, item]) =>
        "dtype" in item ? [key, item.dtype, item.shape, String(item.toList())] : [key, told(item)],
      );
    expect(told(there)).toEqual(told(batch));
    x.fill_(0);
    expect(there.x.toList()).toEqual([
      [1, 2, 3],
      [4, 5, 6],
    ]);
  });
});

test("on the CPU nothing is sent", () => {
  scope(() => {
    const batch = { x: tensor([1]) };
    expect(toDevice(batch, "cpu")).toBe(batch);
  });
});
