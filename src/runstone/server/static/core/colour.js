/**
 * The colour of a run, from its id alone: the same in every page, report and notebook. Pure.
 * The same function stands in Python; both are held to the same vectors.
 */

/** @typedef {"light" | "dark"} Theme */

/** Any two stay apart for colour-blind eyes too, and all stand out from the ground: docs/compare.md. */
const COLOURS = {
  light: ["#1e13ad", "#a5931b", "#672131", "#2782a7", "#9f5461", "#5152a4", "#bf74f2", "#9d1a7e", "#28a16d", "#1c5d07", "#5f0d6f", "#856b1b"],
  dark: ["#5978fd", "#f9e77b", "#ba6c78", "#7fd4fc", "#f6a3af", "#9ba1fb", "#f5e9fe", "#f674d0", "#87f5bd", "#6bac5c", "#af62c1", "#d7bb70"],
};

/** Dash patterns, in pixels of the page: solid, dash, dot, dashdot, longdash. */
export const DASHES = [[], [7, 3], [2, 2], [9, 3, 2, 3], [13, 4]];

/**
 * FNV-1a over the UTF-8 bytes, then a last mixing, so that ids that differ in one letter lie far apart.
 * @param {string} text
 * @returns {number} 0 … 2**32 - 1
 */
export function hash32(text) {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) hash = Math.imul(hash ^ byte, 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

/**
 * @param {string} id  of a run, or any other key
 * @param {Theme} [theme]
 * @returns {string} `#rrggbb`
 */
export const runColour = (id, theme = "light") => COLOURS[theme][hash32(id) % 12];

/**
 * Which dash each run of one figure has: those of one colour differ in it, in the order of their ids.
 * @param {Iterable<string>} ids
 * @returns {Map<string, number[]>}
 */
export function runDashes(ids) {
  const seen = new Map();
  const found = new Map();
  for (const id of [...new Set(ids)].sort(byBytes)) {
    const place = hash32(id) % 12;
    const rank = seen.get(place) ?? 0;
    found.set(id, DASHES[rank % DASHES.length]);
    seen.set(place, rank + 1);
  }
  return found;
}

/**
 * UTF-8 sorts by code points, JavaScript by halves of them.
 * @param {string} a
 * @param {string} b
 */
function byBytes(a, b) {
  const [x, y] = [[...a], [...b]].map((text) => text.map((one) => one.codePointAt(0) ?? 0));
  for (let k = 0; k < Math.min(x.length, y.length); k++) if (x[k] !== y[k]) return x[k] - y[k];
  return x.length - y.length;
}
