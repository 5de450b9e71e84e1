/** `trainer.device` of a recipe. */
import { z } from "zod";

/** The name of a device; whether this machine has it is another question. */
export const deviceName = z.string().regex(/^(?:cpu|cuda(?::\d+)?)$/, "expected cpu, cuda or cuda:N");
