/** The one tooltip of all charts. */

import { duration, exact, moment, short } from "../core/format.js";
import { fill, h } from "../core/h.js";

/** @typedef {{line: import("./series.js").Line, index: number, distance: number}} Row  distance in pixels from the pointer */

const order = { by: /** @type {"nearest" | "value"} */ ("nearest"), rows: 12 };
/** @type {any} */
let element = null;

/** How x is said. @param {number} x @param {import("./ticks.js").Unit} unit @param {string} name */
export function xText(x, unit, name) {
  return unit === "clock" ? moment(x) : unit === "duration" ? duration(x) : `${name} ${Number.isInteger(x) ? x.toLocaleString("en-US") : short(x, 7)}`;
}

/**
 * @param {Row[]} rows
 * @param {{x: number, unit: import("./ticks.js").Unit, xName: string, focus: string, kept: boolean, at: {x: number, y: number}, home: Element, again: () => void}} how  `at`: on the screen
 */
export function showTooltip(rows, { x, unit, xName, focus, kept, at, home, again }) {
  const dialog = home.closest("dialog") ?? document.body;
  element ??= h("div.tooltip", { id: "tooltip", role: "tooltip" });
  if (element.parentElement !== dialog) dialog.append(element);
  const sorted = [...rows].sort(order.by === "nearest" ? (a, b) => a.distance - b.distance : (a, b) => valueOf(b) - valueOf(a));
  const shown = sorted.slice(0, order.rows);
  const isSmooth = rows.some(({ line }) => line.points.smooth);
  const isBand = rows.some(({ line }) => line.points.low);
  element.classList.toggle("kept", kept);
  fill(element,
    h("div.tooltip-head", { data: { x: String(x) } }, xText(x, unit, xName), kept && [h("span.spacer"), choice("nearest", again), choice("value", again)]),
    h("div.tooltip-rows", { style: { "--columns": String(2 + Number(isSmooth) + Number(isBand)) } },
      shown.map(({ line, index }) => row(line, index, focus, isSmooth, isBand))),
    sorted.length > shown.length && h("div.tooltip-more", null, kept
      ? h("button.link", { type: "button", onclick: () => { order.rows = order.rows === 12 ? 100 : 12; again(); } }, `${sorted.length - shown.length} more`)
      : `${sorted.length - shown.length} more`));
  element.hidden = false;
  const box = element.getBoundingClientRect();
  const left = at.x + 16 + box.width > innerWidth ? at.x - 16 - box.width : at.x + 16;
  element.style.transform = `translate(${Math.max(4, left)}px, ${Math.max(4, Math.min(at.y + 12, innerHeight - box.height - 4))}px)`;
}

export function hideTooltip() {
  if (element) element.hidden = true;
}

/** @param {Row} row */
const valueOf = ({ line, index }) => {
  const value = (line.points.smooth ?? line.points.y)[index];
  return Number.isNaN(value) ? -Infinity : value;
};

/** @param {"nearest" | "value"} by @param {() => void} again */
const choice = (by, again) => h("button.link", { type: "button", "aria-pressed": order.by === by, onclick: () => { order.by = by; again(); } }, by);

/** @param {import("./series.js").Line} line @param {number} i @param {string} focus @param {boolean} isSmooth @param {boolean} isBand */
function row(line, i, focus, isSmooth, isBand) {
  const { points } = line;
  const on = line.run === focus ? " focus" : "";
  const value = points.low ? short(points.y[i], 6) : exactly(points.y[i]);
  return [
    h(`span.swatch${on.replace(" ", ".")}`, { style: { background: line.colour } }),
    h(`span.tooltip-name${on.replace(" ", ".")}`, { data: { run: line.run } }, line.label),
    isSmooth && h("b.figure", { data: { part: "smooth", value: points.smooth ? exact(points.smooth[i]) : "" } }, points.smooth ? short(points.smooth[i], 6) : ""),
    h(`${isSmooth ? "span.faint" : "b"}.figure`, { data: { part: "raw", value: exact(points.y[i]) } }, value),
    isBand && h("span.faint.figure", { data: { part: "band" } }, points.low && points.high
      ? `${short(points.low[i])} … ${short(points.high[i])}${points.n ? ` (${points.n[i].toLocaleString("en-US")})` : ""}` : ""),
  ];
}

/** As logged; whole numbers without the `.0` of Python. @param {number} value */
const exactly = (value) => (Number.isInteger(value) ? String(value) : exact(value));
