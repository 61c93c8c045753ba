/**
 * Lines as paths with no more vertices than can be seen: first, lowest, highest and last point of each pixel column.
 * What comes out covers the same pixels as drawing every point. Pure: it writes to anything with `moveTo` and `lineTo`.
 *
 * Source: Jugel et al., "M4: A Visualization-Oriented Time Series Data Aggregation", PVLDB 7(10), 2014.
 */

/**
 * @param {{moveTo: (x: number, y: number) => void, lineTo: (x: number, y: number) => void}} path
 * @param {ArrayLike<number>} x
 * @param {ArrayLike<number>} y
 * @param {number} from  first index
 * @param {number} to    last index
 * @param {import("./scale.js").Scale} sx
 * @param {import("./scale.js").Scale} sy
 * @param {number[]} breaks  indexes at which the pen is lifted
 * @returns {number}  points without a place on the axes (0 or less on a log axis)
 */
export function trace(path, x, y, from, to, sx, sy, breaks) {
  // Linear scales are written out: a call for every point would cost most of the time.
  const kx = sx.to(sx.high) - sx.to(sx.low);
  const ax = kx / (sx.high - sx.low || 1);
  const bx = sx.to(sx.low) - sx.low * ax;
  const ay = (sy.to(sy.high) - sy.to(sy.low)) / (sy.high - sy.low || 1);
  const by = sy.to(sy.low) - sy.low * ay;
  const isLinearX = sx.kind === "linear";
  const isLinearY = sy.kind === "linear";
  let next = 0;
  while (next < breaks.length && breaks[next] <= from) next++;
  let isDown = false;
  let column = NaN;
  let first = 0;
  let low = 0;
  let high = 0;
  let last = 0;
  let held = 0;
  let place = 0;
  let dropped = 0;

  const flush = () => {
    if (!held) return;
    if (held === 1) isDown ? path.lineTo(place, first) : path.moveTo(place, first);
    else {
      isDown ? path.lineTo(place, first) : path.moveTo(place, first);
      if (low !== first) path.lineTo(place, low);
      if (high !== low) path.lineTo(place, high);
      if (last !== high) path.lineTo(place, last);
    }
    isDown = true;
    held = 0;
  };

  for (let i = from; i <= to; i++) {
    if (i === breaks[next]) {
      flush();
      isDown = false;
      next++;
    }
    const value = y[i];
    const at = x[i];
    if (!(value - value === 0)) { // NaN and infinities: a gap
      flush();
      isDown = false;
      column = NaN;
      continue;
    }
    if ((!isLinearY && value <= 0) || (!isLinearX && at <= 0)) {
      dropped++;
      flush();
      isDown = false; // a line through what is left out would be invented
      column = NaN;
      continue;
    }
    const px = isLinearX ? bx + at * ax : sx.to(at);
    const py = isLinearY ? by + value * ay : sy.to(value);
    const own = Math.floor(px);
    if (held && own === column) {
      if (py > low) low = py;
      if (py < high) high = py;
      last = py;
      held++;
    } else {
      flush();
      column = own;
      place = px;
      first = low = high = last = py;
      held = 1;
    }
  }
  flush();
  return dropped;
}

/**
 * Points that stand alone between gaps: a path through one point shows nothing.
 * @param {ArrayLike<number>} y
 * @param {number} from
 * @param {number} to
 * @returns {number[]}
 */
export function lonely(y, from, to) {
  const found = [];
  const isGap = (/** @type {number} */ i) => i < from || i > to || !Number.isFinite(y[i]);
  for (let i = from; i <= to; i++) if (!isGap(i) && isGap(i - 1) && isGap(i + 1)) found.push(i);
  return found;
}
