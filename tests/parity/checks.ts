/**
 * Everything that a recording of the Python reference lets us compare, one function a subject. All run in float32 on
 * the CPU. Figures are relative errors as `relativeError` defines them.
 */
import { join } from "node:path";
import { type nn, noGrad, onesLike, scope, type Tensor, tensor } from "@miro-t2i/torch";
import { clipGradNorm_, Lamb } from "@miro-t2i/torch/optim";
import { MiroPipeline } from "miro-t2i";
import {
  type Checkpoint,
  type DrawPurpose,
  FlowMatchingLoss,
  type FlowPrecond,
  LinearSchedule,
  loadAutoencoder,
  loadCheckpoint,
  parseRinConfig,
  Rin,
  T5Encoder,
  Tokenizer,
} from "miro-t2i/networks";
import { Ema, WarmupCosine } from "miro-t2i/training";
import { type RecordedTraining, type Reference, thinned } from "../reference/fixture.js";
import { agreement, type Row } from "./report.js";

/** What everything is computed in. */
export type ParityDType = "float32" | "bfloat16" | "float16";

/**
 * Within what errors the parts must agree: networks and training, latents of a whole run, share of the pictures' values
 * that are at most so many levels of 255 away.
 */
interface Bounds {
  network: number;
  latents: number;
  pictures: number;
  levels: 1 | 2;
}

/** On the processor that the recording was made on. */
const EXACT: Bounds = { network: 1e-5, latents: 1e-4, pictures: 0.999, levels: 1 };
/** A GPU adds up in another order. */
const ELSEWHERE: Bounds = { network: 1e-4, latents: 1e-3, pictures: 0.99, levels: 1 };
/** Half precision rounds at every operator, and a run of the sampler adds that up. */
const HALF: Bounds = { network: 5e-2, latents: 0.1, pictures: 0.9, levels: 1 };
/** The full network has more operators: there 84 % are within one level. */
const HALF_AT_FULL_SIZE: Pick<Bounds, "pictures" | "levels"> = { pictures: 0.95, levels: 2 };

let computation = { device: "cpu", dtype: "float32" as ParityDType, ...EXACT };

/** Chooses device and dtype for the checks. */
export function computeOn(device: string, dtype: ParityDType): void {
  computation = { device, dtype, ...(dtype !== "float32" ? HALF : device === "cpu" ? EXACT : ELSEWHERE) };
}

/** Text encoder and autoencoder know no float16. */
const partDType = () => (computation.dtype === "float32" ? "float32" : "bfloat16");

/** One subject: what it needs of a recording, and how it is compared. */
export interface Check {
  name: string;
  /** Whether the recording holds it (full size has neither gradients nor training). */
  recorded(reference: Reference): boolean;
  /** Whether rounding in half precision has a bound here: random draws and the sums of a training run have none. */
  inHalf?: boolean;
  run(reference: Reference): Row[] | Promise<Row[]>;
}

export const CHECKS: readonly Check[] = [
  { name: "tokens", recorded: always, run: tokens },
  { name: "text encoder", inHalf: true, recorded: always, run: textEncoder },
  { name: "autoencoder", inHalf: true, recorded: always, run: autoencoder },
  { name: "network", inHalf: true, recorded: always, run: network },
  { name: "preconditioner", inHalf: true, recorded: always, run: preconditioner },
  { name: "variants", recorded: (r) => r.under("variant.").size > 0, run: variants },
  { name: "gradients", recorded: (r) => r.tensors.has("net.grad.F"), run: gradients },
  { name: "training", recorded: (r) => r.info.train !== undefined, run: (r) => training(r, "train") },
  {
    name: "reweighted training",
    recorded: (r) => r.info.train_reweighted !== undefined,
    run: (r) => training(r, "train_reweighted"),
  },
  { name: "pipeline", inHalf: true, recorded: always, run: pipeline },
];

function always(): boolean {
  return true;
}

