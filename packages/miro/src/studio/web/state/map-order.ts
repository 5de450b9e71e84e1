/** The order in which the cells of a reward map are drawn: the corners and the middle first, then those between. */
export function mapLevels(side: number): number[][] {
  const seen = new Set<number>();
  const levels: number[][] = [];
  for (let stride = (side - 1) / 2; stride >= 1; stride /= 2) {
    const level: number[] = [];
    for (let row = 0; row < side; row += stride) {
      for (let column = 0; column < side; column += stride) {
        const cell = row * side + column;
        if (seen.has(cell)) continue;
        seen.add(cell);
        level.push(cell);
      }
    }
    levels.push(level);
  }
  return levels;
}

/** The cell among `drawn` that is nearest to a cell; null where there is none. */
export function nearestCell(cell: number, side: number, drawn: Iterable<number>): number | null {
  let best: number | null = null;
  let least = Number.POSITIVE_INFINITY;
  for (const other of drawn) {
    const [dx, dy] = [(cell % side) - (other % side), Math.floor(cell / side) - Math.floor(other / side)];
    const distance = dx * dx + dy * dy;
    if (distance < least) [best, least] = [other, distance];
  }
  return best;
}
