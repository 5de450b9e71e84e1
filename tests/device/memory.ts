/** Memory after 200 pictures: what a picture takes is given back. */
import { cuda, memory } from "@miro-t2i/torch";
import { type Checks, must } from "./checks.js";
import { tinyPipeline } from "./tiny-pipeline.js";

const PICTURES = 200;
const BATCH = 8;
/** The first calls fill caches and, on a GPU, make the recordings. */
const WARM_UP_CALLS = 3;
const MEBIBYTE = 2 ** 20;

export async function pictures200(checks: Checks): Promise<void> {
  const used = () => {
    memory.collect();
    checks.synchronize();
    if (!checks.onGpu) return memory.stats().liveBytes;
    return cuda.memory(checks.gpu).allocatedBytes;
  };
  const reserved = () => (checks.onGpu ? cuda.memory(checks.gpu).reservedBytes : memory.stats().cachedBytes);
  const before = used();
  const pipe = await tinyPipeline(checks.device, "float32");
  const draw = (seed: number) =>
    pipe.generate("a red apple", { steps: 3, seed, imagesPerPrompt: BATCH, batchSize: BATCH });
  await checks.check(`${PICTURES} pictures leave nothing behind`, async () => {
    for (let call = 0; call < WARM_UP_CALLS; call++) await draw(call);
    const [bytes, tensors, cachedBefore] = [used(), memory.stats().liveTensors, reserved()];
    for (let call = 0; call < PICTURES / BATCH; call++) {
      const { images } = await draw(100 + call);
      must(images.length === BATCH, `${images.length} pictures came of ${BATCH}`);
    }
    const grown = used() - bytes;
    must(grown <= MEBIBYTE, `${(grown / MEBIBYTE).toFixed(1)} MiB more than before, at most 1 is allowed`);
    const more = memory.stats().liveTensors - tensors;
    must(more <= 0, `${more} tensors more than before`);
    const cached = reserved() - cachedBefore;
    must(
      cached <= 64 * MEBIBYTE,
      `${(cached / MEBIBYTE).toFixed(0)} MiB more are kept for reuse, at most 64 are allowed`,
    );
    return `${(bytes / MEBIBYTE).toFixed(1)} MiB in use, ${grown} bytes more afterwards, at most 1 MiB`;
  });
  await checks.check("a pipeline that was disposed of gives its memory back", async () => {
    await pipe.dispose();
    // cuBLAS keeps up to 64 MiB for each stream: the default one and, before libtorch 2.12, that of the graphs.
    const bound = checks.onGpu ? 128 : 1;
    const left = (used() - before) / MEBIBYTE;
    must(left <= bound, `${left.toFixed(1)} MiB are left, at most ${bound} are allowed`);
    return `${left.toFixed(2)} MiB are left, at most ${bound}`;
  });
}