/** Ids of the prompts, whole and as the padded batch; none may differ. */
async function tokens(reference: Reference): Promise<Row[]> {
  const tokenizer = await Tokenizer.fromFile(join(reference.folder, "text_encoder"));
  return scope(() => {
    const { prompts, untruncated_ids } = reference.info;
    const ids = reference.get("text.ids").cpu();
    const batch = tokenizer.encodeBatch(prompts, { maxLength: ids.size(1) });
    const worst = prompts.find((prompt, i) => tokenizer.encode(prompt).join() !== untruncated_ids[i]!.join());
    const different =
      (worst === undefined ? 0 : 1) +
      (batch.ids.ne(ids).sum().item() as number) +
      (batch.mask.ne(reference.get("text.mask").cpu()).sum().item() as number);
    const row: Row = {
      check: "token ids and mask",
      compared: 2 * ids.numel + untruncated_ids.flat().length,
      figure: different,
      measure: "different",
      bound: 0,
      worst: worst ?? "",
      ok: different === 0,
    };
    return [row];
  });
}

async function textEncoder(reference: Reference): Promise<Row[]> {
  const encoder = await T5Encoder.fromPretrained(join(reference.folder, "text_encoder"), {
    dtype: partDType(),
    device: computation.device,
  });
  try {
    return scope(() =>
      noGrad(() => {
        const [ids, mask] = [reference.get("text.ids"), reference.get("text.mask")];
        // What stands at padded positions is read by no-one.
        const real = (states: Tensor) => states.maskedFill(mask.logicalNot().unsqueeze(-1), 0);
        const states = encoder.forward(ids, mask);
        return [
          agreement("T5 encoder", computation.network, [
            ["embeddings", real(states), real(reference.get("text.embeddings"))],
          ]),
        ];
      }),
    );
  } finally {
    encoder.dispose();
  }
}

function autoencoder(reference: Reference): Row[] {
  const vae = loadAutoencoder(join(reference.folder, "vae"), { dtype: partDType(), device: computation.device });
  try {
    return scope(() =>
      noGrad(() => {
        const { mean, std } = vae.encode(reference.get("vae.encode.in"));
        return [
          agreement("autoencoder, decoder", computation.network, [
            ["decode.out", vae.decode(reference.get("vae.decode.in")), reference.get("vae.decode.out")],
          ]),
          agreement("autoencoder, encoder", computation.network, [
            ["encode.mean", mean, reference.get("vae.encode.mean")],
            ["encode.std", std, reference.get("vae.encode.std")],
          ]),
        ];
      }),
    );
  } finally {
    vae.dispose();
  }
}

/** The recorded inputs of a case, as the network takes them. */
function batchOf(reference: Reference, name: string) {
  const part = (key: string) => reference.get(`net.${name}.${key}`);
  return {
    y: part("y"),
    gamma: part("gamma"),
    textEmbeddings: part("embeddings"),
    textMask: part("mask"),
    previousLatents: part("previous"),
    rewards: Object.fromEntries(reference.under(`net.${name}.reward.`)),
  };
}

/** The rewards among recorded inputs that carry upstream's suffix, by their keys. */
function suffixedRewards(inputs: Map<string, Tensor>): Record<string, Tensor> {
  const rewards = [...inputs].filter(([name]) => name.endsWith("_coherence"));
  return Object.fromEntries(rewards.map(([name, value]) => [name.replace(/_coherence$/, ""), value]));
}

/** Runs `work` with the recorded checkpoint, and frees it. */
function withCheckpoint<T>(reference: Reference, work: (checkpoint: Checkpoint) => T): T {
  const checkpoint = loadCheckpoint(join(reference.folder, "checkpoint"), {
    dtype: computation.dtype,
    device: computation.device,
  });
  try {
    return scope(() => work(checkpoint));
  } finally {
    checkpoint.network.dispose();
    checkpoint.preconditioning.dispose();
  }
}

const REWARD_CASES = ["plain", "no_previous", "nan_reward", "missing_reward"];

