/** Where the Hub is, where its cache lies and who asks: the environment variables of Python's `huggingface_hub`. */
import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";

/** The Hub's address, without a slash at the end. */
export function hubEndpoint(): string {
  return (process.env.HF_ENDPOINT || "https://huggingface.co").replace(/\/+$/, "");
}

/** Whether the Hub must not be asked. */
export function hubOffline(): boolean {
  return /^(1|on|yes|true)$/i.test(process.env.HF_HUB_OFFLINE || process.env.TRANSFORMERS_OFFLINE || "");
}

function hubHome(): string {
  return process.env.HF_HOME || join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "huggingface");
}

/** The cache folder that Python's `huggingface_hub` uses. */
export function hubCache(): string {
  return process.env.HF_HUB_CACHE || process.env.HUGGINGFACE_HUB_CACHE || join(hubHome(), "hub");
}

/** The access token from the environment or from the stored login. */
export function hubToken(): string | undefined {
  const given = process.env.HF_TOKEN || process.env.HUGGING_FACE_HUB_TOKEN;
  if (given) return given.trim();
  try {
    return readFileSync(process.env.HF_TOKEN_PATH || join(hubHome(), "token"), "utf8").trim() || undefined;
  } catch {
    return undefined;
  }
}
