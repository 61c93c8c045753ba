/** From values to pixels and back. Pure. */

/**
 * @typedef {object} Scale
 * @property {"linear" | "log"} kind
 * @property {number} low   smallest value
 * @property {number} high
 * @property {(value: number) => number} to    pixel of a value
 * @property {(pixel: number) => number} from  value at a pixel
 */

/**
 * @param {"linear" | "log"} kind
 * @param {[number, number]} domain  values; above 0 for a log scale
 * @param {[number, number]} pixels
 * @returns {Scale}
 */
export function scale(kind, [low, high], [p0, p1]) {
  const warp = kind === "log" ? Math.log10 : (/** @type {number} */ v) => v;
  const back = kind === "log" ? (/** @type {number} */ v) => 10 ** v : (/** @type {number} */ v) => v;
  const a = warp(low);
  const span = warp(high) - a || 1;
  const k = (p1 - p0) / span;
  return { kind, low, high, to: (value) => p0 + (warp(value) - a) * k, from: (pixel) => back(a + (pixel - p0) / k) };
}

/**
 * First index whose value is not below `value`, in an ascending array.
 * @param {ArrayLike<number>} values
 * @param {number} value
 */
export function lower(values, value) {
  let a = 0;
  let b = values.length;
  while (a < b) {
    const middle = (a + b) >> 1;
    if (values[middle] < value) a = middle + 1;
    else b = middle;
  }
  return a;
}

/**
 * Widen a range a little, so that lines do not touch the frame; a range of one value gets some room.
 * @param {"linear" | "log"} kind
 * @param {[number, number]} range
 * @param {number} [share]
 * @returns {[number, number]}
 */
export function padded(kind, [low, high], share = 0.05) {
  if (kind === "log") {
    const a = Math.log10(low);
    const b = Math.log10(high);
    const room = (b - a) * share || 0.2;
    return [10 ** (a - room), 10 ** (b + room)];
  }
  const room = (high - low) * share || Math.abs(high) * 0.1 || 1;
  return [low - room, high + room];
}

/**
 * A view moved or scaled about a point, in the warped space of its axis.
 * @param {"linear" | "log"} kind
 * @param {[number, number]} view
 * @param {number} centre  value that stays where it is
 * @param {number} factor  above 1: more is seen
 * @returns {[number, number]}
 */
export function zoomed(kind, [low, high], centre, factor) {
  if (kind === "log") {
    const [a, b, c] = [low, high, centre].map(Math.log10);
    return [10 ** (c - (c - a) * factor), 10 ** (c + (b - c) * factor)];
  }
  return [centre - (centre - low) * factor, centre + (high - centre) * factor];
}