/** Every reward case, with the conditioning computed on the way and computed beforehand. */
function network(reference: Reference): Row[] {
  return withCheckpoint(reference, ({ network }) =>
    REWARD_CASES.map((name) =>
      scope(() =>
        noGrad(() => {
          const batch = batchOf(reference, name);
          const { F, z } = network.forward(batch);
          const cached = network.forward({ ...batch, conditioning: network.condition(batch) });
          return agreement(`network, ${name.replace("_", " ")}`, computation.network, [
            ["F", F, reference.get(`net.${name}.F`)],
            ["z", z, reference.get(`net.${name}.z`)],
            ["F, conditioning cached", cached.F, reference.get(`net.${name}.F`)],
            ["z, conditioning cached", cached.z, reference.get(`net.${name}.z`)],
          ]);
        }),
      ),
    ),
  );
}

function preconditioner(reference: Reference): Row[] {
  return withCheckpoint(reference, ({ network, preconditioning }) =>
    noGrad(() => {
      const batch = batchOf(reference, "plain");
      const { D, z } = preconditioning.apply(network, batch);
      return [
        agreement("preconditioner", computation.network, [
          ["D", D, reference.get("precond.D")],
          ["z", z, reference.get("precond.z")],
          ["logvar", preconditioning.logvar(batch.gamma), reference.get("precond.logvar")],
        ]),
      ];
    }),
  );
}

/** The other constructor variants, each with its own weights. */
function variants(reference: Reference): Row[] {
  const names = new Set([...reference.under("variant.").keys()].map((name) => name.split(".")[0]!));
  return [...names].map((name) => {
    const { config, weights } = reference.variant(name)!;
    const net = new Rin(parseRinConfig(config));
    try {
      return scope(() =>
        noGrad(() => {
          net.loadStateDict(weights(net.stateDict().keys()));
          net.to({ device: computation.device });
          net.eval();
          const part = (key: string) => reference.get(`variant.${name}.${key}`);
          const { F, z } = net.forward({
            y: part("y"),
            gamma: part("gamma"),
            textEmbeddings: part("text_tokens_embeddings"),
            textMask: part("text_tokens_mask"),
            previousLatents: part("previous_latents"),
            rewards: suffixedRewards(reference.under(`variant.${name}.`)),
          });
          return agreement(`network variant ${name}`, computation.network, [
            ["F", F, part("F")],
            ["z", z, part("z")],
          ]);
        }),
      );
    } finally {
      net.dispose();
    }
  });
}

/*
 * Softmax ignores what is added to all of its arguments, so the gradient of a key's bias is zero in theory. What is
 * computed is rounding noise, which Adam turns into real updates (of no consequence, for the same reason): left out of
 * comparisons are `k_norm.bias` and the second third of `qkv.bias`.
 */

/** Pairs of named tensors with what is recorded of them under `prefix`, theory's zeros left out. */
function* recordedPairs(
  reference: Reference,
  prefix: string,
  tensors: Iterable<[name: string, tensor: Tensor | null]>,
): Generator<[string, Tensor, Tensor]> {
  for (const [name, actual] of tensors) {
    if (actual === null) {
      if (reference.tensors.has(prefix + name))
        throw new Error(`${prefix}${name} is recorded, but there is no such tensor here`);
      continue;
    }
    if (name.endsWith("k_norm.bias")) continue;
    const expected = reference.get(prefix + name);
    const part = (tensor: Tensor) => thinned(tensor, expected, reference.info);
    if (name.endsWith("qkv.bias")) {
      const third = actual.numel / 3;
      const counts = onesLike(actual).detach();
      counts.narrow(0, third, third).zero_();
      yield [name, part(actual.detach().mul(counts)), expected.mul(part(counts))];
    } else yield [name, part(actual.detach()), expected];
  }
}

/**
 * d(mean F² + mean z²) for every parameter of the network in training mode, conditioning computed on the way and
 * beforehand.
 */
