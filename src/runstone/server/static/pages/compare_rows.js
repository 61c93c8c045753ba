/** Rows of a comparison: which differ, and how their names nest. Pure. */

import { byName } from "../core/pattern.js";
import { titleOf } from "../table/columns.js";

/**
 * @typedef {{field: string, values: any[]}} Row
 * @typedef {{row: Row, title: string, depth: number, path: string} | {group: string, title: string, depth: number, inner: Row[]}} Line
 */

/** What is missing is equal to nothing, NaN to NaN. @param {any} a @param {any} b */
export const same = (a, b) => (a === b ? a !== null && a !== undefined : typeof a === "object" && typeof b === "object" && a && b ? JSON.stringify(a) === JSON.stringify(b) : Number.isNaN(a) && Number.isNaN(b));

/** A row that no run has is no difference. @param {any[]} values */
export function differs(values) {
  if (values.length < 2 || values.every((value) => value === null || value === undefined)) return false;
  return values.some((value) => !same(value, values[0]));
}

/** What more than half of three or more have; `undefined`: there is no such value. @param {any[]} values */
export const majority = (values) => (values.length < 3 ? undefined : values.find((one) => values.filter((each) => same(each, one)).length * 2 > values.length));

/** The parts of a name; a dot behind a backslash belongs to its part. @param {string} title */
const partsOf = (title) => title.split(/(?<!\\)\./);

/**
 * Rows in the order of their names, those of one branch below a line of its own.
 * `path` is that of the branch that a row lies in, `group` that of a branch itself: it begins as that of what it lies in.
 * @param {Row[]} rows
 * @returns {Line[]}
 */
export function nested(rows) {
  const sorted = rows.map((row) => ({ row, parts: partsOf(titleOf(row.field)) })).sort((a, b) => byName(a.row.field, b.row.field));
  return level(sorted, 0, 0, "");
}

/**
 * @param {{row: Row, parts: string[]}[]} all
 * @param {number} from  parts that the lines above say
 * @param {number} depth
 * @param {string} path
 * @returns {Line[]}
 */
function level(all, from, depth, path) {
  /** @type {Map<string, typeof all>} */
  const branches = new Map();
  for (const each of all) branches.set(each.parts[from] ?? "", [...(branches.get(each.parts[from] ?? "") ?? []), each]);
  return [...branches].flatMap(([name, inner]) => {
    const isBranch = inner.length > 1 && inner.some(({ parts }) => parts.length > from + 1);
    if (!isBranch) return inner.map(({ row, parts }) => ({ row, title: parts.slice(from).join("."), depth, path }));
    const group = `${path}${name}.`;
    return [{ group, title: name, depth, inner: inner.map(({ row }) => row) }, ...level(inner, from + 1, depth + 1, group)];
  });
}
