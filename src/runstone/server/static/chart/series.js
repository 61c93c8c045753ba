/**
 * A line of a chart, and reading lines out of what `api/series` answers. Pure.
 *
 * The answer: u32 (little endian) length of a JSON head, the head, padding to a multiple of 8, then the arrays.
 */

import { numeric } from "../core/format.js";

/**
 * @typedef {object} Line
 * @property {string} key      run and metric, or the group
 * @property {string} run      id of the run, or the key of its group
 * @property {string} metric
 * @property {string} label    what people read
 * @property {string} colour
 * @property {number[]} dash
 * @property {boolean} isBaseline
 * @property {boolean} [isFork]  went on from another run
 * @property {Points} points
 */

/**
 * @typedef {object} Points
 * @property {number} total      points of the whole series
 * @property {string} token      names this answer, so that only what is new need come
 * @property {"raw" | "band"} level
 * @property {Float64Array} x
 * @property {Float64Array | Float32Array} y       value, or mean of a bucket
 * @property {Float32Array | Float64Array | null} low  lowest of the bucket
 * @property {Float32Array | Float64Array | null} high
 * @property {Float32Array | Float64Array | null} last
 * @property {Float32Array | Float64Array | null} smooth
 * @property {Uint32Array | null} n        points of the bucket
 * @property {Uint32Array | null} lost     how many of them are NaN
 * @property {Uint32Array | null} infinite how many are infinite
 * @property {number} nan
 * @property {number} inf
 * @property {number} dropped    without a place on the x axis
 * @property {number} x0         range of the whole series
 * @property {number} x1
 * @property {number} repeated   points with the step of the point before
 * @property {number[]} breaks   indexes at which the line begins anew: another attempt that begins further left, or steps that go back
 * @property {{attempt: number, x: number}[]} attempts  but the first
 * @property {number[]} restarts  places on the x axis to which steps went back within an attempt
 * @property {boolean} isAscending  along x
 * @property {string} error
 */

const ARRAYS = /** @type {Record<string, any>} */ ({ f64: Float64Array, f32: Float32Array, u32: Uint32Array });

/**
 * @param {ArrayBuffer} buffer
 * @returns {any[]}  heads in the order asked for, with `arrays` made arrays
 */
export function decode(buffer) {
  const size = new DataView(buffer).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, size)));
  const base = Math.ceil((4 + size) / 8) * 8;
  for (const series of head.series) {
    for (const [name, [offset, length, type]] of Object.entries(series.arrays ?? {})) {
      const Kind = ARRAYS[type];
      const at = base + offset;
      series.arrays[name] = at % Kind.BYTES_PER_ELEMENT ? new Kind(buffer.slice(at, at + length * Kind.BYTES_PER_ELEMENT)) : new Kind(buffer, at, length);
    }
  }
  return head.series;
}

/** @returns {Points} */
export function nothing(error = "") {
  const none = new Float64Array(0);
  return { total: 0, token: "", level: "raw", x: none, y: none, low: null, high: null, last: null, smooth: null, n: null, lost: null, infinite: null, nan: 0, inf: 0, dropped: 0, repeated: 0, x0: NaN, x1: NaN, breaks: [], attempts: [], restarts: [], isAscending: true, error };
}

/**
 * What one series of the answer comes to. Where only what is new came, the first `base` entries held before still stand.
 * @param {any} head
 * @param {Points | null} held
 * @returns {Points}
 */
export function pointsOf(head, held) {
  if (head.error) return nothing(head.error.message);
  if (head.unchanged && held) return held;
  const { arrays } = head;
  const isRaw = head.level === "raw";
  const base = held && head.base > 0 ? head.base : 0;
  const count = head.shown ?? base;
  const join = (/** @type {string} */ name, /** @type {any} */ before) => {
    const added = arrays[name];
    if (!base || !(before || added)) return added ?? null;
    const whole = new (added ?? before).constructor(count); // what is not named on one side is zero: counts of what is not finite
    if (before) whole.set(before.subarray(0, base));
    if (added) whole.set(added, base);
    return whole;
  };
  const none = new Float64Array(0);
  const x = join("x", held?.x) ?? none;
  const [x0, x1] = head.x_range ?? [NaN, NaN];
  const isOrdered = head.is_ordered !== false;
  const falls = /** @type {number[]} */ (head.restarts ?? []);
  const starts = (head.attempts ?? []).map((/** @type {any} */ one) => ({ attempt: one.attempt, at: one.from_index }));
  return {
    total: head.points,
    token: head.token ?? "",
    level: head.level,
    x,
    y: (isRaw ? join("y", held?.y) : join("mean", held?.y)) ?? none,
    low: isRaw ? null : join("min", held?.low),
    high: isRaw ? null : join("max", held?.high),
    last: isRaw ? null : join("last", held?.last),
    smooth: join("smooth", held?.smooth),
    n: isRaw ? null : join("n", held?.n),
    lost: isRaw ? null : join("nan", held?.lost),
    infinite: isRaw ? null : join("inf", held?.infinite),
    nan: head.nan ?? 0,
    inf: head.inf ?? 0,
    dropped: head.without_x ?? 0,
    x0: numeric(x0),
    x1: numeric(x1),
    repeated: head.repeated ?? 0,
    breaks: isOrdered ? [] : [...new Set([...falls, ...starts.map((/** @type {any} */ one) => one.at).filter((/** @type {number} */ at) => x[at] < x[at - 1])])].filter((at) => at > 0 && at < x.length).sort((a, b) => a - b),
    attempts: starts.slice(1).map((/** @type {any} */ one) => ({ attempt: one.attempt, x: x[one.at] })).filter((/** @type {any} */ one) => Number.isFinite(one.x)),
    restarts: falls.filter((at) => !starts.some((/** @type {any} */ one) => one.at === at)).map((at) => x[at]).filter(Number.isFinite),
    isAscending: isOrdered,
    error: "",
  };
}

/**
 * Index of the point nearest to x, or -1.
 * @param {Points} points
 * @param {number} x
 */
export function nearest(points, x) {
  const xs = points.x;
  if (!xs.length) return -1;
  if (!points.isAscending) {
    let best = 0;
    for (let i = 1; i < xs.length; i++) if (Math.abs(xs[i] - x) <= Math.abs(xs[best] - x)) best = i;
    return best;
  }
  let a = 0;
  let b = xs.length;
  while (a < b) {
    const middle = (a + b) >> 1;
    if (xs[middle] < x) a = middle + 1;
    else b = middle;
  }
  return a === 0 ? 0 : a === xs.length ? a - 1 : xs[a] - x < x - xs[a - 1] ? a : a - 1;
}
