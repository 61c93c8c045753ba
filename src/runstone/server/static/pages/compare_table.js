/** Values of runs beside each other, in sections and branches that can be closed. */

import { duration, moment, plain, short } from "../core/format.js";
import { fill, h } from "../core/h.js";
import { pattern } from "../core/pattern.js";
import { store } from "../core/state.js";
import { direction } from "../table/columns.js";
import { differs, majority, nested, same } from "./compare_rows.js";

/** Nobody expects these to be the same. */
const UNLIKE = /^(metrics\.|started_at$|duration$)/;

/**
 * @typedef {{name: string, rows: import("./compare_rows.js").Row[], equal?: number}} Section  `equal`: rows that were left out as they are the same
 * @typedef {{item: import("./parallel.js").Item, i: number}} Column  `i`: its place in the values of a row
 */

/** @param {AbortSignal} signal */
export function compareTable(signal) {
  /** @type {Set<string>} sections and branches */
  const closed = new Set();
  /** @type {Column[]} */
  let columns = [];
  /** @type {Section[]} */
  let sections = [];
  const place = h("div");
  const problem = h("span.field-error", { role: "alert" });
  const search = h("input", { type: "search", placeholder: "Search rows (regex)", "aria-label": "Search rows", oninput: draw });
  const only = h("button", { type: "button", onclick: () => store.set({ differences: !store.state.differences }) }, "Only differences");
  store.watch(["differences", "baseline"], draw, signal);

  /** @param {string} key */
  const toggle = (key) => {
    if (!closed.delete(key)) closed.add(key);
    fold();
  };

  /** Hide what lies in closed sections and branches; a search looks into them, too. */
  function fold() {
    const shut = search.value ? [] : [...closed];
    for (const row of place.querySelectorAll("tr[data-path]")) {
      const { path = "", isHead } = /** @type {HTMLElement} */ (row).dataset;
      /** @type {HTMLElement} */ (row).hidden = shut.some((key) => path.startsWith(key) && !(isHead && path === key));
      if (!isHead) continue;
      const isShut = shut.includes(path);
      row.querySelector("button")?.setAttribute("aria-expanded", String(!isShut));
      /** @type {HTMLElement} */ (row).classList.toggle("shut", isShut);
    }
  }

  function draw() {
    const { test, error } = pattern(search.value);
    problem.textContent = error;
    only.setAttribute("aria-pressed", String(store.state.differences));
    const base = columns.find(({ item }) => item.id === store.state.baseline);
    const of = (/** @type {import("./compare_rows.js").Row} */ row) => columns.map(({ i }) => row.values[i]);
    const cellsOf = (/** @type {import("./compare_rows.js").Row} */ row) => {
      const usual = UNLIKE.test(row.field) ? undefined : majority(of(row));
      return columns.map((column) => cell(row, column, usual, base && base !== column ? row.values[base.i] : undefined));
    };
    const { scrollTop = 0, scrollLeft = 0 } = place.firstElementChild ?? {};
    fill(place, h("div.compare-table", { tabIndex: 0, role: "region", "aria-label": "Values of the runs" }, h("table", null,
      h("thead", null, h("tr", null, h("th", { scope: "col" }, ""), columns.map(({ item }) => h("th", { scope: "col", title: item.id },
        h("span.row-of", { style: { "flex-wrap": "nowrap" } }, h("span.swatch", { style: { background: item.colour } }),
          h("a", { href: store.href({ page: "run", run: item.id }, { fresh: true }) }, item.label), item.id === store.state.baseline && h("span.faint", null, "baseline")))))),
      sections.map((section) => {
        const differing = new Set(section.rows.filter((row) => differs(of(row))));
        const rows = section.rows.filter((row) => test(row.field) && (!store.state.differences || differing.has(row)));
        const equal = (section.equal ?? 0) + section.rows.length - differing.size;
        const key = `${section.name}\n`;
        return h("tbody", null, head(key, section.name, 0, "section-row", store.state.differences && equal ? `${equal} equal` : ""),
          nested(rows).map((line) => ("group" in line ? head(key + line.group, line.title, line.depth, "branch-row", `${line.inner.length} rows`)
            : h("tr", { data: { path: key + line.path } }, h("th", { scope: "row", title: line.row.field, style: { "--depth": line.depth } }, line.title), cellsOf(line.row)))));
      }))));
    fold();
    place.firstElementChild?.scrollTo(scrollLeft, scrollTop);
  }

  /** @param {string} key @param {string} title @param {number} depth @param {string} kind @param {string} told */
  const head = (key, title, depth, kind, told) => h(`tr.${kind}`, { data: { path: key, isHead: "1" }, onclick: () => toggle(key) },
    h("th", { scope: "rowgroup", style: { "--depth": depth } }, h("button.link.fold", { type: "button", "aria-expanded": "true" }, title)),
    h("td", { colSpan: Math.max(1, columns.length) }, h("span.faint", null, told)));

  /** @param {import("./compare_rows.js").Row} row @param {Column} column @param {any} usual @param {any} base */
  function cell(row, { i }, usual, base) {
    const value = row.values[i];
    if (value === null || value === undefined) return h("td.missing", null, "missing");
    const isMetric = row.field.startsWith("metrics.");
    const isOdd = usual !== undefined && !same(value, usual);
    const off = isMetric && typeof base === "number" && typeof value === "number" ? value - base : null;
    const good = off === null ? 0 : Math.sign(off) * direction(row.field);
    return h("td.figure", { class: isOdd ? "differs" : "", title: plain(value) }, row.field === "started_at" ? moment(value) : row.field === "duration" ? duration(value) : typeof value === "number" ? short(value, 6) : plain(value),
      off !== null && h("span.delta", { class: good > 0 ? "good" : good < 0 ? "bad" : "" }, ` ${off > 0 ? "+" : ""}${short(off, 3)}`));
  }

  return {
    element: place,
    tools: [search, problem, only],
    /** @param {Column[]} nextColumns @param {Section[]} nextSections */
    set(nextColumns, nextSections) {
      columns = nextColumns;
      sections = nextSections;
      draw();
    },
  };
}
