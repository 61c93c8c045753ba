/** Media and texts of a run by step: one slider for all, so that what was logged together is seen together. */

import { get, part, url } from "../core/api.js";
import { fill, h } from "../core/h.js";
import { bind } from "../core/keys.js";
import { short } from "../core/format.js";
import { store } from "../core/state.js";
import { nothing, show } from "./parts.js";
import { shown } from "./run_artifacts.js";

/** @param {import("./run.js").Place} place */
export function media({ run, body, signal }) {
  const content = h("div.media");
  const step = h("input", { type: "range", min: 0, step: 1, "aria-label": "Step", oninput: draw });
  const said = h("span.figure");
  /** @type {{name: string, steps: number[]}[]} */
  let series = [];
  /** @type {number[]} */
  let steps = [];
  let drawn = new AbortController();
  fill(body, h("div.part", null, step, said), content);
  bind([
    { keys: "]", label: "Next step of media", run: () => move(1) },
    { keys: "[", label: "Step of media before", run: () => move(-1) },
  ], signal);
  signal.addEventListener("abort", () => drawn.abort());
  void load();

  async function load() {
    await show(content, signal, async () => Promise.all(run.records.slice(0, 60).map((/** @type {string} */ name) => get(`runs/${part(run.id)}/records`, { name, limit: 0 }, { signal }))), (answers) => {
      series = answers.map((/** @type {any} */ each) => ({ name: each.name, steps: each.steps }));
      steps = [...new Set(series.flatMap((each) => each.steps))].sort((a, b) => a - b);
      step.max = String(Math.max(0, steps.length - 1));
      const at = steps.indexOf(Number(store.state.item));
      step.value = String(store.state.item !== "" && at >= 0 ? at : steps.length - 1);
      queueMicrotask(draw);
      return steps.length ? null : nothing("No media.");
    });
  }

  /** @param {number} by */
  function move(by) {
    step.value = String(Number(step.value) + by);
    draw();
  }

  function draw() {
    if (!steps.length) return;
    drawn.abort();
    drawn = new AbortController();
    const now = steps[Number(step.value)];
    said.textContent = `step ${now.toLocaleString("en-US")} (${Number(step.value) + 1} of ${steps.length})`;
    store.set({ item: String(now) }, { replace: true });
    fill(content, series.map(({ name, steps: own }) => {
      const at = own.filter((each) => each <= now).at(-1);
      const tile = h("figure.tile", null, h("figcaption.row-of", null, h("b", null, name), at !== undefined && at !== now && h("span.faint", null, `of step ${at}`)));
      const inner = h("div");
      tile.append(inner);
      if (at === undefined) fill(inner, h("p.faint", null, "Nothing yet at this step"));
      else void show(inner, drawn.signal, () => get(`runs/${part(run.id)}/records`, { name, from_step: at, to_step: at, limit: 20 }), (answer) => answer.records.map((/** @type {any} */ each) => one(name, each)));
      return tile;
    }));
  }

  /** @param {string} name @param {any} record */
  function one(name, record) {
    const address = url(`runs/${part(run.id)}/records/${part(name)}/${record.step}/${record.index}`);
    const caption = record.metadata.caption && h("p.faint", null, record.metadata.caption);
    if (!record.is_here) return h("p.bad", null, "Its content is not in this workspace.");
    switch (record.kind) {
      case "image": case "figure": if (record.format !== "plotly.json") return [h("img", { src: address, alt: `${name} at step ${record.step}`, loading: "lazy", style: { "max-width": "100%" } }), caption]; break;
      case "audio": return [h("audio", { src: address, controls: true }), caption];
      case "video": return [record.format === "mp4" || record.format === "webm" ? h("video", { src: address, controls: true, style: { "max-width": "100%" } }) : h("img", { src: address, alt: name, loading: "lazy" }), caption];
      case "text": return h("pre.block", null, record.text ?? "…");
      case "histogram": return histogram(record.metadata);
      case "table": {
        const inner = h("div");
        void show(inner, signal, () => get(`runs/${part(run.id)}/records/${part(name)}/${record.step}/${record.index}`, { table: true }), (look) => shown(look, address));
        return inner;
      }
    }
    return h("a", { href: address, download: "" }, `Download (${record.format ?? record.kind})`);
  }
}

/** @param {any} metadata  `counts` and `edges`, as they were logged */
function histogram({ counts, edges }) {
  if (!counts?.length || !edges) return h("p.faint", null, "An empty histogram");
  const most = Math.max(...counts);
  return h("div", { role: "img", "aria-label": `Histogram from ${short(edges[0])} to ${short(edges.at(-1))}` },
    h("div", { style: { display: "flex", "align-items": "end", height: "90px", gap: "1px" } }, counts.map((/** @type {number} */ n, /** @type {number} */ i) => h("span", {
      title: `${short(edges[i])} … ${short(edges[i + 1])}: ${n}`, style: { flex: "1", height: `${(n / most) * 100}%`, background: "var(--accent)", "min-height": n ? "1px" : "0" } }))),
    h("div.row-of.faint", null, short(edges[0]), h("span.spacer"), short(edges.at(-1))));
}
