/** Some runs beside each other: what differs, how their curves lie, what goes with what. */

import { get } from "../core/api.js";
import { count, duration, moment, numeric, plain, plainName, short } from "../core/format.js";
import { fill, h } from "../core/h.js";
import { onChanges } from "../core/live.js";
import { byName, pattern } from "../core/pattern.js";
import { store } from "../core/state.js";
import { colourOf, theme } from "../core/theme.js";
import { chartGrid } from "../chart/grid.js";
import { chartBar } from "../chart/toolbar.js";
import { among, direction, quoted, titleOf } from "../table/columns.js";
import { parallel } from "./parallel.js";
import { nothing, trouble } from "./parts.js";
import { scatter } from "./scatter.js";

const MOST_RUNS = 200;
const USUAL_RUNS = 10;
const MOST_FIELDS = 480; // columns of one question
const AXES = 6;
const RENEW_MS = 3000;

/** @param {import("./index.js").Frame} frame */
export async function open({ main, signal }) {
  const table = h("div");
  const stop = { signal };
  /** @type {string[] | null} ids inside the stretches of the parallel coordinates */
  let brushed = null;
  /** @type {import("./parallel.js").Item[]} */
  let items = [];
  /** @type {{name: string, rows: {field: string, values: any[]}[], equal?: number}[]} */
  let sections = [];
  /** @type {string[]} */
  let metrics = [];
  const closed = new Set();
  let timer = 0;

  const onOpen = (/** @type {{id: string}} */ item) => store.open(store.href({ page: "run", run: item.id, project: store.state.project }, { fresh: true }));
  const lines = parallel({ signal, onOpen, onBrush: (ids) => { brushed = ids; drawTable(); tellGrid(); } });
  const points = scatter({ signal, onOpen });
  const across = h("select", { "aria-label": "Horizontal axis of the scatter plot", onchange: drawScatter });
  const up = h("select", { "aria-label": "Vertical axis of the scatter plot", onchange: drawScatter });
  const axes = h("span.row-of");
  const grid = chartGrid({ signal, only: "!system" });
  grid.element.dataset.size = store.state.size;
  store.watch(["size"], () => { grid.element.dataset.size = store.state.size; }, signal);
  const bar = chartBar({ signal, metrics: () => metrics });
  const problem = h("span.field-error", { role: "alert" });
  const search = h("input", { type: "search", placeholder: "Search rows (regex)", "aria-label": "Search rows", oninput: drawTable });
  const only = h("button", { type: "button", onclick: () => store.set({ differences: !store.state.differences }) }, "Only differences");
  const title = h("h1", null, "Compare");
  const body = h("div.page-body", null,
    h("div.part", null, h("h2", null, "Values"), search, problem, only), table,
    h("div.part", null, h("h2", null, "Parallel coordinates"), axes), lines.element,
    h("div.part", null, h("h2", null, "Scatter"), up, "over", across), points.element,
    h("div.part", null, h("h2", null, "Curves")));
  fill(main, h("header.page-head", null, title), body, bar.element, grid.element);

  store.watch(["runs", "project", "page"], () => void load(), signal);
  store.watch(["differences", "baseline"], drawTable, signal);
  store.watch(["axes"], drawParallel, signal);
  theme.watch(() => { for (const item of items) item.colour = colourOf(item.id, item.values["tags.colour"]); drawTable(); drawParallel(); drawScatter(); }, signal);
  onChanges((changes) => {
    if (!changes.all && !items.some((item) => changes.runs.has(item.id))) return;
    clearTimeout(timer);
    timer = window.setTimeout(() => void load(), RENEW_MS);
  }, signal);
  signal.addEventListener("abort", () => clearTimeout(timer));
  await load();

  async function load() {
    try {
      const scope = store.state.project ? `project = ${quoted(store.state.project)}` : "";
      const chosen = store.state.runs.slice(0, MOST_RUNS);
      const where = chosen.length ? among("id", chosen) : scope;
      const kinds = ["params", "tags", "metrics"];
      const answers = await Promise.all(kinds.map((kind) => get("fields", { kind, filter: where }, stop)));
      const fields = answers.flatMap((answer) => answer.fields.map((/** @type {any} */ field) => field.name)).slice(0, MOST_FIELDS);
      const answer = await get("runs", { filter: where, columns: [...fields, "tags.colour"], limit: chosen.length || USUAL_RUNS, archived: "all" }, stop);
      const place = new Map(answer.ids.map((/** @type {string} */ id, /** @type {number} */ i) => [id, i]));
      const ids = (chosen.length ? chosen : answer.ids).filter((/** @type {string} */ id) => place.has(id));
      items = ids.map((/** @type {string} */ id) => {
        const i = /** @type {number} */ (place.get(id));
        const values = Object.fromEntries(Object.entries(answer.columns).map(([name, column]) => [name, numeric(/** @type {any} */ (column)[i])]));
        return { id, label: values.name ?? id, colour: colourOf(id, values["tags.colour"]), values };
      });
      metrics = answers[2].fields.map((/** @type {any} */ field) => plainName(field.name));
      sections = [
        { name: "Run", rows: ["status", "started_at", "duration", "group", "project"].map((field) => ({ field, values: items.map((item) => item.values[field]) })) },
        ...kinds.map((kind, k) => ({ name: { params: "Params", tags: "Tags", metrics: "Metrics, last value" }[kind] ?? kind, rows: answers[k].fields.filter((/** @type {any} */ field) => field.name !== "tags.colour").map((/** @type {any} */ field) => ({ field: field.name, values: items.map((item) => item.values[field.name]) })) })),
      ];
      draw();
      void loadMore();
    } catch (error) {
      if (!signal.aborted) fill(table, trouble(/** @type {Error} */ (error).message, () => void load()));
    }
  }

  /** What only the runs' own files tell: environment, code, data. */
  async function loadMore() {
    if (items.length < 2) return;
    const answer = await get("compare", { run: items.map((item) => item.id) }, stop).catch(() => null); // without it the rest stays
    if (!answer || signal.aborted) return;
    const more = ["environment", "code", "data"].flatMap((name) => {
      const rows = Object.entries(answer[name] ?? {}).map(([field, of]) => ({ field, values: items.map((item) => /** @type {any} */ (of)[item.id]) }));
      return rows.length ? [{ name: name[0].toUpperCase() + name.slice(1), rows, equal: answer[`equal_${name}`] }] : [];
    });
    sections = [...sections.filter((section) => section.equal === undefined), ...more];
    drawTable();
  }

  function draw() {
    title.textContent = items.length ? `Compare ${count(items.length, "run")}` : "Compare";
    const isEmpty = items.length < 1;
    body.hidden = bar.element.hidden = grid.element.hidden = isEmpty;
    main.querySelector(".compare-none")?.remove();
    if (isEmpty) {
      main.append(h("div.compare-none", null, nothing("Choose runs in the table, then press Compare (c).", "compare")));
      return;
    }
    drawTable();
    drawParallel();
    drawChoices();
    drawScatter();
    tellGrid();
    grid.setMetrics(metrics);
  }

  /** @param {{id: string}} item */
  function isShown(item) {
    return !brushed || brushed.includes(item.id);
  }

  function drawTable() {
    const { test, error } = pattern(search.value);
    problem.textContent = error;
    only.setAttribute("aria-pressed", String(store.state.differences));
    const shown = items.map((item, i) => ({ item, i })).filter(({ item }) => isShown(item));
    const base = shown.find(({ item }) => item.id === store.state.baseline);
    fill(table, h("div.compare-table", { tabIndex: 0, role: "region", "aria-label": "Values of the runs" }, h("table", null,
      h("thead", null, h("tr", null, h("th", { scope: "col" }, ""), shown.map(({ item }) => h("th", { scope: "col", title: item.id },
        h("span.row-of", { style: { "flex-wrap": "nowrap" } }, h("span.swatch", { style: { background: item.colour } }),
          h("a", { href: store.href({ page: "run", run: item.id }, { fresh: true }) }, item.label), item.id === store.state.baseline && h("span.faint", null, "baseline")))))),
      sections.map((section) => {
        const rows = section.rows.filter((row) => test(row.field) && (!store.state.differences || differs(shown.map(({ i }) => row.values[i]))));
        const equal = section.equal ?? section.rows.length - section.rows.filter((row) => differs(shown.map(({ i }) => row.values[i]))).length;
        return h("tbody", null,
          h("tr.section-row", { onclick: () => { if (!closed.delete(section.name)) closed.add(section.name); drawTable(); } },
            h("th", { scope: "rowgroup" }, h("button.link", { type: "button", "aria-expanded": String(!closed.has(section.name)) }, closed.has(section.name) ? "▸ " : "▾ ", section.name)), h("td", { colSpan: Math.max(1, shown.length) }, h("span.faint", null, store.state.differences && equal ? `${equal} equal` : ""))),
          !closed.has(section.name) && [...rows].sort((a, b) => byName(a.field, b.field)).map((row) => h("tr", null, h("th", { scope: "row", title: row.field }, titleOf(row.field)),
            shown.map(({ i, item }) => cell(row, i, shown.map((one) => row.values[one.i]), base && base.item !== item ? row.values[base.i] : undefined)))));
      }))));
  }

  /** @param {{field: string, values: any[]}} row @param {number} i @param {any[]} all @param {any} base */
  function cell(row, i, all, base) {
    const value = row.values[i];
    if (value === null || value === undefined) return h("td.missing", null, "missing");
    const isMetric = row.field.startsWith("metrics.");
    const isOdd = !isMetric && row.field !== "started_at" && row.field !== "duration" && all.length > 2 && all.some((other) => all.filter((each) => same(each, other)).length * 2 > all.length) && all.filter((each) => same(each, value)).length * 2 <= all.length;
    const off = isMetric && typeof base === "number" && typeof value === "number" ? value - base : null;
    const good = off === null ? 0 : Math.sign(off) * direction(row.field);
    return h("td.figure", { class: isOdd ? "differs" : "", title: plain(value) }, row.field === "started_at" ? moment(value) : row.field === "duration" ? duration(value) : typeof value === "number" ? short(value, 6) : plain(value),
      off !== null && h("span.delta", { class: good > 0 ? "good" : good < 0 ? "bad" : "" }, ` ${off > 0 ? "+" : ""}${short(off, 3)}`));
  }

  function drawParallel() {
    const varying = sections.filter((section) => section.name === "Params" || section.name.startsWith("Metrics")).flatMap((section) => section.rows.filter((row) => differs(row.values)).map((row) => row.field));
    const params = varying.filter((field) => field.startsWith("params."));
    const of = varying.filter((field) => field.startsWith("metrics.") && !field.startsWith("metrics.system/"));
    const usual = [...params.slice(0, AXES - 1), ...of.sort((a, b) => Math.abs(direction(b)) - Math.abs(direction(a))).slice(0, 1)];
    const chosen = store.state.axes.length ? store.state.axes : usual;
    fill(axes, chosen.map((/** @type {string} */ field) => h("span.badge", null, titleOf(field), h("button.link", { type: "button", "aria-label": `Leave out the axis ${titleOf(field)}`, onclick: () => store.set({ axes: chosen.filter((/** @type {string} */ each) => each !== field) }) }, "×"))),
      h("select", { "aria-label": "Add an axis", onchange: (/** @type {any} */ event) => store.set({ axes: [...chosen, event.target.value] }) }, h("option", { value: "" }, "Add an axis…"), varying.filter((field) => !chosen.includes(field)).slice(0, 500).map((field) => h("option", { value: field }, titleOf(field)))));
    lines.set(items, chosen);
  }

  function drawChoices() {
    const fields = sections.flatMap((section) => section.rows.map((row) => row.field)).filter((field) => items.some((item) => item.values[field] !== null && item.values[field] !== undefined));
    const firstMetric = fields.filter((field) => field.startsWith("metrics.")).sort((a, b) => Math.abs(direction(b)) - Math.abs(direction(a)))[0];
    for (const [select, usual] of /** @type {[any, string][]} */ ([[across, fields.find((field) => field.startsWith("params.")) ?? "started_at"], [up, firstMetric ?? "duration"]])) {
      const kept = fields.includes(select.value) ? select.value : usual;
      fill(select, fields.slice(0, 1000).map((field) => h("option", { value: field, selected: field === kept }, titleOf(field))));
    }
  }

  function drawScatter() {
    points.set(items.filter(isShown), across.value, up.value);
  }

  function tellGrid() {
    grid.setScene({ runs: items.filter(isShown).map((item) => ({ id: item.id, label: item.label, colour: item.values["tags.colour"] })), groups: null });
    drawScatter();
  }
}

/** @param {any} a @param {any} b */
const same = (a, b) => (a === b ? a !== null && a !== undefined : typeof a === "object" && typeof b === "object" && a && b ? JSON.stringify(a) === JSON.stringify(b) : Number.isNaN(a) && Number.isNaN(b));

/** What is missing is equal to nothing; a row that no run has is no difference. @param {any[]} values */
function differs(values) {
  if (values.length < 2 || values.every((value) => value === null || value === undefined)) return false;
  return values.some((value) => !same(value, values[0]));
}
