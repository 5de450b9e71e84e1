/**
 * How names of tar members become samples: the one rule of this package, for writers, indexes and readers alike.
 *
 * Rule (that of webdataset): the key is the path up to the first dot of its last component, the extension everything
 * behind that dot, in lower case; a leading `./` does not count. Names without a dot in the last component, with
 * nothing in front of it, and those below a `__name__` folder at the top belong to no sample.
 */

/** A file inside a tar. */
export interface TarMember {
  /** Path inside the archive, without a leading `./`. */
  readonly name: string;
  /** Where the content begins, in bytes from the start of the archive. */
  readonly offset: number;
  /** Bytes of content. */
  readonly size: number;
}

/** The members with one key. */
export interface Sample<M extends TarMember = TarMember> {
  readonly key: string;
  /** By extension (`jpg`, `vae_embeddings_mean_256.npy`), in the archive's order. */
  readonly members: ReadonlyMap<string, M>;
  /** Further members of an extension that the sample has already; the first one counts. */
  readonly duplicates: readonly M[];
}

/** Key and extension of a member name, null when it belongs to no sample. */
export function splitMemberName(name: string): { key: string; extension: string } | null {
  const path = name.startsWith("./") ? name.slice(2) : name;
  if (/^__[^/]*__(?:\/|$)/.test(path)) return null;
  const base = path.lastIndexOf("/") + 1;
  const dot = path.indexOf(".", base);
  return dot <= base ? null : { key: path.slice(0, dot), extension: path.slice(dot + 1).toLowerCase() };
}

/**
 * Groups members into samples, in the order in which keys first appear. Members of one key need not be neighbours.
 *
 * In shards as their writers make them this gives what webdataset gives. Where a key comes back later in the archive,
 * webdataset makes two samples of it and this one, with what repeats in `duplicates`.
 */
export function groupSamples<M extends TarMember>(members: Iterable<M>): Sample<M>[] {
  const samples = new Map<string, { key: string; members: Map<string, M>; duplicates: M[] }>();
  for (const member of members) {
    const split = splitMemberName(member.name);
    if (split === null) continue;
    let sample = samples.get(split.key);
    if (sample === undefined) {
      sample = { key: split.key, members: new Map(), duplicates: [] };
      samples.set(split.key, sample);
    }
    if (sample.members.has(split.extension)) sample.duplicates.push(member);
    else sample.members.set(split.extension, member);
  }
  return [...samples.values()];
}
