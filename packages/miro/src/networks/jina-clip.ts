/** jina-clip-v2 (Koukounas et al. 2024): an EVA-02 for pictures and an XLM-RoBERTa for texts, in one space. */
import { empty, nn, type Tensor } from "@miro-t2i/torch";
import { Eva02, type Eva02Config } from "./eva02.js";
import { XlmRoberta, type XlmRobertaConfig } from "./xlm-roberta.js";

/** The shape of both towers, which are of one width: there are no projections. */
export interface JinaClipConfig {
  vision: Eva02Config;
  text: XlmRobertaConfig;
}

/** Both sides. Random weights until they are loaded. */
export class JinaClip extends nn.Module {
  /** Its shape. */
  readonly config: JinaClipConfig;
  /** Pictures to features. */
  readonly vision: Eva02;
  /** Texts to features. */
  readonly text: XlmRoberta;
  /** The logarithm of what cosines are multiplied by. */
  readonly logitScale: Tensor;

  constructor(config: JinaClipConfig, coordinate?: (value: number) => number) {
    super();
    this.config = config;
    this.logitScale = this.parameter("logit_scale", empty([]).fill_(Math.log(1 / 0.07)));
    this.vision = this.register("vision_model", new Eva02(config.vision, coordinate));
    this.text = this.register("text_model", new XlmRoberta(config.text));
  }
}
