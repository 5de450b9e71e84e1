/**
 * `npm run bench -- pipeline`: where the seconds of one picture go at the sizes of the published model: text encoder
 * (FLAN-T5-XL, 77 tokens), 50 guided steps (four are measured and multiplied), decoder (the SDXL autoencoder, 256 ×
 * 256). Ours against Python's transformers, published sampler and diffusers in the same run. Weights are random or
 * constant: the time does not depend on them.
 */
import { nn, noGrad, ones, randn, scope } from "@miro-t2i/torch";
import { AutoencoderKL, parseAutoencoderKLConfig, resolveDType, T5Encoder } from "miro-t2i/networks";
import { frozenParts, NETWORKS } from "./configurations.js";
import { type BenchOptions, columns, runReference, type Spread, seconds, spread, store } from "./harness.js";
import { GUIDANCE, ourSteps, STEPS, TEXT_TOKENS } from "./sampling.js";

interface Row {
  part: string;
  dtype: string;
  ours: Spread;
  python: Spread | null;
}

export async function pipeline(options: BenchOptions): Promise<void> {
  const network = NETWORKS[options.size];
  const { t5, vae } = frozenParts(options.size);
  const chosen = resolveDType("auto", "cpu") === "bfloat16" ? "bfloat16" : "float32";
  const times: Record<string, number[]> = {
    "text encoder bfloat16": encoderSeconds(t5, options.rounds),
    "decoder float32": decoderSeconds(vae, network.data_size, "float32", options.rounds),
    "decoder bfloat16": decoderSeconds(vae, network.data_size, "bfloat16", options.rounds),
  };
  const steps: Record<string, number[]> = {};
  for (const [name, quantization] of [
    [chosen, "none"],
    ["int8", "int8"],
  ] as const) {
    const one = await ourSteps(options, { dtype: chosen, quantization, batch: 1 });
    steps[name] = one.map((s) => s * STEPS);
  }
  const python = options.python
    ? runReference<{ seconds: Record<string, number[]>; versions: Record<string, string> }>(
        options.python,
        "pipeline.py",
        [JSON.stringify(t5), TEXT_TOKENS, JSON.stringify(vae), network.data_size, options.rounds].map(String),
      )
    : null;
  const sampler = options.python
    ? runReference<{ steps: number[] }>(
        options.python,
        "sampling.py",
        [JSON.stringify(network), TEXT_TOKENS, GUIDANCE, 5].map(String),
      )
    : null;

  const measured = (part: string, dtype: string): Row => {
    const theirs = python?.seconds[`${part} ${dtype}`];
    return { part, dtype, ours: spread(times[`${part} ${dtype}`]!), python: theirs ? spread(theirs) : null };
  };
  const reference = sampler && spread(sampler.steps.map((s) => s * STEPS));
  const rows: Row[] = [
    measured("text encoder", "bfloat16"),
    ...Object.entries(steps).map(([dtype, s]) => ({
      part: `${STEPS} guided steps`,
      dtype: `${dtype} (Python: float32, its default)`,
      ours: spread(s),
      python: reference,
    })),
    measured("decoder", "float32"),
    measured("decoder", "bfloat16"),
  ];
  console.log(
    columns([
      ["seconds for one picture", "ours", "Python", "speed"],
      ...rows.map(({ part, dtype, ours, python: theirs }) => [
        `${part}, ${dtype}`,
        ours.median.toFixed(2),
        theirs?.median.toFixed(2) ?? "",
        theirs ? `${(theirs.median / ours.median).toFixed(2)}x` : "",
      ]),
    ]),
  );
  console.log(`the steps are ${STEPS} times the median of four`);
  const file = store(
    options,
    { size: options.size, t5, vae, network, textTokens: TEXT_TOKENS, steps: STEPS },
    { rows },
    python?.versions,
  );
  console.log(`written: ${file}`);
}

function encoderSeconds(json: object, repeats: number): number[] {
  const encoder = nn.init.skipped(() => new T5Encoder(T5Encoder.configFromJson(json, "bench")));
  try {
    fill(encoder.to({ dtype: "bfloat16" }));
    return noGrad(() =>
      scope(() => {
        const ids = ones([1, TEXT_TOKENS], { dtype: "int64" });
        const mask = ones([1, TEXT_TOKENS], { dtype: "bool" });
        return seconds(repeats, 1, () => scope(() => void encoder.forward(ids, mask)));
      }),
    );
  } finally {
    encoder.dispose();
  }
}

function decoderSeconds(json: object, side: number, dtype: "float32" | "bfloat16", repeats: number): number[] {
  const autoencoder = nn.init.skipped(() => new AutoencoderKL(parseAutoencoderKLConfig(json)));
  try {
    fill(autoencoder.to({ dtype }));
    return noGrad(() =>
      scope(() => {
        const z = randn([1, 4, side, side]);
        return seconds(repeats, 1, () => scope(() => void autoencoder.decode(z)));
      }),
    );
  } finally {
    autoencoder.dispose();
  }
}

/** One value everywhere, so that nothing overflows or is denormal. */
function fill(module: nn.Module): void {
  module.requiresGrad_(false).eval();
  for (const parameter of module.parameters()) parameter.fill_(0.01);
}
