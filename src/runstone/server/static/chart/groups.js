/** Many runs as one line: the mean of a group at every x, and how far its runs lie apart. Pure. */

/** @typedef {import("./series.js").Points} Points */

/**
 * One place along x. Sums of squares are taken about a value near the mean (`shift`), or small spreads would vanish.
 * @typedef {{x: number, n: number, sum: number, squares: number, low: number, high: number, smooth: number, shift: number}} Place
 */

/**
 * Means over the runs that have a value at an x. Where points came in buckets, or every run has an x of its own, places as wide as
 * two pixels are one x, and a run counts in each with the mean of what it has there.
 * @param {Points[]} members
 * @param {"minmax" | "std" | "ci"} band  `std`: mean ± one standard deviation; `ci`: 95 % of the mean, by the normal distribution
 * @param {number} columns  of the chart
 * @returns {Points}
 */
export function mean(members, band, columns) {
  const x0 = members.reduce((low, points) => (points.x0 < low ? points.x0 : low), Infinity);
  const x1 = members.reduce((high, points) => (points.x1 > high ? points.x1 : high), -Infinity);
  const longest = members.reduce((most, points) => Math.max(most, points.x.length), 0);
  let places = members.every((points) => points.level === "raw") ? gather(members, 0, 0) : null;
  if (!places || places.size > 2 * longest) places = gather(members, x0, (x1 - x0) / columns || 1);
  const all = [...places.values()].sort((a, b) => a.x - b.x);
  const y = Float64Array.from(all, (at) => at.sum / at.n);
  const spread = (/** @type {Place} */ at, /** @type {number} */ i) => {
    if (at.n < 2) return 0;
    const off = y[i] - at.shift;
    const deviation = Math.sqrt(Math.max(0, (at.squares / at.n - off * off) * (at.n / (at.n - 1))));
    return band === "std" ? deviation : (1.96 * deviation) / Math.sqrt(at.n);
  };
  const hasSmooth = members.some((points) => points.smooth);
  const sum = (/** @type {"total" | "nan" | "inf" | "dropped"} */ key) => members.reduce((total, points) => total + points[key], 0);
  return {
    level: "band",
    x: Float64Array.from(all, (at) => at.x),
    y,
    low: Float64Array.from(all, (at, i) => (band === "minmax" ? at.low : y[i] - spread(at, i))),
    high: Float64Array.from(all, (at, i) => (band === "minmax" ? at.high : y[i] + spread(at, i))),
    smooth: hasSmooth ? Float64Array.from(all, (at) => at.smooth / at.n) : null,
    n: Uint32Array.from(all, (at) => at.n),
    last: null, lost: null, infinite: null, token: "",
    total: sum("total"), nan: sum("nan"), inf: sum("inf"), dropped: sum("dropped"), repeated: 0,
    x0, x1, breaks: [], attempts: [], restarts: [], isAscending: true, error: "",
  };
}

/**
 * @param {Points[]} members
 * @param {number} from   where places begin
 * @param {number} width  of a place; 0: every x is one
 * @returns {Map<number, Place>}
 */
function gather(members, from, width) {
  /** @type {Map<number, Place>} */
  const places = new Map();
  for (const points of members) {
    const { x, y, low, high, smooth, n } = points;
    const count = x.length;
    /** @type {Set<number> | null} a step that comes again later counts once */
    const seen = points.isAscending ? null : new Set();
    for (let i = 0; i < count; ) {
      const key = width ? Math.round((x[i] - from) / width) : x[i];
      let weight = 0;
      let value = 0;
      let smoothed = 0;
      let least = Infinity;
      let most = -Infinity;
      const at = x[i];
      for (; i < count && (width ? Math.round((x[i] - from) / width) === key : x[i] === key); i++) {
        if (!Number.isFinite(y[i]) || (!width && weight)) continue; // of a repeated step the first
        const points_ = n ? n[i] : 1; // the finite ones
        weight += points_;
        value += y[i] * points_;
        smoothed += (smooth ? smooth[i] : y[i]) * points_;
        least = Math.min(least, low ? low[i] : y[i]);
        most = Math.max(most, high ? high[i] : y[i]);
      }
      if (!weight || seen?.has(key)) continue;
      seen?.add(key);
      value /= weight;
      let place = places.get(key);
      if (!place) places.set(key, (place = { x: width ? from + key * width : at, n: 0, sum: 0, squares: 0, low: Infinity, high: -Infinity, smooth: 0, shift: value }));
      place.n++;
      place.sum += value;
      place.squares += (value - place.shift) ** 2;
      place.low = Math.min(place.low, least);
      place.high = Math.max(place.high, most);
      place.smooth += smoothed / weight;
    }
  }
  return places;
}
