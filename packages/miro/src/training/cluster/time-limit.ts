/** Time limits as `sbatch --time` takes them. */

const forms = [
  /^(?<m>\d+)(:(?<s>\d+))?$/,
  /^(?<h>\d+):(?<m>\d+):(?<s>\d+)$/,
  /^(?<d>\d+)-(?<h>\d+)(:(?<m>\d+)(:(?<s>\d+))?)?$/,
];

/**
 * Minutes, `M:S`, `H:M:S`, `D-H`, `D-H:M` or `D-H:M:S` in seconds; null for anything else and for 0, which SLURM takes
 * for no limit.
 */
export function limitSeconds(text: string): number | null {
  const { d = 0, h = 0, m = 0, s = 0 } = forms.map((form) => form.exec(text)?.groups).find(Boolean) ?? {};
  return ((Number(d) * 24 + Number(h)) * 60 + Number(m)) * 60 + Number(s) || null;
}
