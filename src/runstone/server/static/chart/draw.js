/** Painting a chart. It gets a context, a layout and lines, and keeps nothing. */

import { lonely, trace } from "./reduce.js";

/** @typedef {import("./layout.js").Layout} Layout */
/** @typedef {import("./series.js").Line} Line */
/** @typedef {CanvasRenderingContext2D} Context */

/**
 * @typedef {object} Ink
 * @property {string} ground
 * @property {string} text
 * @property {string} grid
 * @property {string} axis
 * @property {string} accent
 */

const FONT = "11px system-ui, sans-serif";
const RAW_ALPHA = 0.3; // of the line behind a smoothed one
const BAND_ALPHA = 0.2;
const SPIKE = 4; // a bucket this many times as high as the usual one has its extremes drawn whole

/** @param {Context} g @param {Layout} layout @param {Ink} ink @param {number} width @param {number} height */
export function drawAxes(g, layout, ink, width, height) {
  g.clearRect(0, 0, width, height);
  const { left, top, width: w, height: h, sx, sy, xTicks, yTicks } = layout;
  g.font = FONT;
  g.lineWidth = 1;
  g.strokeStyle = ink.grid;
  g.fillStyle = ink.text;
  g.beginPath();
  g.textAlign = "right";
  g.textBaseline = "middle";
  for (const { value, label } of yTicks) {
    const y = Math.round(sy.to(value)) + 0.5;
    g.moveTo(left, y);
    g.lineTo(left + w, y);
    g.fillText(label, left - 6, y);
  }
  g.textAlign = "center";
  g.textBaseline = "top";
  for (const { value, label } of xTicks) {
    const x = Math.round(sx.to(value)) + 0.5;
    g.moveTo(x, top);
    g.lineTo(x, top + h);
    const half = g.measureText(label).width / 2;
    g.fillText(label, Math.max(half, Math.min(x, width - half - 1)), top + h + 6);
  }
  g.stroke();
  g.strokeStyle = ink.axis;
  g.beginPath();
  g.moveTo(left, top + h + 0.5);
  g.lineTo(left + w, top + h + 0.5);
  g.stroke();
}

/** Keep what follows inside the plot. @param {Context} g @param {Layout} layout @param {() => void} paint */
export function inside(g, layout, paint) {
  g.save();
  g.beginPath();
  g.rect(layout.left, layout.top - 2, layout.width, layout.height + 3);
  g.clip();
  paint();
  g.restore();
}

/**
 * One line: its band, its raw course, and the smoothed one above it.
 * @param {Context} g
 * @param {Layout} layout
 * @param {Line} line
 * @param {[number, number]} span
 * @param {{width?: number}} [how]
 */
export function drawLine(g, layout, line, [from, to], { width = 1 } = {}) {
  const { points } = line;
  if (to < from) return;
  const { sx, sy } = layout;
  g.strokeStyle = g.fillStyle = line.colour;
  g.lineJoin = "bevel";
  g.lineWidth = line.isBaseline ? Math.max(2, width) : width;
  if (points.low && points.high) drawBand(g, layout, line, from, to, points.smooth !== null);
  if (points.smooth) g.globalAlpha = RAW_ALPHA;
  g.setLineDash(points.smooth ? [] : line.dash);
  g.beginPath();
  trace(g, points.x, points.y, from, to, sx, sy, points.breaks);
  g.stroke();
  for (const i of lonely(points.y, from, to)) dot(g, sx.to(points.x[i]), sy.to(points.y[i]), 1.8);
  g.globalAlpha = 1;
  if (points.smooth) {
    g.setLineDash(line.dash);
    g.beginPath();
    trace(g, points.x, points.smooth, from, to, sx, sy, points.breaks);
    g.stroke();
  }
  g.setLineDash([]);
}

/** @param {Context} g @param {Layout} layout @param {Line} line @param {number} from @param {number} to @param {boolean} isSmoothed */
function drawBand(g, layout, line, from, to, isSmoothed) {
  const { x, y, low, high } = line.points;
  if (!low || !high) return;
  const { sx, sy } = layout;
  const floor = layout.top + layout.height;
  const at = (/** @type {number} */ v) => (sy.kind === "log" && v <= 0 ? floor : sy.to(v));
  /** @type {number[]} */
  const heights = [];
  g.globalAlpha = line.points.last ? BAND_ALPHA : BAND_ALPHA * 0.7;
  g.beginPath();
  let start = from;
  const close = (/** @type {number} */ end) => {
    for (let i = start; i < end; i++) i === start ? g.moveTo(sx.to(x[i]), at(high[i])) : g.lineTo(sx.to(x[i]), at(high[i]));
    for (let i = end - 1; i >= start; i--) g.lineTo(sx.to(x[i]), at(low[i]));
  };
  for (let i = from; i <= to; i++) {
    if (high[i] - low[i] >= 0) {
      heights.push(high[i] - low[i]);
      continue;
    }
    if (i > start) close(i);
    start = i + 1;
  }
  if (to >= start) close(to + 1);
  g.fill();
  g.globalAlpha = 1;
  if (!line.points.last) return; // the band of a group: its members' spikes are not its own
  // a single point far from its neighbours is seen at its own height, in the line's own colour
  heights.sort((a, b) => a - b);
  const usual = heights[Math.floor(heights.length / 2)] ?? 0;
  g.globalAlpha = isSmoothed ? 0.6 : 1;
  g.beginPath();
  for (let i = from; i <= to; i++) {
    if (!(high[i] - low[i] > SPIKE * usual)) continue;
    const px = Math.round(sx.to(x[i])) + 0.5;
    const middle = at(y[i]);
    const upper = at(high[i]);
    const under = at(low[i]);
    if (middle - upper > 2) { g.moveTo(px, middle); g.lineTo(px, upper - 0.5); }
    if (under - middle > 2) { g.moveTo(px, middle); g.lineTo(px, under + 0.5); }
  }
  g.stroke();
  g.globalAlpha = 1;
}

