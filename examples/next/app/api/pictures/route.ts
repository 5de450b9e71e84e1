import { InvalidInputError } from "miro-t2i";
import { pipeline } from "../../../lib/pipeline";

export const runtime = "nodejs";

/** A picture for `{ "prompt": …, "seed": … }`. */
export async function POST(request: Request): Promise<Response> {
  try {
    // Only what strangers may choose: other options read files of this machine, or take long.
    const { prompt, seed } = (await request.json()) as { prompt?: unknown; seed?: number };
    if (typeof prompt !== "string") throw new InvalidInputError("prompt: expected a text");
    const pipe = await pipeline();
    const { images } = await pipe.generate(prompt, { seed, steps: 8, signal: request.signal });
    const bytes = new Uint8Array(await images[0]!.toBuffer());
    return new Response(bytes, { headers: { "content-type": "image/png" } });
  } catch (error) {
    if (error instanceof InvalidInputError || error instanceof SyntaxError)
      return Response.json({ error: error.message }, { status: 400 });
    throw error;
  }
}
