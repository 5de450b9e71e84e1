/** The emoji data set: vocabulary, sprites, scenes with captions and rewards. */
export { COLOUR_NAMES, type ColourName, NAMED_COLOURS, simplePrompt } from "./captions.js";
export { type PlacedObject, toRgb8 } from "./render.js";
export {
  EMOJI_REWARD_KEYS,
  type EmojiRewardKey,
  type EmojiSceneOptions,
  EmojiScenes,
  emojiSceneOptionsSchema,
  type Scene,
  type SceneBatch,
  WRONG_WAYS,
  type WrongWay,
} from "./scenes.js";
export { coreVocabulary, type EmojiEntry, loadVocabulary, type VocabularySelection } from "./vocabulary.js";
