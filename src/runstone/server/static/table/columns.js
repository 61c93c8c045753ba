/** What a column of the run table is called, how wide it is, and how its values are shown. Pure. */

import { ago, duration, moment, numeric, plain, plainName, short } from "../core/format.js";

/** @typedef {{field: string, width: number, title: string, kind: "text" | "number" | "time" | "duration" | "status"}} Column */

const TIMES = new Set(["started_at", "ended_at"]);
const WIDTHS = /** @type {Record<string, number>} */ ({ status: 92, started_at: 100, ended_at: 100, duration: 86, attempts: 70, id: 150 });
const LOWER = /(^|[/_.\- ])(loss|err|error|mse|mae|rmse|nll|perplexity|ppl|regret|wer|cer|fid|eer|divergence|kl)([/_.\- \d]|$)/i;
const HIGHER = /(^|[/_.\- ])(acc|accuracy|f1|auc|auroc|ap|map|precision|recall|score|reward|return|iou|miou|dice|bleu|rouge|psnr|ssim|r2)([/_.\- \d]|$)/i;

/**
 * Columns of the state: a field, and a width after `~` where someone pulled at it.
 * @param {string[]} columns
 * @param {number} [usual]  width of numbers: more where something stands beside them
 * @returns {Column[]}
 */
export const readColumns = (columns, usual = 104) => columns.map((text) => {
  const [, field, width] = /** @type {RegExpMatchArray} */ (text.match(/^(.*?)(?:~(\d+))?$/s));
  const kind = TIMES.has(field) ? "time" : field === "duration" ? "duration" : field === "status" ? "status" : field.startsWith("metrics.") || field === "attempts" ? "number" : "text";
  return { field, kind, title: titleOf(field), width: Number(width) || WIDTHS[field] || (kind === "number" ? usual : 112) };
});

/** @param {Column[]} columns @returns {string[]} */
export const writeColumns = (columns) => columns.map(({ field, width }) => `${field}~${Math.round(width)}`);

/** @param {string} field */
export function titleOf(field) {
  const names = /** @type {Record<string, string>} */ ({ started_at: "started", ended_at: "ended" });
  return names[field] ?? plainName(field);
}

/** @param {any} value @param {Column} column @param {number} now  seconds since the epoch */
export function cellText(value, column, now) {
  if (value === null || value === undefined) return "";
  switch (column.kind) {
    case "time": return ago(value, now);
    case "duration": return duration(value);
    case "number": return typeof value === "number" ? short(value, 5) : short(numeric(value), 5);
    default: return plain(numeric(value));
  }
}

/** The whole value, for whoever rests on a cell. @param {any} value @param {Column} column */
export function cellTitle(value, column) {
  if (value === null || value === undefined) return "";
  if (column.kind === "time") return moment(value);
  return typeof value === "string" ? value : JSON.stringify(value);
}

/**
 * Whether a metric is better when lower (-1) or higher (1), by its name; 0 where nobody can say.
 * @param {string} field
 */
export function direction(field) {
  const name = titleOf(field);
  return LOWER.test(name) ? -1 : HIGHER.test(name) ? 1 : 0;
}

/** @param {string[]} sort  fields, "-" before one means descending */
export const orderBy = (sort) => sort.map((field) => (field.startsWith("-") ? `${field.slice(1)} desc` : field)).join(", ");

/**
 * The sort after a click on a header: descending, ascending, none. With `add` the others stay.
 * @param {string[]} sort
 * @param {string} field
 * @param {boolean} add
 */
export function clicked(sort, field, add) {
  const others = sort.filter((each) => each !== field && each !== `-${field}`);
  const isFirst = field.startsWith("metrics.") || field === "started_at" ? `-${field}` : field;
  const second = isFirst === field ? `-${field}` : field;
  const next = sort.includes(isFirst) ? [second] : sort.includes(second) ? [] : [isFirst];
  return add ? [...others, ...next] : next;
}

/** A text as the filter language quotes it. @param {string} text */
export const quoted = (text) => `'${text.replaceAll("\\", "\\\\").replaceAll("'", "''")}'`;

/** Conditions that all hold. @param {...string} parts */
export const every = (...parts) => {
  const given = parts.filter((part) => part.trim());
  return given.length > 1 ? given.map((part) => `(${part})`).join(" and ") : given[0] ?? "";
};

/** @param {string} field @param {string[]} values */
export const among = (field, values) => `${field} in (${values.map(quoted).join(", ")})`;

/** `field = value` for any JSON value. @param {string} field @param {any} value */
export const equals = (field, value) => (value === null || value === undefined ? `${field} is null`
  : `${field} = ${typeof value === "string" && !["NaN", "Infinity", "-Infinity"].includes(value) ? quoted(value)
    : typeof value === "object" ? quoted(JSON.stringify(value)) : String(numeric(value)).replace("Infinity", "inf").replace("NaN", "nan")}`);