/**
 * What is not finite: a cross on the axis for NaN, a wedge at the edge for infinities. And where attempts begin, steps go back, and
 * a run goes on from another.
 * @param {Context} g
 * @param {Layout} layout
 * @param {Line} line
 * @param {[number, number]} span
 */
export function drawMarks(g, layout, line, [from, to]) {
  const { points } = line;
  const { sx, top, height } = layout;
  const bottom = top + height - 5;
  g.strokeStyle = g.fillStyle = line.colour;
  g.lineWidth = 1.5;
  if (points.nan + points.inf > 0) {
    let before = -10;
    for (let i = from; i <= to; i++) {
      const value = points.y[i];
      const isInfinite = points.infinite ? points.infinite[i] > 0 : value === Infinity || value === -Infinity;
      if (!isInfinite && !(points.n ? (points.lost?.[i] ?? 0) > 0 : Number.isNaN(value))) continue;
      const x = sx.to(points.x[i]);
      if (x - before < 3 && x >= before) continue;
      before = x;
      const below = (points.n ? points.last?.[i] : value) === -Infinity;
      if (!isInfinite) cross(g, x, bottom);
      else wedge(g, x, below ? top + height - 4 : top + 4, below ? -1 : 1);
    }
  }
  for (const { x } of points.attempts) begin(g, layout, x, true);
  for (const x of points.restarts) begin(g, layout, x, false);
  if (line.isFork && points.x0 > 0 && points.x[0] === points.x0) ring(g, sx.to(points.x[0]), layout.sy.to(points.y[0]));
}

/** A flag: full where an attempt begins, open where steps go back within one. @param {Context} g @param {Layout} layout @param {number} x @param {boolean} isFull */
function begin(g, { sx, top, height }, x, isFull) {
  if (x < sx.low || x > sx.high) return;
  const px = Math.round(sx.to(x)) + 0.5;
  g.lineWidth = 1;
  g.setLineDash([2, 3]);
  g.beginPath();
  g.moveTo(px, top);
  g.lineTo(px, top + height);
  g.stroke();
  g.setLineDash([]);
  g.beginPath();
  g.moveTo(px, top);
  g.lineTo(px + 7, top + 3.5);
  g.lineTo(px, top + 7);
  isFull ? g.fill() : g.stroke();
}

/** @param {Context} g @param {number} x @param {number} y */
function ring(g, x, y) {
  g.lineWidth = 1.5;
  g.beginPath();
  g.arc(x, y, 4, 0, 7);
  g.stroke();
}

/** @param {Context} g @param {number} x @param {number} y */
function cross(g, x, y) {
  g.beginPath();
  g.moveTo(x - 3, y - 3);
  g.lineTo(x + 3, y + 3);
  g.moveTo(x + 3, y - 3);
  g.lineTo(x - 3, y + 3);
  g.stroke();
}

/** @param {Context} g @param {number} x @param {number} y @param {1 | -1} up */
function wedge(g, x, y, up) {
  g.beginPath();
  g.moveTo(x, y - 4 * up);
  g.lineTo(x + 4, y + 3 * up);
  g.lineTo(x - 4, y + 3 * up);
  g.fill();
}

/** @param {Context} g @param {number} x @param {number} y @param {number} radius */
export function dot(g, x, y, radius) {
  g.beginPath();
  g.arc(x, y, radius, 0, 7);
  g.fill();
}

/**
 * What lies over the lines: the selection, the crosshair, the run in focus.
 * @param {Context} g
 * @param {Layout} layout
 * @param {Line[]} lines
 * @param {Ink} ink
 * @param {{x: number | null, focus: string, at: number[], box: [number, number, number, number] | null, width: number, height: number}} over
 */
export function drawOver(g, layout, lines, ink, { x, focus, at, box, width, height }) {
  g.clearRect(0, 0, width, height);
  const { left, top, width: w, height: h, sx, sy } = layout;
  if (focus && lines.length > 1) {
    const index = lines.findIndex((line) => line.run === focus);
    if (index >= 0) {
      g.globalAlpha = 0.62; // a veil, so that nothing below needs painting again
      g.fillStyle = ink.ground;
      g.fillRect(left, top - 1, w, h + 1);
      g.globalAlpha = 1;
      inside(g, layout, () => lines.forEach((line, k) => line.run === focus && drawLine(g, layout, line, layout.spans[k], { width: 2 })));
    }
  }
  if (box) {
    g.fillStyle = g.strokeStyle = ink.accent;
    g.globalAlpha = 0.14;
    g.fillRect(box[0], box[1], box[2], box[3]);
    g.globalAlpha = 0.7;
    g.lineWidth = 1;
    g.strokeRect(box[0] + 0.5, box[1] + 0.5, box[2], box[3]);
    g.globalAlpha = 1;
  }
  if (x === null || x < sx.low || x > sx.high) return;
  const px = Math.round(sx.to(x)) + 0.5;
  g.strokeStyle = ink.axis;
  g.lineWidth = 1;
  g.beginPath();
  g.moveTo(px, top);
  g.lineTo(px, top + h);
  g.stroke();
  const many = lines.length > 40;
  lines.forEach((line, k) => {
    const i = at[k];
    if (i < 0 || (many && line.run !== focus)) return;
    const y = (line.points.smooth ?? line.points.y)[i];
    if (!Number.isFinite(y) || (sy.kind === "log" && y <= 0)) return;
    g.fillStyle = line.colour;
    dot(g, sx.to(line.points.x[i]), sy.to(y), line.run === focus ? 4 : 2.6);
  });
}
