/** Many runs as one line: the mean of a group at every x, and how far its runs lie apart. Pure. */

/** @typedef {import("./series.js").Points} Points */

/**
 * Means over the runs that have a value at an x. Where points came in buckets, buckets of the same place are one x.
 * @param {Points[]} members
 * @param {"minmax" | "std" | "ci"} band  `std`: mean ± one standard deviation; `ci`: 95 % of the mean, by the normal distribution
 * @param {number} columns  of the chart
 * @returns {Points}
 */
export function mean(members, band, columns) {
  const isRaw = members.every((points) => points.level === "raw");
  const x0 = Math.min(...members.map((p) => p.x0).filter(Number.isFinite));
  const x1 = Math.max(...members.map((p) => p.x1).filter(Number.isFinite));
  const width = (x1 - x0) / columns || 1;
  /** @type {Map<number, {x: number, n: number, sum: number, squares: number, low: number, high: number, smooth: number, shift: number, last: number}>} */
  const places = new Map();
  members.forEach((points, member) => {
    for (let i = 0; i < points.x.length; i++) {
      const value = points.y[i];
      if (!Number.isFinite(value)) continue;
      const key = isRaw ? points.x[i] : Math.round((points.x[i] - x0) / width);
      let at = places.get(key);
      if (!at) places.set(key, (at = { x: points.x[i], n: 0, sum: 0, squares: 0, low: Infinity, high: -Infinity, smooth: 0, shift: value, last: -1 }));
      if (at.last === member) continue; // one value a run: a repeated step counts once
      at.last = member;
      at.n++;
      at.sum += value;
      at.squares += (value - at.shift) ** 2; // about a value near the mean, or small spreads would vanish
      at.low = Math.min(at.low, points.low ? points.low[i] : value);
      at.high = Math.max(at.high, points.high ? points.high[i] : value);
      at.smooth += points.smooth ? points.smooth[i] : value;
    }
  });
  const all = [...places.values()].sort((a, b) => a.x - b.x);
  const y = Float64Array.from(all, (at) => at.sum / at.n);
  const spread = (/** @type {typeof all[0]} */ at, /** @type {number} */ i) => {
    if (at.n < 2) return 0;
    const off = y[i] - at.shift;
    const deviation = Math.sqrt(Math.max(0, (at.squares / at.n - off * off) * (at.n / (at.n - 1))));
    return band === "std" ? deviation : (1.96 * deviation) / Math.sqrt(at.n);
  };
  const hasSmooth = members.some((points) => points.smooth);
  return {
    total: members.reduce((sum, points) => sum + points.total, 0),
    level: "band",
    x: Float64Array.from(all, (at) => at.x),
    y,
    low: Float64Array.from(all, (at, i) => (band === "minmax" ? at.low : y[i] - spread(at, i))),
    high: Float64Array.from(all, (at, i) => (band === "minmax" ? at.high : y[i] + spread(at, i))),
    last: null,
    smooth: hasSmooth ? Float64Array.from(all, (at) => at.smooth / at.n) : null,
    n: Uint32Array.from(all, (at) => at.n),
    lost: null, infinite: null, token: "",
    nan: members.reduce((sum, p) => sum + p.nan, 0),
    inf: members.reduce((sum, p) => sum + p.inf, 0),
    dropped: members.reduce((sum, p) => sum + p.dropped, 0),
    x0, x1, breaks: [], attempts: [], isAscending: true, error: "",
  };
}
