/** Some runs beside each other: what differs, how their curves lie, what goes with what. */

import { get } from "../core/api.js";
import { count, numeric, plainName } from "../core/format.js";
import { fill, h } from "../core/h.js";
import { onChanges } from "../core/live.js";
import { store } from "../core/state.js";
import { colourOf, theme } from "../core/theme.js";
import { chartGrid } from "../chart/grid.js";
import { chartBar } from "../chart/toolbar.js";
import { among, direction, quoted, titleOf } from "../table/columns.js";
import { axisBadges } from "./axis_badges.js";
import { differs } from "./compare_rows.js";
import { compareTable } from "./compare_table.js";
import { parallel } from "./parallel.js";
import { nothing, trouble } from "./parts.js";
import { scatter } from "./scatter.js";

const MOST_RUNS = 200;
const USUAL_RUNS = 10;
const MOST_FIELDS = 480; // columns of one question
const AXES = 6;
const RENEW_MS = 3000;
const MEDIA_RUNS = 12; // beside each other

/** @param {import("./index.js").Frame} frame */
export async function open({ main, signal }) {
  const table = compareTable(signal);
  const stop = { signal };
  /** @type {string[] | null} ids inside the stretches of the parallel coordinates */
  let brushed = null;
  /** @type {import("./parallel.js").Item[]} */
  let items = [];
  /** @type {{name: string, rows: {field: string, values: any[]}[], equal?: number}[]} */
  let sections = [];
  /** @type {string[]} */
  let metrics = [];
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
  /** @type {ReturnType<typeof import("./media_board.js").mediaBoard> | undefined} */
  let media;
  const below = h("section", { "aria-label": "Media" }, h("div.part", null, h("h2", null, "Media"), h("span.faint", null, "by step, of all runs at once")));
  const sight = new IntersectionObserver((entries) => {
    if (!entries.some((each) => each.isIntersecting)) return;
    sight.disconnect();
    openMedia().catch((error) => { if (!signal.aborted) below.append(trouble(error.message)); }); // not before somebody comes near
  }, { rootMargin: "200px" });
  signal.addEventListener("abort", () => sight.disconnect());
  const title = h("h1", null, "Compare");
  const body = h("div.page-body", null,
    h("div.part", null, h("h2", null, "Values"), table.tools), table.element,
    h("div.part", null, h("h2", null, "Parallel coordinates"), axes, h("span.spacer"), lines.tools), lines.element,
    h("div.part", null, h("h2", null, "Scatter"), up, "over", across, h("span.spacer"), points.tools), points.element, below,
    h("div.part", null, h("h2", null, "Curves")));
  fill(main, h("header.page-head", null, title), body, bar.element, grid.element);

  store.watch(["runs", "project", "page"], () => void load(), signal);
  store.watch(["axes"], drawParallel, signal);
  theme.watch(() => { for (const item of items) item.colour = colourOf(item.id, item.values["tags.colour"]); drawTable(); drawParallel(); drawScatter(); }, signal);
  onChanges((changes) => {
    if (!changes.all && !items.some((item) => changes.runs.has(item.id))) return;
    clearTimeout(timer);
    timer = window.setTimeout(() => void load(), RENEW_MS);
  }, signal);
  signal.addEventListener("abort", () => clearTimeout(timer));
  await load();
  if (!signal.aborted) sight.observe(below); // what stands above it is there now

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
      if (!signal.aborted) fill(table.element, trouble(/** @type {Error} */ (error).message, () => void load()));
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
    table.set(items.map((item, i) => ({ item, i })).filter(({ item }) => isShown(item)), sections);
  }

  async function openMedia() {
    const { mediaBoard } = await import("./media_board.js");
    if (signal.aborted) return;
    media = mediaBoard({ signal, none: "None of these runs logged media." });
    below.append(media.element);
    tellMedia();
  }

  function tellMedia() {
    void media?.load(items.filter(isShown).slice(0, MEDIA_RUNS).map(({ id, label, colour }) => ({ id, label, colour })));
  }

  function drawParallel() {
    const varying = sections.filter((section) => section.name === "Params" || section.name.startsWith("Metrics")).flatMap((section) => section.rows.filter((row) => differs(row.values)).map((row) => row.field));
    const params = varying.filter((field) => field.startsWith("params."));
    const of = varying.filter((field) => field.startsWith("metrics.") && !field.startsWith("metrics.system/"));
    const usual = [...params.slice(0, AXES - 1), ...of.sort((a, b) => Math.abs(direction(b)) - Math.abs(direction(a))).slice(0, 1)];
    const chosen = store.state.axes.length ? store.state.axes : usual;
    axisBadges(axes, { shown: chosen, others: varying.filter((field) => !chosen.includes(field)), items: lines.axisItems });
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
    tellMedia();
  }
}
