/**
 * `miro-t2i/cli`: what a program needs whose options are declared as those of `miro` are.
 */
import "../unbundled.js";

export { type Program, runProgram } from "../cli/program.js";
export { commaSeparated, type Declaration, field, flag, type OptionsOf, parseOptions } from "../options.js";
