/**
 * Optimizer groups of MIRO's training configuration: weights that are decayed (and, under Lamb, scaled by the trust
 * ratio), and the parameters of normalisation and embedding layers and all biases, which are neither.
 */
import { nn, type Tensor } from "@miro-t2i/torch";
import { RmsNorm } from "../../networks/norms.js";

/** Parameters that share their settings of the optimizer. */
export interface ParameterGroup {
  params: Tensor[];
  weightDecay: number;
  layerAdaptation: boolean;
}

/**
 * @param preconditioning its parameters are decayed, biases included, as upstream does
 * @param excludeNormsAndBiases false puts everything into one decayed group
 */
export function parameterGroups(
  network: nn.Module,
  preconditioning: nn.Module,
  weightDecay: number,
  excludeNormsAndBiases = true,
): ParameterGroup[] {
  const plain = new Set<Tensor>();
  if (excludeNormsAndBiases) {
    for (const [, module] of network.namedModules())
      if (
        module instanceof nn.LayerNorm ||
        module instanceof nn.RMSNorm ||
        module instanceof RmsNorm ||
        module instanceof nn.Embedding
      )
        for (const parameter of module.parameters()) plain.add(parameter);
    for (const [name, parameter] of network.namedParameters()) if (name.includes("bias")) plain.add(parameter);
  }
  const all = [...network.parameters(), ...preconditioning.parameters()].filter((parameter) => parameter.requiresGrad);
  return [
    { params: all.filter((parameter) => !plain.has(parameter)), weightDecay, layerAdaptation: true },
    { params: all.filter((parameter) => plain.has(parameter)), weightDecay: 0, layerAdaptation: false },
  ].filter((group) => group.params.length > 0);
}
