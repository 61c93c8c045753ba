/** What a column of a table holds, small: a histogram or its most frequent values, and a few figures. */

import { count, plain, short } from "../core/format.js";
import { h } from "../core/h.js";
import { svg } from "../core/svg.js";
import { profilePython } from "./python.js";
import { barTools } from "./take_bars.js";

const WIDTH = 200;
const HEIGHT = 60;
const TOP = 6; // values

/**
 * Bars over equal stretches; two of them lie over each other, as shares.
 * @param {number[]} counts
 * @param {number[] | null} [before]
 * @param {string} [label]
 */
export function bars(counts, before = null, label = "") {
  const shares = (/** @type {number[]} */ of) => { const sum = of.reduce((a, b) => a + b, 0) || 1; return of.map((each) => each / sum); };
  const [now, then] = [shares(counts), before ? shares(before) : []];
  const most = Math.max(...now, ...then, 1e-12);
  const one = (/** @type {number[]} */ all, /** @type {string} */ name) => all.map((share, i) => svg(`rect${name}`, { x: (i * WIDTH) / all.length, width: Math.max(0.5, WIDTH / all.length - 1), y: HEIGHT - (share / most) * HEIGHT, height: (share / most) * HEIGHT }));
  return svg("svg.bars", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": label }, one(then, ".before"), one(now, ""));
}

/** @param {string} name @param {any} of @param {string} ref  the version, such as `loans@2` */
export function profileOf(name, of, ref) {
  const missing = (of.nulls ?? 0) + (of.nans ?? 0);
  const most = of.top?.slice(0, TOP) ?? [];
  const drawing = of.histogram?.counts?.length ? bars(of.histogram.counts, null, `Histogram of ${name}`) : null;
  return h("section.tile", { "aria-label": name }, h("div.row-of", null, h("h3", null, name), h("span.faint", null, of.type), h("span.spacer"),
    drawing && barTools({ title: name, drawing, edges: of.histogram.edges, after: of.histogram.counts, python: () => profilePython(ref, name) })),
    drawing ? [drawing, h("div.row-of.faint", null, short(of.min, 4), h("span.spacer"), short(of.max, 4))]
      : most.length > 0 && h("div.tops", null, most.map((/** @type {[any, number]} */ [value, n]) => h("div", { style: { "--share": `${(100 * n) / Math.max(1, of.count)}%` } }, h("span", { title: plain(value) }, plain(value) || "(empty)"), h("span.figure.faint", null, `${short((100 * n) / Math.max(1, of.count), 3)} %`)))),
    h("p.faint", null, [of.mean !== undefined && `mean ${short(of.mean, 4)} ± ${short(of.std, 3)}`, of.distinct !== undefined && `${of.distinct.toLocaleString("en-US")} distinct`, `${count(of.count ?? 0, "value")}`, missing > 0 && `${short((100 * missing) / Math.max(1, of.count), 3)} % missing`].filter(Boolean).join(" · ")));
}
