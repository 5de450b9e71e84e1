/**
 * A process of the device check, which is started by main.ts: `phase.js NAME DEVICE` runs a phase and sends its
 * findings, `phase.js machine DEVICE` says what the machine is. A phase that dies takes nothing with it but itself.
 */
import { Checks } from "./checks.js";
import { machine } from "./machine.js";
import { PHASES, type PhaseName } from "./phases.js";

const [name, device] = process.argv.slice(2) as [PhaseName | "machine", string];
const send = (message: object) => void process.send!(message);
if (name === "machine") send(machine(device));
else await (await PHASES[name].load())(new Checks(device, send));
process.disconnect();
