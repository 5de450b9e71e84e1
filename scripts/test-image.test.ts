// The steps of deploy/Dockerfile as the test of the image takes them.
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { stepsOf } from "./image-test/dockerfile.mjs";

const dockerfile = readFileSync(new URL("../deploy/Dockerfile", import.meta.url), "utf8");

test("the image for CPUs is npm's packages and the last stage, with its arguments and variables", () => {
  const { image, steps } = stepsOf(dockerfile, { MIRO_VERSION: "9.8.7" });
  expect(image).toBe("node:22-bookworm-slim");
  expect(steps.map(({ keyword }) => keyword)).toEqual(
    "WORKDIR RUN RUN USER WORKDIR VOLUME EXPOSE HEALTHCHECK ENTRYPOINT CMD".split(" "),
  );
  expect(steps[1]).toMatchObject({ text: expect.stringContaining("npm install"), env: { MIRO_VERSION: "9.8.7" } });
  expect(steps.at(-1)!.env.PATH).toMatch(/^\/opt\/miro\/node_modules\/\.bin:\/usr\/local\/sbin:/);
  expect(steps.at(-1)!.env).toMatchObject({ HF_HOME: "/data/huggingface" });
  expect(steps.at(-1)!.env).not.toHaveProperty("MIRO_VERSION");
});

test("an argument chooses the stage for CUDA, and another release of Node", () => {
  const { image, steps } = stepsOf(dockerfile, { VARIANT: "cuda", NODE_VERSION: "24" });
  expect(image).toBe("node:24-bookworm-slim");
  expect(steps.slice(0, 2).map(({ keyword }) => keyword)).toEqual(["COPY", "COPY"]);
});
