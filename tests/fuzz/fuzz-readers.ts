/**
 * Reads changed files. A process of its own, run by main.ts: `node tests/dist/fuzz/fuzz-readers.js REPORT SEED TRIES
 * READER…`.
 *
 * Before each try the reader and the number of the try are written to the file REPORT, and the changed file stands
 * beside it, so that whoever finds this process dead knows what killed it. The last line of standard output is a JSON
 * object: how many files were read, how many were refused, and what else was thrown.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { MiroError, TorchError } from "miro-t2i";
import { mutated } from "./mutations.js";
import { hash, randomNumbers } from "./random.js";
import { READERS } from "./readers.js";

/** Processor time of one file. These are of some kilobytes. */
const LONG_MS = 10_000;
/** Memory of the process, in which Node and libtorch take 150 MiB. */
const LARGE_KIB = 2 ** 20;
/** A reader that has as many is not tried further. */
const MOST_FINDINGS = 5;
/** What an error of the JavaScript engine says, where one is passed on as if it were a message for users. */
const OF_THE_ENGINE = /is not a function|is not iterable|Cannot read properties|Maximum call stack/;

async function main(report: string, seed: number, tries: number, names: readonly string[]): Promise<void> {
  const endings = { returned: 0, refused: 0, others: [] as string[] };
  let now = "";
  process.on("unhandledRejection", (error) => endings.others.push(`${now}: nobody hears of ${error}`));
  for (const name of names) {
    const { ending, files, read } = READERS[name]!;
    const random = randomNumbers(seed ^ hash(name));
    const whole = (await files()).map((file) => Buffer.from(file as Uint8Array));
    const path = `${report}-file${ending}`;
    mkdirSync(dirname(path), { recursive: true });
    const found = endings.others.length;
    for (let i = -whole.length; i < tries && endings.others.length < found + MOST_FINDINGS; i++) {
      now = `${name}, ${i < 0 ? `whole file ${-i}` : `try ${i}`}`;
      writeFileSync(report, `${name}\n${i}\n${now}`);
      writeFileSync(path, i < 0 ? whole[-i - 1]! : mutated(whole[i % whole.length]!, random, whole));
      const before = process.cpuUsage();
      try {
        await read(path);
        endings.returned++;
      } catch (error) {
        const isNamed = error instanceof MiroError || error instanceof TorchError;
        if (i >= 0 && isNamed && !OF_THE_ENGINE.test(error.message)) endings.refused++;
        else endings.others.push(`${now}: ${error}`);
      }
      const { user, system } = process.cpuUsage(before);
      if ((user + system) / 1000 > LONG_MS) endings.others.push(`${now}: takes ${(user + system) / 1e6} s`);
      const { maxRSS } = process.resourceUsage();
      if (maxRSS > LARGE_KIB) endings.others.push(`${now}: takes ${Math.round(maxRSS / 1024)} MiB`);
    }
  }
  console.log(JSON.stringify(endings));
}

const [report, seed, tries, ...names] = process.argv.slice(2);
await main(report!, Number(seed), Number(tries), names);
