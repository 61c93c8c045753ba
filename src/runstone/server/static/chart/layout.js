/** What a chart shows: the ranges of its axes and the place of its parts. Pure. */

import { lower, padded, scale } from "./scale.js";
import { ticks } from "./ticks.js";

/**
 * @typedef {object} View
 * @property {[number, number] | null} x  range, or the whole
 * @property {[number, number] | null} y
 * @property {boolean} logX
 * @property {boolean} logY
 * @property {boolean} robust   y from the 2nd to the 98th percentile
 * @property {import("./ticks.js").Unit} unit  of x
 */

/**
 * @typedef {object} Layout
 * @property {number} left
 * @property {number} top
 * @property {number} width   of the plot
 * @property {number} height
 * @property {import("./scale.js").Scale} sx
 * @property {import("./scale.js").Scale} sy
 * @property {import("./ticks.js").Tick[]} xTicks
 * @property {import("./ticks.js").Tick[]} yTicks
 * @property {[number, number][]} spans  first and last index of every line
 * @property {number} beyond  points above or below the range, where it leaves some out
 * @property {number} dropped  points without a place on a log axis
 */

const DIGIT = 6.3; // width of a character of a tick's label

/**
 * The range of x over all lines.
 * @param {import("./series.js").Line[]} lines
 * @param {boolean} isLog
 * @returns {[number, number] | null}
 */
export function wholeX(lines, isLog) {
  let low = Infinity;
  let high = -Infinity;
  for (const { points } of lines) {
    const x0 = isLog && !(points.x0 > 0) ? firstAbove(points.x) : points.x0;
    if (x0 < low) low = x0;
    if (points.x1 > high) high = points.x1;
  }
  if (!(high >= low)) return null;
  return high > low ? [low, high] : padded(isLog ? "log" : "linear", [low, high]);
}

/** @param {ArrayLike<number>} x */
function firstAbove(x) {
  let best = Infinity;
  for (let i = 0; i < x.length; i++) if (x[i] > 0 && x[i] < best) best = x[i];
  return best;
}

/**
 * Indexes that a range of x touches, with one neighbour on each side.
 * @param {import("./series.js").Points} points
 * @param {number} low
 * @param {number} high
 * @returns {[number, number]}
 */
export function span(points, low, high) {
  const count = points.x.length;
  if (!points.isAscending) return [0, count - 1];
  return [Math.max(0, lower(points.x, low) - 1), Math.min(count - 1, lower(points.x, high) + (points.x[lower(points.x, high)] === high ? 1 : 0))];
}

/**
 * The range of y over what is in view.
 * @param {import("./series.js").Line[]} lines
 * @param {[number, number][]} spans
 * @param {[number, number]} rangeX
 * @param {View} view
 * @returns {[number, number] | null}
 */
export function wholeY(lines, spans, [x0, x1], view) {
  let low = Infinity;
  let high = -Infinity;
  const smallest = view.logY ? Number.MIN_VALUE : -Infinity;
  /** @type {number[]} */
  const sample = [];
  lines.forEach(({ points }, k) => {
    const [from, to] = spans[k];
    const { x, y, low: least, high: most } = points;
    const every = view.robust ? Math.max(1, Math.floor((to - from + 1) / 2000)) : 0;
    for (let i = from; i <= to; i++) {
      if (x[i] < x0 || x[i] > x1) continue;
      const below = least ? least[i] : y[i];
      const above = most ? most[i] : y[i];
      if (below < low && below >= smallest && below > -Infinity) low = below;
      if (above > high && above < Infinity) high = above;
      if (every && i % every === 0 && Number.isFinite(y[i]) && y[i] >= smallest) sample.push(y[i]);
    }
  });
  if (sample.length > 20) {
    sample.sort((a, b) => a - b);
    low = sample[Math.floor(sample.length * 0.02)];
    high = sample[Math.ceil(sample.length * 0.98) - 1];
  }
  if (view.logY && low === Infinity && high > 0) low = high;
  return high >= low ? [low, high] : null;
}

/**
 * @param {import("./series.js").Line[]} lines
 * @param {View} view
 * @param {number} width   of the whole
 * @param {number} height
 * @returns {Layout | null}  nothing where there is nothing to show
 */
export function arrange(lines, view, width, height) {
  const kindX = view.logX ? "log" : "linear";
  let kindY = /** @type {"log" | "linear"} */ (view.logY ? "log" : "linear");
  const rangeX = view.x ?? wholeX(lines, view.logX);
  if (!rangeX || (view.logX && !(rangeX[0] > 0))) return null;
  const spans = lines.map(({ points }) => span(points, rangeX[0], rangeX[1]));
  const inView = view.y ?? wholeY(lines, spans, rangeX, view);
  if (kindY === "log" && inView && inView[0] <= 0) kindY = "linear"; // nothing above 0 is in view
  const rangeY = view.y ?? padded(kindY, inView ?? [0, 1]);

  const top = 8;
  const below = 22;
  const plotHeight = Math.max(10, height - top - below);
  const yTicks = ticks(kindY, rangeY[0], rangeY[1], Math.max(2, Math.floor(plotHeight / 38)));
  const left = Math.round(Math.max(30, 10 + DIGIT * Math.max(0, ...yTicks.map((t) => t.label.length))));
  const plotWidth = Math.max(10, width - left - 10);
  const xTicks = ticks(kindX, rangeX[0], rangeX[1], Math.max(2, Math.floor(plotWidth / 76)), view.unit);
  return {
    left, top, width: plotWidth, height: plotHeight,
    sx: scale(kindX, rangeX, [left, left + plotWidth]),
    sy: scale(kindY, rangeY, [top + plotHeight, top]),
    xTicks, yTicks, spans,
    beyond: view.robust || view.y ? countBeyond(lines, spans, rangeX, rangeY) : 0,
    dropped: view.logX || view.logY ? countDropped(lines, view) : 0,
  };
}

/** @param {import("./series.js").Line[]} lines @param {[number, number][]} spans @param {[number, number]} x @param {[number, number]} y */
function countBeyond(lines, spans, [x0, x1], [low, high]) {
  let beyond = 0;
  lines.forEach(({ points }, k) => {
    for (let i = spans[k][0]; i <= spans[k][1]; i++) {
      if (points.x[i] < x0 || points.x[i] > x1) continue;
      if ((points.low ?? points.y)[i] < low || (points.high ?? points.y)[i] > high) beyond++;
    }
  });
  return beyond;
}

/**
 * Of a bucket that reaches below 0 only one point is known to be left out.
 * @param {import("./series.js").Line[]} lines
 * @param {View} view
 */
function countDropped(lines, view) {
  let dropped = 0;
  for (const { points } of lines) {
    const { x, y, low, high, n } = points;
    for (let i = 0; i < x.length; i++) {
      if (view.logX && x[i] <= 0) dropped += n ? n[i] : 1;
      else if (view.logY && (high ?? y)[i] <= 0) dropped += n ? n[i] : 1;
      else if (view.logY && low && low[i] <= 0) dropped++;
    }
  }
  return dropped;
}
