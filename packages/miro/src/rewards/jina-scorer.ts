/**
 * `clip_score`: how well a picture shows a text, exp(s) cos(image, text) of jina-clip-v2 (Koukounas et al. 2024), which
 * reads long texts in many languages. s is the learned scale of the file.
 *
 * Towers are computed in the dtype that was asked for; means over tokens, norms of features, products and the scale in
 * float32 or wider. With `precision: "upstream"` the towers are bfloat16, the coordinates of the rotary positions, the
 * features and the score are rounded to it as well: published values were made so.
 */
import { cat, noGrad, scope, stack, type Tensor } from "@miro-t2i/torch";
import { MiroError } from "../errors.js";
import { openTensors, readScalar } from "../files/tensor-files.js";
import { type ByLayer, holding } from "../networks/by-layer.js";
import type { JinaClip } from "../networks/jina-clip.js";
import type { RgbImage } from "../pictures/rgb.js";
import { Tokenizer } from "../text/tokenizer.js";
import { type KeyedPicture, keyedPictures, keyedPixels } from "./clip-pixels.js";
import { JINA_CONFIG_FILES, type JinaConfig, readJinaConfig } from "./jina-config.js";
import { JINA_KEY, JINA_NAME, JINA_REPOSITORY, JINA_TOKENIZER_FILE, JINA_WEIGHTS } from "./jina-facts.js";
import { jinaSize, loadJinaClip } from "./jina-weights.js";
import { KeptFeatures } from "./kept-features.js";
import { fetchFolder, placeOf } from "./published-folder.js";
import { runByLayer } from "./run-by-layer.js";
import type { LoadScorerOptions, ScoreCall, ScorerModel } from "./scorer.js";
import { TextFeatures } from "./text-features.js";

/** Pictures and captions of one call. */
const BATCH = 16;
/** Pictures that go through the tower together: 1,297 tokens each fill a processor. */
const PICTURES = 4;

/** Pictures whose features are kept. */
const KEPT_PICTURES = 1024;

/** Reads the model. */
export async function loadJina(options: LoadScorerOptions): Promise<ScorerModel> {
  const folder = await fetchFolder(
    options.weights?.[JINA_KEY] ?? JINA_REPOSITORY,
    JINA_KEY,
    JINA_WEIGHTS,
    [JINA_TOKENIZER_FILE, ...JINA_CONFIG_FILES],
    options,
  );
  const config = readJinaConfig(folder);
  const tokenizer = await Tokenizer.fromFile(folder);
  checkTokenizer(tokenizer, config, folder);
  const rounded = options.precision === "upstream";
  const dtype = rounded ? "bfloat16" : options.dtype;
  using file = openTensors(folder, JINA_WEIGHTS);
  const clip = await loadJinaClip(file, config, placeOf({ ...options, dtype }, jinaSize(config)), {
    coordinate: rounded ? bfloat16 : undefined,
    signal: options.signal,
  });
  return new JinaModel(clip, config, tokenizer, { rounded, logitScale: readScalar(file, "logit_scale") });
}

/** Ids index the embedding, and padding is told by its id. */
function checkTokenizer(tokenizer: Tokenizer, { text, padId }: JinaConfig, folder: string): void {
  if (tokenizer.vocabSize > text.vocabulary)
    throw new MiroError(
      `${folder}: the tokenizer has ${tokenizer.vocabSize} tokens, the text tower ${text.vocabulary}; ` +
        "both must be of one model",
    );
  if (tokenizer.padId !== padId)
    throw new MiroError(
      `${folder}: ${JINA_TOKENIZER_FILE}: <pad> is ${tokenizer.padId}; the text tower has it at ${padId}`,
    );
}

/** The nearest bfloat16, half to even. */
function bfloat16(value: number): number {
  const bits = new Uint32Array(Float32Array.of(value).buffer)[0]!;
  const rounded = (bits + 0x7fff + ((bits >>> 16) & 1)) & 0xffff0000;
  return new Float32Array(Uint32Array.of(rounded).buffer)[0]!;
}

class JinaModel implements ScorerModel {
  readonly name = JINA_NAME;
  readonly batchSize = BATCH;
  readonly dtype;
  readonly #clip: JinaClip;
  readonly #config: JinaConfig;
  readonly #tokenizer: Tokenizer;
  /** Whether features and scores are rounded as the published values are. */
  readonly #rounded: boolean;
  readonly #scale: number;
  readonly #texts: TextFeatures;
  readonly #pictures = new KeptFeatures(KEPT_PICTURES);

  constructor(
    clip: JinaClip,
    config: JinaConfig,
    tokenizer: Tokenizer,
    { rounded, logitScale }: { rounded: boolean; logitScale: number },
  ) {
    this.dtype = clip.logitScale.dtype;
    this.#clip = clip;
    this.#config = config;
    this.#tokenizer = tokenizer;
    this.#rounded = rounded;
    const scale = Math.exp(logitScale);
    this.#scale = rounded ? bfloat16(scale) : scale;
    this.#texts = new TextFeatures(async (captions, signal) => {
      const layers = this.#clip.text.forwardByLayer(this.#ids(captions), config.padId);
      using features_BD = await runByLayer(layers, signal);
      return noGrad(() => scope(() => this.#unit(features_BD)));
    });
  }

  truncates(caption: string): boolean {
    return this.#tokenizer.encode(caption).length > this.#config.context;
  }

  async score(images: readonly RgbImage[], captions: readonly string[], { signal }: ScoreCall = {}): Promise<number[]> {
    using features_BD = await this.#features(images, signal);
    using text_BD = await this.#texts.of(captions, signal);
    return noGrad(() =>
      scope(() => {
        const image_BD = this.#unit(features_BD);
        const cosines = image_BD.mul(text_BD).sum(-1).to({ device: "cpu" }).data() as Float32Array;
        return Array.from(cosines, (cosine) =>
          this.#rounded ? bfloat16(this.#scale * bfloat16(cosine)) : this.#scale * cosine,
        );
      }),
    );
  }

  /** Features (B, D) in float32, not of unit length */
  #features(images: readonly RgbImage[], signal: AbortSignal | undefined): Promise<Tensor> {
    const { image: side } = this.#config.vision;
    const seen = keyedPictures(images, side, "pillow");
    const keys = seen.map(({ key }) => key);
    return this.#pictures.of(seen, keys, (missing) => runByLayer(this.#encodeImages(missing), signal));
  }

  *#encodeImages(pictures: readonly KeyedPicture[]): ByLayer<Tensor> {
    const { image: side } = this.#config.vision;
    const { device } = this.#clip.logitScale;
    const features: Tensor[] = [];
    for (let start = 0; start < pictures.length; start += PICTURES) {
      const part = pictures.slice(start, start + PICTURES);
      const some = part.map((picture) => keyedPixels(picture, side, "pillow"));
      const pixels = scope(() => stack(some).to({ device }));
      features.push(yield* holding([...features, pixels], this.#clip.vision.forwardByLayer(pixels)));
    }
    return cat(features);
  }

  #ids(captions: readonly string[]): number[][] {
    return captions.map((caption) => this.#tokenizer.encode(caption, { maxLength: this.#config.context }));
  }

  /** Of unit length, in float32 */
  #unit(x_BD: Tensor): Tensor {
    if (!this.#rounded) return x_BD.div(x_BD.square().sum(-1, { keepdim: true }).sqrt());
    const x = x_BD.to({ dtype: "bfloat16" });
    return x.div(x.norm(-1, true)).float();
  }

  dispose(): void {
    this.#texts.dispose();
    this.#pictures.dispose();
    this.#clip.dispose();
  }
}
