/** One medium or text of a run, as it is looked at. */

import { get, part, url } from "../core/api.js";
import { plain, short } from "../core/format.js";
import { h } from "../core/h.js";
import { drawFigure, showLarge } from "./figure.js";
import { blobOf, decoded, rowsOf } from "./figure_data.js";
import { show } from "./parts.js";
import { bars } from "./profile.js";
import { figurePython, histogramPython } from "./python.js";
import { shown } from "./run_artifacts.js";
import { barTools } from "./take_bars.js";
import { takeTools } from "./take.js";

const FIGURE_PX = 320;

/**
 * @param {string} run  its id
 * @param {string} name
 * @param {any} record  of `…/records`
 * @param {AbortSignal} signal
 * @returns {import("../core/h.js").Child}
 */
export function medium(run, name, record, signal) {
  const path = `runs/${part(run)}/records/${part(name)}/${record.step}/${record.index}`;
  const address = url(path);
  const caption = record.metadata.caption && h("p.faint", null, record.metadata.caption);
  const alt = record.metadata.caption || `${name} at step ${record.step}`;
  if (!record.is_here) return h("p.bad", null, "Its content is not in this workspace.");
  switch (record.kind) {
    case "image": return [h("img", { src: address, alt }), caption];
    case "figure": return record.format === "plotly.json" ? plotlyFigure(run, name, record, path, signal) : [h("img", { src: address, alt }), caption];
    case "audio": return [h("audio", { src: address, controls: true, "aria-label": alt }), caption];
    case "video": return [record.format === "mp4" || record.format === "webm" ? h("video", { src: address, controls: true, "aria-label": alt }) : h("img", { src: address, alt }), caption];
    case "text": return record.text === null ? longText(address, signal) : h("pre.block", null, record.text);
    case "histogram": return histogram(run, name, record);
    case "table": {
      const inner = h("div");
      void show(inner, signal, () => get(path, { table: true }, { signal }), (look) => confusion(look) ?? shown(look, address));
      return inner;
    }
  }
  return h("a", { href: address, download: "" }, `Download (${record.format ?? record.kind})`);
}

/** @param {string} address @param {AbortSignal} signal */
function longText(address, signal) {
  const inner = h("div");
  void show(inner, signal, async () => (await fetch(address, { signal })).text(), (text) => h("pre.block", null, text));
  return inner;
}

/** @param {string} run @param {string} name @param {any} record @param {string} path @param {AbortSignal} signal */
function plotlyFigure(run, name, record, path, signal) {
  const inner = h("div");
  const place = h("div", { role: "img", "aria-label": `${name} at step ${record.step}`, style: { height: `${FIGURE_PX}px` } });
  void show(inner, signal, () => get(path, {}, { signal }), (look) => {
    const figure = { title: name, data: (look.json?.data ?? []).map(decoded), layout: { ...look.json?.layout, template: undefined } };
    void drawFigure(place, figure);
    signal.addEventListener("abort", () => /** @type {any} */ (window).Plotly?.purge(place));
    const image = async (/** @type {string} */ format) => /** @type {any} */ (window).Plotly.toImage(place, { format, scale: 2 });
    return [takeTools({
      title: name, numbers: () => rowsOf(figure.data), python: () => figurePython(run, name, record.step, record.index), large: () => showLarge(figure, figure.data),
      picture: async () => blobOf(await image("png")), vector: async () => blobOf(await image("svg")).text(),
    }), place];
  });
  return inner;
}

/** @param {string} run @param {string} name @param {any} record */
function histogram(run, name, record) {
  const { counts, edges } = record.metadata;
  if (!counts?.length || !edges) return h("p.faint", null, "An empty histogram");
  const drawing = bars(counts, null, `Histogram of ${name} at step ${record.step}, from ${short(edges[0])} to ${short(edges.at(-1))}`);
  return [h("div.row-of", null, h("span.faint", null, `${counts.reduce((/** @type {number} */ a, /** @type {number} */ b) => a + b, 0).toLocaleString("en-US")} values`), h("span.spacer"),
    barTools({ title: name, drawing, edges, after: counts, python: () => histogramPython(run, name, record.step, record.index) })),
  drawing, h("div.row-of.faint", null, short(edges[0]), h("span.spacer"), short(edges.at(-1)))];
}

/** A table of what is true, what was predicted and how often, as a matrix; `null`: it is none. @param {any} look  of a table */
function confusion(look) {
  if (look.kind !== "table" || look.is_cut || look.columns.length !== 3) return null;
  const at = ["true", "predicted", "count"].map((name) => look.columns.indexOf(name));
  if (at.includes(-1)) return null;
  /** @type {any[]} */
  const rows = look.rows;
  const classes = [...new Set(rows.flatMap((row) => [plain(row[at[0]]), plain(row[at[1]])]))];
  const cells = new Map(rows.map((row) => [JSON.stringify([plain(row[at[0]]), plain(row[at[1]])]), Number(row[at[2]])]));
  const of = (/** @type {string} */ truth, /** @type {string} */ said) => cells.get(JSON.stringify([truth, said])) ?? 0;
  const most = Math.max(1, ...cells.values());
  return h("div.scroll", null, h("table.confusion", { "aria-label": "Confusion matrix: rows are what is true, columns what was predicted" },
    h("thead", null, h("tr", null, h("th", { scope: "col" }, "true \\ predicted"), classes.map((said) => h("th", { scope: "col" }, said)))),
    h("tbody", null, classes.map((truth) => {
      const all = classes.reduce((sum, said) => sum + of(truth, said), 0) || 1;
      return h("tr", null, h("th", { scope: "row" }, truth), classes.map((said) => h("td", {
        class: truth === said ? "right" : "", title: `${short((of(truth, said) / all) * 100, 3)} % of ${truth}`, style: { "--share": `${Math.round((of(truth, said) / most) * 70)}%` } }, of(truth, said).toLocaleString("en-US"))));
    }))));
}
