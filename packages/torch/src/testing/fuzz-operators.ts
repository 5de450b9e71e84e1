/**
 * Calls every public ATen operator with random arguments, most of them wrong, and prints how the calls ended as JSON. Run as a
 * process of its own by errors.test.ts: node dist/testing/fuzz-operators.js SEED TRIES
 *
 * Left out: operators that hand out memory as asked (their contract is with the caller), read files, or whose checks are left
 * to the Python layer above them.
 */
import {
  call,
  Generator,
  ones,
  randn,
  schemas,
  scope,
  setNumThreads,
  type Tensor,
  TorchError,
  tensor,
  zeros,
} from "../index.js";

const UNCHECKED =
  /^aten::_|from_file|out$|_out|quant|cudnn|miopen|mkldnn|sparse|set_|record_stream|resize|sym_|data$|fbgemm|rename|align|refine|names|to_padded|pin_memory|is_pinned|backward|internal|as_strided|sspaddmm|rnn|lstm|gru|normal_functional/;

/** Marsaglia's xorshift32. */
function randomNumbers(seed: number): () => number {
  let state = seed || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}

function main(seed: number, tries: number): void {
  setNumThreads(1);
  const random = randomNumbers(seed);
  const pick = <T>(choices: readonly T[]): T => choices[Math.floor(random() * choices.length)]!;
  const plain = (): unknown =>
    pick([
      undefined,
      null,
      0,
      1,
      -1,
      2,
      3,
      1.5,
      Number.NaN,
      Number.POSITIVE_INFINITY,
      -(2 ** 40),
      5n,
      2n ** 70n,
      true,
      false,
    ]);
  const text = (): unknown => pick(["x", "float32", "cpu", "mean", ""]);
  const list = (): unknown =>
    pick<unknown[]>([
      [],
      [1, 2],
      [2, 3],
      [-1],
      [0],
      [1.5],
      ["a"],
      [null],
      [ones([2, 2]), ones([2, 2])],
      [ones([1]), null],
    ]);
  const tensors = (): Tensor =>
    pick([
      () => ones([2, 3]),
      () => randn([3, 3]),
      () => randn([1, 2, 4, 4]),
      () => tensor([1n, 0n]),
      () => tensor([true, false]),
      () => zeros([0, 2]),
      () => ones([]),
    ])();
  const stranger = (): unknown =>
    pick([{}, () => 1, Symbol("s"), new Date(), new Map(), new Float32Array(3), new Generator()]);
  const anything = (): unknown => pick([plain, plain, text, list, tensors, stranger])();

  const names = schemas().map((schema) => schema.slice(0, schema.indexOf("(")));
  const endings = { returned: 0, refused: 0, others: [] as string[] };
  for (const name of names.filter((candidate) => candidate.startsWith("aten::") && !UNCHECKED.test(candidate))) {
    for (let i = 0; i < tries; i++) {
      scope(() => {
        const args = random() < 0.7 ? [tensors()] : [];
        for (let more = Math.floor(random() * 6); more > 0; more--) args.push(anything() as Tensor);
        try {
          call(name, ...args);
          endings.returned++;
        } catch (error) {
          if (error instanceof TorchError) endings.refused++;
          else endings.others.push(`${name}: ${error}`);
        }
      });
    }
  }
  console.log(JSON.stringify(endings));
}

main(Number(process.argv[2]), Number(process.argv[3]));
