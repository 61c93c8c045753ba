/** What the machine did while a run learnt: both along the same time, so that a pause of one is seen in the other. */

import { fill, h } from "../core/h.js";
import { store } from "../core/state.js";
import { chartGrid } from "../chart/grid.js";
import { chartBar } from "../chart/toolbar.js";
import { direction } from "../table/columns.js";

const PREFIX = "system/";
const USUAL = ["…"]; // of the address: nobody has chosen
const FEW = 2;
const MOST = 500; // offered

/** @param {import("./run.js").Place} place */
export function system({ run, body, signal }) {
  alongTime(signal);
  /** @type {string[]} */
  let names = [];
  const learnt = () => names.filter((name) => !name.startsWith(PREFIX));
  /** Metrics of training that are shown: the chosen ones, or those that are called a loss or a score. @returns {string[]} */
  const beside = () => (String(store.state.beside) !== String(USUAL) ? store.state.beside : [...learnt()].sort((a, b) => Math.abs(direction(`metrics.${b}`)) - Math.abs(direction(`metrics.${a}`))).slice(0, FEW));
  const grid = chartGrid({ signal, only: (metric) => metric.startsWith(PREFIX) || beside().includes(metric) });
  const chosen = h("span.row-of", { role: "group", "aria-label": "Metrics of training beside those of the machine" });
  const bar = chartBar({ signal, metrics: () => names, before: chosen });
  grid.element.dataset.size = store.state.size;
  store.watch(["size"], () => { grid.element.dataset.size = store.state.size; }, signal);
  store.watch(["beside"], draw, signal);
  fill(body, bar.element, grid.element);
  grid.setScene({ runs: [{ id: run.id, label: run.name, colour: run.tags.colour }], groups: null });
  update(run);
  return { update };

  /** @param {any} now */
  function update(now) {
    const next = Object.keys(now.metrics);
    if (next.join("\n") === names.join("\n")) return;
    names = next;
    draw();
  }

  function draw() {
    const now = beside();
    const rest = learnt().filter((name) => !now.includes(name));
    const add = h("select", { "aria-label": "Show a metric of training, too", onchange: () => store.set({ beside: [...now, add.value] }) }, h("option", { value: "" }, "Beside training…"), rest.slice(0, MOST).map((name) => h("option", { value: name }, name)));
    fill(chosen, now.map((name) => h("span.badge", null, name, h("button.link", { type: "button", "aria-label": `Leave out ${name}`, onclick: () => store.set({ beside: now.filter((each) => each !== name) }) }, "×"))), rest.length > 0 && add);
    grid.setMetrics([...names]);
  }
}

/** Steps of the machine are seconds, those of training are not: without a choice both lie along the time since the start. @param {AbortSignal} signal */
function alongTime(signal) {
  if (store.state.x !== "step") return;
  store.set({ x: "relative", zoom: null }, { replace: true });
  signal.addEventListener("abort", () => { if (store.state.page === "run" && store.state.x === "relative") store.set({ x: "step", zoom: null }, { replace: true }); });
}