function gradients(reference: Reference): Row[] {
  return ["", ", conditioning apart"].flatMap((how) =>
    withCheckpoint(reference, ({ network }) => {
      network.requiresGrad_(true).train();
      const batch = batchOf(reference, "grad");
      const { F, z } = network.forward({ ...batch, conditioning: how === "" ? null : network.condition(batch) });
      F.square().mean().add(z.square().mean()).backward();
      const all = [...network.namedParameters()].map(([name, p]): [string, Tensor | null] => [name, p.grad]);
      return [
        agreement(`network in training mode${how}`, computation.network, [
          ["F", F, reference.get("net.grad.F")],
          ["z", z, reference.get("net.grad.z")],
        ]),
        agreement(`gradients${how}`, computation.network, recordedPairs(reference, "net.grad.", all)),
      ];
    }),
  );
}

/** Recorded names of the loss's draws. */
const DRAWS: Partial<Record<DrawPurpose, string>> = {
  textDrop: "rand0",
  time: "normal0",
  noise: "randn0",
  keepLatents: "rand1",
};

/** Five steps of loss, clipping, LAMB, warm-up cosine and EMA, with the recorded draws. */
function training(reference: Reference, prefix: "train" | "train_reweighted"): Row[] {
  const info: RecordedTraining = reference.info[prefix]!;
  return withCheckpoint(reference, (checkpoint) => {
    // The published network takes a dropped reward for a reward of zero in training; so do these recordings.
    const build = () =>
      new Rin(checkpoint.config.network, { nanRewardAsZeroInTraining: true }).to({ device: computation.device });
    const network = build();
    network.loadStateDict(checkpoint.network.stateDict());
    const precond = checkpoint.preconditioning;
    network.requiresGrad_(true).train();
    precond.requiresGrad_(info.reweighted).train();

    const parts: [string, nn.Module][] = info.reweighted
      ? [
          ["", network],
          ["preconditioning", precond],
        ]
      : [["", network]];
    const named = parts.flatMap(([part, module]) =>
      [...module.namedParameters(part)].filter(([, p]) => p.requiresGrad),
    );
    const small = new Set([...network.parameters()].filter((p) => p.ndim < 2));
    const of = (inSmall: boolean) => named.map(([, p]) => p).filter((p) => small.has(p) === inSmall);
    const optimizer = new Lamb(
      [
        { params: of(false), weightDecay: info.weight_decay, layerAdaptation: true },
        { params: of(true), weightDecay: 0, layerAdaptation: false },
      ],
      { lr: info.lr, betas: info.betas, eps: info.eps, decouple: false },
    );
    const schedule = new WarmupCosine(optimizer, { warmupSteps: info.warmup_steps, totalSteps: info.total_steps });
    const averages = parts.map(([part, module]) => {
      const copy = module === network ? build() : precondLike(checkpoint);
      return [part, new Ema(module, copy, { decay: info.ema_decay })] as const;
    });
    const loss = new FlowMatchingLoss({
      schedule: new LinearSchedule({ start: 1, end: 0, clipMin: 1e-9 }),
      uncondEmbedding: checkpoint.uncondEmbedding,
      selfCondRate: info.self_cond_rate,
      condDropRate: info.cond_drop_rate,
      doGradnormReweighting: info.reweighted,
    });

    const losses: [string, Tensor, Tensor][] = [];
    const norms: [string, Tensor, Tensor][] = [];
    const rates: [string, Tensor, Tensor][] = [];
    for (let step = 0; step < info.steps; step++) {
      const recorded = (name: string) => reference.get(`${prefix}.${step}.${name}`);
      const result = scope(() => {
        const batch = {
          x0: recorded("in.x_0"),
          textEmbeddings: recorded("in.text_tokens_embeddings"),
          textMask: recorded("in.text_tokens_mask"),
          rewards: suffixedRewards(reference.under(`${prefix}.${step}.in.`)),
        };
        const terms = loss.call(precond, network, batch, {
          draw: (purpose, _kind, shape) => recorded(`draw.${DRAWS[purpose]!}`).reshape(...shape),
        });
        optimizer.zeroGrad();
        terms.loss.backward();
        const norm = clipGradNorm_(
          named.map(([, p]) => p),
          info.clip,
        );
        schedule.apply(step + 1);
        optimizer.step();
        for (const [, average] of averages) average.update();
        return { loss: terms.loss.detach().reshape(1), norm: norm.reshape(1) };
      });
      losses.push([`step ${step}`, result.loss, recorded("loss")]);
      norms.push([`step ${step}`, result.norm, recorded("grad_norm")]);
      rates.push([`step ${step}`, tensor(optimizer.paramGroups.map((group) => group.lr)), recorded("lr")]);
    }
    const what = info.reweighted ? "reweighted training" : "training";
    const rows = [
      agreement(`${what}, losses`, computation.network, losses),
      agreement(`${what}, gradient norms`, computation.network, norms),
      agreement(`${what}, learning rates`, computation.network, rates),
      agreement(
        `${what}, weights after ${info.steps} steps`,
        computation.network,
        recordedPairs(reference, `${prefix}.final.`, named),
      ),
      agreement(
        `${what}, EMA`,
        computation.network,
        recordedPairs(
          reference,
          `${prefix}.ema.`,
          averages.flatMap(([part, { module }]) => [...module.namedParameters(part)]),
        ),
      ),
    ];
    for (const module of [network, ...averages.map(([, average]) => average.module)]) module.dispose();
    return rows;
  });
}

