/** The emoji data set: vocabulary, sprites, scenes with captions and rewards. */
export { COLOUR_NAMES, type ColourName, NAMED_COLOURS, simplePrompt } from "./captions.js";
export { type PlacedObject, toRgb8 } from "./render.js";
export {
  EMOJI_REWARD_KEYS,
  type EmojiRewardKey,
  type EmojiSceneOptions,
  emojiSceneOptionsSchema,
} from "./scene-options.js";
export {
  EmojiScenes,
  type Scene,
  type SceneBatch,
  vocabularyOf,
} from "./scenes.js";
export { coreVocabulary, type EmojiEntry, loadVocabulary, type VocabularySelection } from "./vocabulary.js";
export { WRONG_WAYS, type WrongWay, wrongWays } from "./wrong-captions.js";
