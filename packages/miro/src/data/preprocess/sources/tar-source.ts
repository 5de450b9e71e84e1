/** Raw samples of a tar: a picture, a txt and a json each, all of which the published preparation needs. */
import { basename, dirname } from "node:path";
import { IMAGE_EXTENSIONS } from "../../../pictures/decode.js";
import { groupSamples, splitMemberName } from "../../shards/sample-key.js";
import { CUT_REMEDY, cutProblem, problemText, ShardError } from "../../shards/shard-error.js";
import { TarFile } from "../../shards/tar-file.js";
import {
  decodeCaption,
  decodeJson,
  limited,
  type ShardContent,
  type SourceShard,
  skip,
  stamp,
  take,
} from "./raw-sample.js";

export function tarShard(path: string): SourceShard {
  return {
    stem: basename(path, ".tar"),
    label: path,
    fingerprint: () => stamp([path], dirname(path)),
    read: () => readTar(path),
  };
}

function readTar(path: string): ShardContent {
  const tar = TarFile.open(path, { policy: "skip" });
  try {
    const cut = cutProblem(tar.problems);
    if (cut !== undefined) throw new ShardError(cut, { remedy: CUT_REMEDY });
    const content: ShardContent = {
      samples: [],
      skipped: tar.problems.map((problem) => ({
        key: problem.member === undefined ? "" : (splitMemberName(problem.member)?.key ?? ""),
        reason: "archive",
        message: problemText(problem),
      })),
    };
    for (const { key, members, duplicates } of groupSamples(tar.members)) {
      for (const { name } of duplicates)
        content.skipped.push({ key, reason: "duplicate-member", message: `${name} again; the first one counts` });
      const extension = IMAGE_EXTENSIONS.find((name) => members.has(name));
      const text = members.get("txt");
      const json = members.get("json");
      take(content, key, () => {
        if (extension === undefined) skip("missing-image", `none of ${IMAGE_EXTENSIONS.join(", ")}`);
        if (text === undefined) skip("missing-caption", "no txt");
        if (json === undefined) skip("missing-json", "no json");
        const image = members.get(extension)!;
        return {
          key,
          extension,
          image: { path, offset: image.offset, size: image.size },
          caption: decodeCaption(limited(text.size, () => tar.read(text))),
          metadata: decodeJson(limited(json.size, () => tar.read(json))),
        };
      });
    }
    return content;
  } finally {
    tar.close();
  }
}
