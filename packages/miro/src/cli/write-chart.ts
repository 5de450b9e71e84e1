/** Charts as files. */
import { writeFileAtomic } from "../files/whole-files.js";
import type { Chart } from "../pictures/chart.js";
import { sheetPng } from "../pipeline/settings.js";

/** Writes a chart as what the file's name ends in, `.svg` or `.png`. @param shows what is on it */
export async function writeChart(file: string, chart: Chart, shows: string): Promise<void> {
  const content = /\.svg$/i.test(file) ? chart.toSvg() : sheetPng(await chart.toImage(), shows);
  writeFileAtomic(file, content, { overwrite: true });
}
