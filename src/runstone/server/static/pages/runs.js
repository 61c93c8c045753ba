/** The table of runs and their charts, side by side. */

import { get } from "../core/api.js";
import { plainName } from "../core/format.js";
import { fill, h, icon } from "../core/h.js";
import { bind } from "../core/keys.js";
import { onChanges } from "../core/live.js";
import { store } from "../core/state.js";
import { chartBar } from "../chart/toolbar.js";
import { chartGrid } from "../chart/grid.js";
import { among, quoted } from "../table/columns.js";
import { runsTable } from "./runs_table.js";

const GROUP_RUNS = 100; // groups whose lines are drawn
const DIVIDER_STEP = 4;

/** @param {import("./index.js").Frame} frame */
export async function open({ main, signal, info }) {
  const element = h("div.runs", { data: { view: store.state.view } });
  const scope = () => (store.state.project ? `project = ${quoted(store.state.project)}` : "");
  const table = runsTable({ signal, scope, isReadOnly: !!info.read_only, onScene });
  const grid = chartGrid({ signal });
  /** @type {import("../chart/card.js").Scene} */
  let scene = { runs: [], groups: null };
  /** @type {string[]} */
  let metrics = [];
  let known = "";
  const bar = chartBar({ signal, metrics: () => metrics, before: viewButtons() });
  const charts = h("section.runs-charts", { "aria-label": "Charts" }, bar.element, grid.element);
  fill(element, table.element, divider(element), charts);
  main.append(element);
  grid.element.dataset.size = store.state.size;

  store.watch(["view"], () => { element.dataset.view = store.state.view; }, signal);
  store.watch(["size"], () => { grid.element.dataset.size = store.state.size; }, signal);
  onChanges((changes) => { if (changes.runs.size || changes.all) void loadMetrics(true); }, signal);
  bind([
    { keys: "/", label: "Filter", run: () => table.focusFilter() },
    { keys: "m", label: "Search metrics", run: () => bar.focus() },
    { keys: "v", label: "Table, charts, or both", run: () => store.set({ view: { both: "charts", charts: "table", table: "both" }[/** @type {string} */ (store.state.view)] ?? "both" }) },
  ], signal);
  table.start();

  /** @param {import("../chart/card.js").Scene} next  which runs or groups the charts show has changed */
  function onScene(next) {
    scene = next.groups ? { ...next, groups: next.groups.slice(0, GROUP_RUNS) } : next;
    grid.setScene(scene);
    void loadMetrics(false);
  }

  /** @param {boolean} isNew  the runs may have other metrics than before */
  async function loadMetrics(isNew) {
    const ids = scene.groups ? scene.groups.flatMap((group) => group.ids.slice(0, 3)) : scene.runs.map((run) => run.id);
    const key = ids.join();
    if (!isNew && key === known) return;
    known = key;
    if (!ids.length) {
      metrics = [];
      return grid.setMetrics(metrics);
    }
    try {
      const answer = await get("fields", { kind: "metrics", filter: among("id", ids.slice(0, 500)) }, { signal });
      if (known !== key) return;
      metrics = answer.fields.map((/** @type {any} */ field) => plainName(field.name));
      grid.setMetrics(metrics);
      bar.redraw();
    } catch {
      known = ""; // asked again with the next change; the banner says when the server is away
    }
  }

  function viewButtons() {
    const button = (/** @type {string} */ value, /** @type {any} */ name, /** @type {string} */ label) => {
      const made = h("button.icon-button", { type: "button", title: `${label} (v)`, "aria-label": label, onclick: () => store.set({ view: value }) }, icon(name));
      const mark = () => made.setAttribute("aria-pressed", String(store.state.view === value));
      store.watch(["view"], mark, signal);
      mark();
      return made;
    };
    return h("span.row-of", { role: "group", "aria-label": "View" }, button("both", "columns", "Table and charts"), button("charts", "chart", "Charts only"));
  }
}

/** Between the table and the charts; arrows move it too. @param {HTMLElement} element */
function divider(element) {
  let share = 44;
  try {
    share = Number(localStorage.getItem("runstone.share")) || share;
  } catch {
    // the usual share
  }
  const apply = (/** @type {number} */ next) => {
    share = Math.max(15, Math.min(80, next));
    element.style.setProperty("--table-share", `${share}%`);
    handle.setAttribute("aria-valuenow", String(Math.round(share)));
    try {
      localStorage.setItem("runstone.share", String(share));
    } catch {
      // holds for this visit
    }
  };
  const handle = h("div.divider", {
    role: "separator", tabIndex: 0, "aria-orientation": "vertical", "aria-label": "Width of the table", "aria-valuemin": "15", "aria-valuemax": "80",
    onpointerdown: (/** @type {PointerEvent} */ event) => handle.setPointerCapture(event.pointerId),
    onpointermove: (/** @type {PointerEvent} */ event) => {
      if (!handle.hasPointerCapture(event.pointerId)) return;
      const box = element.getBoundingClientRect();
      apply(((event.clientX - box.left) / box.width) * 100);
    },
    onkeydown: (/** @type {KeyboardEvent} */ event) => {
      const by = { ArrowLeft: -DIVIDER_STEP, ArrowRight: DIVIDER_STEP }[event.key];
      if (by) apply(share + by);
    },
  });
  apply(share);
  return handle;
}
