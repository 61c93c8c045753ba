/** Values as people read them. Pure. */

/** JSON has no NaN and infinities: the API sends them as texts. @param {any} value @returns {any} */
export const numeric = (value) => (value === "NaN" ? NaN : value === "Infinity" ? Infinity : value === "-Infinity" ? -Infinity : value);

/**
 * A number in few characters, for tables and axes.
 * @param {number | null | undefined} value
 * @param {number} [digits]  significant ones
 */
export function short(value, digits = 4) {
  if (value === null || value === undefined) return "";
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "NaN" : value > 0 ? "∞" : "−∞";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e7) return minus(value.toLocaleString("en-US"));
  if (size >= 1e7 || size < 1e-4) return minus(value.toExponential(digits - 1).replace(/\.?0+e/, "e").replace("e+", "e"));
  return minus(String(Number(value.toPrecision(Math.max(digits, size >= 1 ? Math.floor(Math.log10(size)) + 1 : 0)))));
}

/** The number as Python prints it. @param {number} value */
export function exact(value) {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "nan" : value > 0 ? "inf" : "-inf";
  if (Number.isInteger(value) && Math.abs(value) < 1e16) return `${Object.is(value, -0) ? "-0" : value}.0`;
  const size = Math.abs(value);
  if (size < 1e16 && size >= 1e-4) return String(value);
  return value.toExponential().replace(/e([+-])(\d)$/, "e$10$2");
}

/** @param {string} text */
const minus = (text) => text.replace(/^-/, "−");

/** @param {number | null | undefined} seconds */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "";
  const sign = seconds < 0 ? "−" : "";
  const s = Math.abs(seconds);
  if (s < 1) return `${sign}${Math.round(s * 1000)} ms`;
  if (s < 60) return `${sign}${s < 10 ? s.toFixed(1) : Math.round(s)} s`;
  if (s < 3600) return `${sign}${Math.floor(s / 60)} m ${pad(s % 60)} s`;
  if (s < 86400) return `${sign}${Math.floor(s / 3600)} h ${pad((s % 3600) / 60)} m`;
  return `${sign}${Math.floor(s / 86400)} d ${pad((s % 86400) / 3600)} h`;
}

/** @param {number} value */
const pad = (value) => String(Math.floor(value)).padStart(2, "0");

/** @param {number | null | undefined} count */
export function bytes(count) {
  if (count === null || count === undefined) return "";
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  const power = count < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(count) / 10));
  return `${power === 0 ? count : short(count / 1024 ** power, 3)} ${units[power]}`;
}

/** Date and time of here, to the second. @param {number | null | undefined} at  seconds since the epoch */
export function moment(at) {
  if (at === null || at === undefined) return "";
  const d = new Date(at * 1000);
  return `${d.getFullYear()}-${pad(d.getMonth() + 1)}-${pad(d.getDate())} ${pad(d.getHours())}:${pad(d.getMinutes())}:${pad(d.getSeconds())}`;
}

/** How long ago. @param {number | null | undefined} at @param {number} [now] */
export function ago(at, now = Date.now() / 1000) {
  if (at === null || at === undefined) return "";
  const s = now - at;
  if (s < 10) return "just now";
  if (s < 60) return `${Math.round(s)} s ago`;
  if (s < 3600) return `${Math.round(s / 60)} min ago`;
  if (s < 86400) return `${Math.round(s / 3600)} h ago`;
  if (s < 86400 * 30) return `${Math.round(s / 86400)} d ago`;
  return moment(at).slice(0, 10);
}

/** @param {number} n @param {string} one @param {string} [many] */
export const count = (n, one, many = `${one}s`) => `${n.toLocaleString("en-US")} ${n === 1 ? one : many}`;

/** Any JSON value in one line. @param {any} value */
export function plain(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return short(value, 6);
  if (typeof value === "string") return value;
  return JSON.stringify(value);
}

/** A cell of a CSV file. @param {any} value */
export function csvCell(value) {
  if (value === null || value === undefined) return "";
  const text = typeof value === "string" ? value : typeof value === "number" ? String(value) : JSON.stringify(value);
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/**
 * A field's name as the filter language writes it.
 * @param {"metrics" | "params" | "tags"} kind
 * @param {string} name
 */
export function fieldName(kind, name) {
  return /^[\p{L}\p{N}_\-/.]+$/u.test(name) && !/^\.|\.$|\.\./.test(name) ? `${kind}.${name}` : `${kind}.'${name.replaceAll("'", "''")}'`;
}

/**
 * The name itself of a field of the filter language: without its kind, and without quotes.
 * @param {string} field
 */
export const plainName = (field) => field.replace(/^(metrics|params|tags)\./, "")
  .replace(/"((?:\\.|[^"\\])*)"|'((?:''|\\.|[^'\\])*)'|`([^`]*)`/g, (_, a, b, c) => (a ?? b?.replaceAll("''", "'") ?? c).replace(/\\(["'\\`])/g, "$1"));
