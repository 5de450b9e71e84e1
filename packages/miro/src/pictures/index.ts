/** Pictures as the published data preparation sees them: decoding, resizing, cropping. */
export { type CropRounding, centreSquare, cropCentre, cropOffset, resizeThenCrop } from "./crop.js";
export {
  type DecodedFormat,
  type DecodeOptions,
  decodeImage,
  IMAGE_EXTENSIONS,
  ImageError,
  type ImageProblem,
  imageFormat,
  MAX_PIXELS,
} from "./decode.js";
export { type PassOrder, type ResizeFilter, resize } from "./resize.js";
