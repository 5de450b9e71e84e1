/**
 * Unicode's `White_Space`, which the reference means by white space. JavaScript's `\s` is not the same: it has U+FEFF
 * and lacks U+0085.
 */

/** The inside of a regular expression's character class. */
export const WHITE_SPACE = "\\t-\\r \\x85\\xA0\\u1680\\u2000-\\u200A\\u2028\\u2029\\u202F\\u205F\\u3000";

/** The same of what Python's `str.split` and regular expressions take for white space: the four separators too. */
export const PYTHON_SPACE = `${WHITE_SPACE}\\x1c-\\x1f`;
