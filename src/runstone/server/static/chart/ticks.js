/** Where an axis has marks, and what they say. Pure. */

import { short } from "../core/format.js";

/** @typedef {"number" | "duration" | "clock"} Unit */
/** @typedef {{value: number, label: string}} Tick */

const MINUTE = 60;
const HOUR = 3600;
const DAY = 86400;
const TIME_STEPS = [1, 2, 5, 10, 15, 30, MINUTE, 2 * MINUTE, 5 * MINUTE, 10 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY, 2 * DAY, 7 * DAY, 14 * DAY, 28 * DAY];

/**
 * @param {"linear" | "log"} kind
 * @param {number} low
 * @param {number} high
 * @param {number} wanted  about how many
 * @param {Unit} [unit]
 * @returns {Tick[]}
 */
export function ticks(kind, low, high, wanted, unit = "number") {
  if (!(high > low) || !Number.isFinite(low) || !Number.isFinite(high)) return [];
  if (kind === "log") return logTicks(low, high, wanted);
  if (unit !== "number" && (high - low) / wanted >= 1) return timeTicks(low, high, wanted, unit);
  const step = niceStep((high - low) / Math.max(1, wanted));
  const say = unit === "duration" ? (/** @type {number} */ value) => `${label(value, step)}s` : unit === "clock" ? (/** @type {number} */ value) => instant(value, step) : (/** @type {number} */ value) => label(value, step);
  return along(low, high, step).map((value) => ({ value, label: say(value) }));
}

/** A moment of which parts of a second matter. @param {number} at @param {number} step */
function instant(at, step) {
  const digits = Math.max(0, Math.min(6, -Math.floor(Math.log10(step) + 1e-9)));
  const second = Math.floor(Number(at.toFixed(digits)));
  return `${clock(second, 1)}${digits ? (at - second).toFixed(digits).slice(1) : ""}`;
}

/** The next of 1, 2, 5 times a power of ten. @param {number} rough */
export function niceStep(rough) {
  const power = 10 ** Math.floor(Math.log10(rough));
  const part = rough / power;
  return (part <= 1.01 ? 1 : part <= 2.02 ? 2 : part <= 5.05 ? 5 : 10) * power;
}

/** @param {number} low @param {number} high @param {number} step */
function along(low, high, step) {
  const values = [];
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  if (last - first > 1000) return [];
  for (let i = first; i <= last; i++) values.push(i === 0 ? 0 : i * step);
  return values;
}

/** @param {number} value @param {number} step */
function label(value, step) {
  const size = Math.abs(value);
  if (size >= 1e6 || (size > 0 && size < 1e-3 && step < 1e-3)) return short(value, Math.min(6, Math.max(2, 1 + Math.ceil(Math.log10(size / step)))));
  const digits = Math.max(0, Math.min(12, -Math.floor(Math.log10(step) + 1e-9)));
  if (size >= 10_000 && step >= 100) return `${fixed(value / 1000, step >= 1000 ? 0 : 1)}k`;
  return fixed(value, digits);
}

/** @param {number} value @param {number} digits */
const fixed = (value, digits) => value.toFixed(digits).replace(/^-/, "−");

/** @param {number} low @param {number} high @param {number} wanted */
function logTicks(low, high, wanted) {
  const first = Math.floor(Math.log10(low));
  const last = Math.ceil(Math.log10(high));
  const decades = last - first;
  if (decades > 400) return [];
  const every = Math.max(1, Math.ceil(decades / wanted));
  const parts = decades <= wanted / 3 ? [1, 2, 5] : decades <= wanted / 2 ? [1, 3] : [1];
  const found = [];
  for (let power = first; power <= last; power += every) {
    for (const part of parts) {
      const value = Number(`${part}e${power}`); // exact, where 10 ** power may not be
      if (value >= low && value <= high) found.push({ value, label: Math.abs(power) > 4 ? `${part}e${power}`.replace("-", "−") : short(value) });
    }
  }
  return found.length > 1 ? found : ticks("linear", low, high, wanted);
}

/** @param {number} low @param {number} high @param {number} wanted @param {Unit} unit */
function timeTicks(low, high, wanted, unit) {
  const rough = (high - low) / wanted;
  const step = TIME_STEPS.find((each) => each >= rough) ?? Math.ceil(rough / (28 * DAY)) * 28 * DAY;
  // days begin at midnight of here
  const shift = unit === "clock" ? new Date(low * 1000).getTimezoneOffset() * 60 : 0;
  return along(low - shift, high - shift, step).map((each) => {
    const value = each + shift;
    return { value, label: unit === "clock" ? clock(value, step) : elapsed(value, step) };
  });
}

/** @param {number} at @param {number} step */
function clock(at, step) {
  const d = new Date(at * 1000);
  const pad = (/** @type {number} */ n) => String(n).padStart(2, "0");
  const day = `${pad(d.getMonth() + 1)}-${pad(d.getDate())}`;
  if (step >= DAY || (d.getHours() === 0 && d.getMinutes() === 0 && d.getSeconds() === 0)) return day;
  return `${pad(d.getHours())}:${pad(d.getMinutes())}${step < MINUTE ? `:${pad(d.getSeconds())}` : ""}`;
}

/** @param {number} s @param {number} step */
function elapsed(s, step) {
  if (s === 0) return "0";
  const size = Math.abs(s);
  const sign = s < 0 ? "−" : "";
  if (step >= DAY) return `${sign}${size / DAY}d`;
  const hours = Math.floor(size / HOUR);
  const minutes = Math.floor((size % HOUR) / MINUTE);
  const seconds = Math.round(size % MINUTE);
  if (step >= HOUR) return `${sign}${hours}h`;
  if (step >= MINUTE) return hours ? `${sign}${hours}h${minutes ? `${minutes}m` : ""}` : `${sign}${minutes}m`;
  return `${sign}${hours ? `${hours}h` : ""}${hours || minutes ? `${minutes}m` : ""}${seconds || (!hours && !minutes) ? `${seconds}s` : ""}`;
}
