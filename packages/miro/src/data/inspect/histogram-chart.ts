/** Histograms as a picture, one for each field, and as a line of text. */
import { Chart, ticks } from "../../pictures/chart.js";
import type { FieldReport } from "./shard-report.js";

const PANEL = { width: 340, height: 210 };
const PLOT = { left: 46, right: 14, top: 34, bottom: 42 };
const BAR = "#4a7bd0";
const AXIS = "#777777";

/** A histogram as one line of eighths of blocks, highest bin full. */
export function histogramLine(histogram: readonly number[]): string {
  const most = Math.max(1, ...histogram);
  return histogram.map((count) => (count === 0 ? " " : "▁▂▃▄▅▆▇█"[Math.ceil((count / most) * 8) - 1]!)).join("");
}

/** Histograms side by side, at most three in a row. */
export function histogramChart(fields: Readonly<Record<string, FieldReport>>): Chart {
  const shown = Object.entries(fields).filter(([, { count }]) => count > 0);
  const columns = Math.min(3, Math.max(1, shown.length));
  const rows = Math.max(1, Math.ceil(shown.length / columns));
  const drawing = new Chart(columns * PANEL.width, rows * PANEL.height);
  shown.forEach(([name, report], i) => {
    drawPanel(drawing, (i % columns) * PANEL.width, Math.floor(i / columns) * PANEL.height, name, report);
  });
  return drawing;
}

function drawPanel(drawing: Chart, left: number, top: number, name: string, report: FieldReport): void {
  const { histogram, count, missing } = report;
  const [min, max, mean] = [report.min!, report.max!, report.mean!];
  const [x0, x1] = [left + PLOT.left, left + PANEL.width - PLOT.right];
  const [y0, y1] = [top + PANEL.height - PLOT.bottom, top + PLOT.top];
  const most = Math.max(...histogram);
  const width = (x1 - x0) / histogram.length;
  const place = (value: number) => (max > min ? x0 + ((value - min) / (max - min)) * (x1 - x0) : (x0 + x1) / 2);

  drawing.words(name, left + PANEL.width / 2, top + 14, { size: 12, bold: true, align: "centre" });
  for (const value of ticks(0, most, 3)) {
    const y = y0 - (value / most) * (y0 - y1);
    drawing.line(
      [
        [x0, y],
        [x1, y],
      ],
      "#e4e4e4",
    );
    drawing.words(String(value), x0 - 5, y, { size: 10, colour: AXIS, align: "right" });
  }
  histogram.forEach((value, i) => {
    const height = (value / most) * (y0 - y1);
    drawing.rectangle(x0 + i * width + 0.5, y0 - height, width - 1, height, BAR);
  });
  drawing.line(
    [
      [x0, y0],
      [x1, y0],
    ],
    AXIS,
  );
  drawing.line(
    [
      [place(mean), y0],
      [place(mean), y1],
    ],
    "#c0392b",
  );
  for (const value of ticks(min, max, 4)) {
    drawing.words(String(value), place(value), y0 + 11, { size: 10, colour: AXIS, align: "centre" });
  }
  const lost = missing > 0 ? `, ${missing} missing` : "";
  const note = `mean ${mean.toPrecision(3)}, n = ${count}${lost}`;
  drawing.words(note, left + PANEL.width / 2, y0 + 27, { size: 10, colour: "#c0392b", align: "centre" });
}
