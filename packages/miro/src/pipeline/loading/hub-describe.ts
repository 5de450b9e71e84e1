/**
 * What the Hub says about a repository: the commit of a revision, the names of its files, and each file's size and
 * hash.
 *
 * A mirror may know the addresses of files alone. Then it is asked for each file without its contents, as Python asks:
 * the headers of the answer name commit, size and hash.
 */
import { InvalidInputError, MiroError } from "../../errors.js";
import { safePath } from "./hub-cache.js";
import { hubEndpoint } from "./hub-environment.js";
import { cacheMayHelp, hubHead, hubMetadata, notTheHub, retryDelays, routeIsMissing } from "./hub-http.js";
import type { Repository } from "./hub-repository.js";

/** What is known about a file before it is fetched. */
export interface RemoteFile {
  path: string;
  url: string;
  /** Name of its blob in the cache. */
  etag: string;
  /** SHA-256, git object id or SHA-1 in hexadecimal; null when a mirror gives something else. */
  hash: string | null;
  sizeBytes: number;
}

const COMMIT = /^[0-9a-f]{40}$/;
const HASH = /^[0-9a-f]{40}([0-9a-f]{24})?$/;

/** Files of a checkpoint or one of its parts, which a mirror without lists is asked for by name. */
const KNOWN_FILES = [
  "config.json",
  "model.safetensors",
  "uncond_embedding.npy",
  "model.safetensors.index.json",
  "tokenizer.json",
  "diffusion_pytorch_model.safetensors",
].flatMap((name) => ["", "text_encoder/", "vae/"].map((folder) => folder + name));

/** The commit of a revision and the names of its files. */
export async function describeRepository(
  repository: Repository,
  delaysMs: readonly number[],
): Promise<{ sha: string; files: string[] }> {
  const { modelInfo } = await import("@huggingface/hub");
  let info: { sha?: unknown; filePaths?: unknown };
  try {
    info = await modelInfo({
      name: repository.name,
      revision: repository.revision,
      hubUrl: hubEndpoint(),
      fetch: hubMetadata(repository, delaysMs),
      additionalFields: ["sha", "filePaths"],
    });
  } catch (error) {
    if (repository.options.signal?.aborted) throw error;
    if (!(error instanceof MiroError)) throw notTheHub(repository, 200); // JSON, and not the Hub's
    const found = routeIsMissing(error) ? await askByName(repository) : null;
    if (found === null) throw error;
    return found;
  }
  const { sha, filePaths } = info;
  if (typeof sha !== "string" || !COMMIT.test(sha) || !Array.isArray(filePaths)) throw notTheHub(repository, 200);
  return { sha, files: filePaths.filter((path) => typeof path === "string" && safePath(path)) };
}

/** Finds the files of a repository on a mirror that has no lists, or null when it has nothing of a repository. */
async function askByName(repository: Repository): Promise<{ sha: string; files: string[] } | null> {
  const heads = await Promise.all(
    KNOWN_FILES.map(async (path) => {
      try {
        const { headers } = await hubHead(repository, fileUrl(repository, repository.revision, path), path);
        return { path, sha: headers.get("X-Repo-Commit") ?? "" };
      } catch (error) {
        if (cacheMayHelp(error) && !routeIsMissing(error)) throw error;
        return { path, sha: "" };
      }
    }),
  );
  const found = heads.filter(({ sha }) => COMMIT.test(sha));
  if (found.length === 0) return null;
  return { sha: found[0]!.sha, files: found.map(({ path }) => path) };
}

/** Address of a file. */
function fileUrl({ name }: Repository, revision: string, path: string): string {
  const place = path.split("/").map(encodeURIComponent).join("/");
  return `${hubEndpoint()}/${name}/resolve/${encodeURIComponent(revision)}/${place}`;
}

/** Size, hash and address of files. @throws InvalidInputError when the repository has no such file */
export async function describeFiles(
  repository: Repository,
  sha: string,
  paths: readonly string[],
): Promise<RemoteFile[]> {
  for (const path of paths) if (!safePath(path)) throw new InvalidInputError(`${repository.name}: has no file ${path}`);
  const { pathsInfo } = await import("@huggingface/hub");
  let entries: Awaited<ReturnType<typeof pathsInfo>>;
  try {
    entries = await pathsInfo({
      repo: { type: "model", name: repository.name },
      paths: [...paths],
      revision: sha,
      hubUrl: hubEndpoint(),
      fetch: hubMetadata(repository, retryDelays(repository)),
    });
    if (!Array.isArray(entries)) throw notTheHub(repository, 200);
  } catch (error) {
    if (!routeIsMissing(error)) throw error;
    return Promise.all(paths.map((path) => askForFile(repository, sha, path)));
  }
  return paths.map((path) => {
    const entry = entries.find((candidate) => candidate?.path === path && candidate.type === "file");
    if (!entry) throw new InvalidInputError(`${repository.name}: has no file ${path}`);
    const hash = entry.lfs ? String(entry.lfs.oid).replace(/^sha256:/, "") : entry.oid;
    const sizeBytes = entry.lfs?.size ?? entry.size;
    if (typeof hash !== "string" || !HASH.test(hash) || !Number.isSafeInteger(sizeBytes) || sizeBytes < 0) {
      throw new MiroError(`${repository.name}: the Hub gives no hash and size for ${path}`);
    }
    return { path, url: fileUrl(repository, sha, path), etag: hash, hash, sizeBytes };
  });
}

/** Asks for one file as Python does, at the revision that the user named: a mirror may know no other. */
async function askForFile(repository: Repository, sha: string, path: string): Promise<RemoteFile> {
  const url = fileUrl(repository, repository.revision, path);
  const { status, headers } = await hubHead(repository, url, path);
  const commit = headers.get("X-Repo-Commit");
  const etag = bareEtag(headers.get("X-Linked-ETag") ?? headers.get("ETag"));
  const length = headers.get("X-Linked-Size") ?? (status < 300 ? headers.get("Content-Length") : null);
  if (commit === null || !etag || !/^\d+$/.test(length ?? "")) {
    const what = commit === null ? "X-Repo-Commit" : !etag ? "ETag" : "Content-Length";
    throw new MiroError(
      `${repository.name}: ${hubEndpoint()} names no size and hash of ${path}: the header ${what} is missing; check HF_ENDPOINT and the proxy`,
    );
  }
  if (commit !== sha) throw new MiroError(`${repository.name}: ${repository.revision} has just changed; run again`);
  if (!/^[\w.+=-]{1,200}$/.test(etag) || etag.startsWith(".")) {
    throw new MiroError(`${repository.name}: the ETag of ${path} cannot name a file: ${JSON.stringify(etag)}`);
  }
  return { path, url, etag, hash: HASH.test(etag) ? etag : null, sizeBytes: Number(length) };
}

/** An ETag without its quotes and the mark of a weak one. */
export function bareEtag(header: string | null): string | undefined {
  return header?.replace(/^(W\/)?"?|"$/g, "");
}
