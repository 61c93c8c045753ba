/** Regular expressions that people type. Pure. */

/**
 * @param {string} text
 * @returns {{test: (name: string) => boolean, error: string}}  a pattern that does not parse lets everything through
 */
export function pattern(text) {
  if (!text) return { test: () => true, error: "" };
  try {
    const expression = new RegExp(text, /[A-Z]/.test(text) ? "u" : "iu"); // a capital letter means it
    return { test: (name) => expression.test(name), error: "" };
  } catch (error) {
    const why = String(/** @type {Error} */ (error).message).replace(/^.*\/: /, "");
    return { test: () => true, error: `not a regular expression: ${why.toLowerCase()}` };
  }
}

/**
 * Compare names as people count: `layer2` before `layer10`.
 * @param {string} a
 * @param {string} b
 */
export const byName = (a, b) => collator.compare(a, b);
const collator = new Intl.Collator("en", { numeric: true });
