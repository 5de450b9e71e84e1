/** The bundled model's prompts and detector, for the evaluation by GenEval's rules alone. */
import { registerSuite } from "../evaluation/geneval/run/suites.js";
import { emojiSuite } from "./evaluation/geneval.js";

registerSuite(emojiSuite);
