/** Axes of values of any kind, for parallel coordinates and scatter plots: numbers, or words side by side. Pure. */

import { plain, short } from "../core/format.js";
import { byName } from "../core/pattern.js";
import { scale } from "../chart/scale.js";
import { ticks } from "../chart/ticks.js";

const LOG_FROM = 50; // positive numbers that lie this many times apart are shown on a log axis

/**
 * @typedef {object} Axis
 * @property {string} field
 * @property {"linear" | "log" | "words"} kind
 * @property {(value: any, from: number, to: number) => number | null} place  pixel of a value; `null`: it has none
 * @property {(from: number, to: number) => {at: number, label: string}[]} marks
 */

/**
 * @param {string} field
 * @param {any[]} values
 * @param {boolean} [flipLog]  the other kind than the values suggest
 * @returns {Axis}
 */
export function axisOf(field, values, flipLog = false) {
  const given = values.filter((value) => value !== null && value !== undefined);
  const numbers = given.filter((value) => typeof value === "number" && Number.isFinite(value));
  if (numbers.length && numbers.length >= given.length * 0.5) {
    const low = Math.min(...numbers);
    const high = Math.max(...numbers);
    const isLog = low > 0 && (high / low >= LOG_FROM) !== flipLog;
    const kind = isLog ? "log" : "linear";
    /** @type {[number, number]} */
    const range = high > low ? [low, high] : isLog ? [low / 2, high * 2] : [low - 0.5, high + 0.5];
    return {
      field, kind,
      place: (value, from, to) => (typeof value === "number" && Number.isFinite(value) ? scale(kind, range, [from, to]).to(value) : null),
      marks: (from, to) => {
        const at = scale(kind, range, [from, to]);
        const few = ticks(kind, range[0], range[1], 4).map(({ value, label }) => ({ at: at.to(value), label }));
        return few.length > 1 ? few : range.map((value) => ({ at: at.to(value), label: short(value) }));
      },
    };
  }
  const words = [...new Set(given.map(plain))].sort(byName);
  const spot = (/** @type {number} */ i, /** @type {number} */ from, /** @type {number} */ to) => from + ((i + 0.5) / Math.max(1, words.length)) * (to - from);
  return {
    field, kind: "words",
    place: (value, from, to) => (value === null || value === undefined ? null : spot(words.indexOf(plain(value)), from, to)),
    marks: (from, to) => {
      const every = Math.ceil(words.length / 20);
      return words.map((word, i) => ({ at: spot(i, from, to), label: word.length > 16 ? `${word.slice(0, 15)}…` : word })).filter((_, i) => i % every === 0);
    },
  };
}
