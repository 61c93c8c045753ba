/** Sweeps: all of them, or one. */

import { get } from "../core/api.js";
import { duration, numeric, short } from "../core/format.js";
import { fill, h } from "../core/h.js";
import { onChanges } from "../core/live.js";
import { store } from "../core/state.js";
import { head, listOrOne, searched, since, table } from "./areas.js";
import { show } from "./parts.js";
import { openSweep } from "./sweep.js";
import { progress, STATES } from "./sweep_progress.js";

/** @param {import("./index.js").Frame} frame */
export const open = (frame) => listOrOne(frame, list, openSweep);

/** @param {import("./index.js").Frame} frame */
function list({ main, signal }) {
  const body = h("div.page-body");
  fill(main, head(h("h1", null, "Sweeps")), body);
  const load = () => show(body, signal, () => get("sweeps", {}, { signal }), ({ sweeps }) => (sweeps.length ? searched({
    items: sweeps, label: "Search sweeps", words: (each) => `${each.name} ${each.metrics.map((/** @type {any} */ one) => one.name).join(" ")}`,
    make: (found) => table(["Sweep", "Status", "Trials", { title: "", number: true }, "Metric", { title: "Best", number: true }, "Best params", "Sampler", "Started", { title: "Took", number: true }], found.map((each) => [
      h("a", { href: store.href({ page: "sweeps", item: each.id }, { fresh: true }) }, each.name),
      h("span.badge", { data: { status: each.status } }, each.status),
      progress(each.trials), `${STATES.reduce((sum, state) => sum + (state === "waiting" ? 0 : each.trials[state] ?? 0), 0)} / ${each.trials.expected ?? "∞"}`,
      each.metrics.map((/** @type {any} */ one) => `${one.goal === "maximize" ? "↑" : "↓"} ${one.name}`).join(", "),
      each.best ? each.best.values.map((/** @type {any} */ value) => short(numeric(value), 5)).join(", ") : "",
      each.best ? h("span.faint", null, Object.entries(each.best.params).slice(0, 4).map(([name, value]) => `${name} ${typeof value === "number" ? short(value, 3) : value}`).join(" · ")) : "",
      each.sampler ?? "", since(each.started_at), duration(each.active_s),
    ])),
  }) : h("div.empty", null, h("h2", null, "No sweep yet"), h("p", null, "A sweep tries params until a metric is best: several runs at once, hopeless ones ended early."),
    h("pre.block", null, "sweep init              # looks into train.py and writes sweep.yaml\nsweep run sweep.yaml"))));
  onChanges((changes) => { if (changes.sweeps) void load(); }, signal);
  const timer = setInterval(() => { if (!document.hidden && body.querySelector('[data-status="running"]')) void load(); }, 5000);
  signal.addEventListener("abort", () => clearInterval(timer));
  return load();
}
