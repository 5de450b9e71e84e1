/** The file of a small picture, for tests of everything but its pixels. */
import sharp from "sharp";

/** A red PNG. */
export const RED_PNG: Buffer = await sharp({ create: { width: 8, height: 8, channels: 3, background: "red" } })
  .png()
  .toBuffer();