/** A second preconditioner of the same construction. */
function precondLike(checkpoint: Checkpoint): FlowPrecond {
  const Precond = checkpoint.preconditioning.constructor as new (config: FlowPrecond["config"]) => FlowPrecond;
  return new Precond(checkpoint.preconditioning.config).to({ device: computation.device });
}

/** The whole pipeline from recorded noise: latents, and pictures within a level of 255 or two. */
async function pipeline(reference: Reference): Promise<Row[]> {
  const pipe = await MiroPipeline.fromPretrained(join(reference.folder, "checkpoint"), {
    textEncoder: join(reference.folder, "text_encoder"),
    vae: join(reference.folder, "vae"),
    dtype: computation.dtype,
    device: computation.device,
  });
  const atFullSize = computation.dtype !== "float32" && reference.info.size === "full";
  const { pictures, levels } = atFullSize ? HALF_AT_FULL_SIZE : computation;
  const rows: Row[] = [];
  try {
    for (const [name, run] of Object.entries(reference.info.runs)) {
      const expected = {
        noise: reference.get(`sample.${name}.noise`),
        latents: reference.get(`sample.${name}.latents`),
        images: reference.get(`sample.${name}.images`),
      };
      const count = expected.images.size(0);
      const prompts = count === 1 ? reference.info.prompts[0]! : reference.info.prompts;
      const result = await pipe.generate(prompts, {
        keepLatents: true,
        noise: expected.noise,
        steps: run.steps,
        guidanceScale: run.guidance_scale,
        imagesPerPrompt: run.num_images_per_prompt ?? 1,
        rewardTargets: run.reward_targets ?? {},
        negativeRewardTargets: run.negative_reward_targets ?? {},
      });
      rows.push(
        agreement(`pipeline ${name}, latents`, computation.latents, [["latents", result.latents, expected.latents]]),
      );
      const recorded = expected.images.data() as Uint8Array;
      const size = recorded.length / count;
      let near = 0;
      for (const [i, { data }] of result.images.entries()) {
        for (let k = 0; k < size; k++) if (Math.abs(data[k]! - recorded[i * size + k]!) <= levels) near++;
      }
      const figure = result.images.length === count ? near / recorded.length : 0;
      rows.push({
        check: `pipeline ${name}, pictures`,
        compared: recorded.length,
        figure,
        measure: levels === 1 ? "within one level" : "within two levels",
        bound: pictures,
        worst: "",
        ok: figure >= pictures,
      });
      result.latents.dispose();
    }
  } finally {
    await pipe.dispose?.();
  }
  return rows;
}
