/** What one check found: columns that can be sorted, both distributions over each other, and what it was judged by. */

import { count, moment, plain, short } from "../core/format.js";
import { fill, h } from "../core/h.js";
import { byName } from "../core/pattern.js";
import { store } from "../core/state.js";
import { badge, choice, table } from "./areas.js";
import { TONES } from "./monitoring.js";
import { bars } from "./profile.js";
import { driftPython } from "./python.js";
import { barTools } from "./take_bars.js";
import { facts } from "./parts.js";

const LEVELS = ["ok", "warning", "drift", "error"];
const MOST_DRAWN = 200;
/** @type {{title: string, number: boolean, of: (feature: any) => any, show?: (value: any, feature: any) => import("../core/h.js").Child}[]} */
const COLUMNS = [
  { title: "Column", number: false, of: (each) => each.name, show: (value, each) => [value, each.role !== "feature" && h("span.faint", null, ` ${each.role}`)] },
  { title: "Level", number: true, of: (each) => LEVELS.indexOf(each.level), show: (_, each) => badge(each.level, TONES[each.level]) },
  { title: "PSI", number: true, of: (each) => each.distance?.psi },
  { title: "by chance", number: true, of: (each) => each.distance?.psi_chance },
  { title: "KS", number: true, of: (each) => each.distance?.statistic, show: (value, each) => (value === undefined ? "" : h("span", { title: each.distance.test }, short(value, 4))) },
  { title: "p", number: true, of: (each) => each.p },
  { title: "JS", number: true, of: (each) => each.distance?.js },
  { title: "W₁/σ", number: true, of: (each) => each.distance?.wasserstein },
  { title: "missing before", number: true, of: (each) => each.missing.before, show: percent },
  { title: "missing now", number: true, of: (each) => each.missing.after, show: percent },
  { title: "unseen rows", number: true, of: (each) => each.unseen.rows || null, show: (value, each) => value && h("span", { title: Object.keys(each.unseen.values).join(", ") }, value) },
];

/** @param {any} value */
function percent(value) {
  return value === null || value === undefined ? "" : `${short(value * 100, 3)} %`;
}

/**
 * @param {any} report  as `api/monitoring/…/reports/…` answers
 * @param {{check: string, address: string}} of  name of the check, and the address of the report as a page of its own
 */
export function driftReport(report, { check, address }) {
  const place = h("div");
  let [sorted, turned] = [1, true];
  draw();
  return [
    h("div.part", null, badge(report.verdict, TONES[report.verdict]), h("h2", null, report.headline), h("span.spacer"),
      report.references.length > 0 && h("label.row-of", null, "Reference", choice("Reference version", [{ value: "", text: "of the check" }, ...report.references.map((/** @type {string} */ each) => ({ value: each }))], store.state.other, (other) => store.set({ other }))), h("a", { href: address, target: "_blank", rel: "noopener" }, "As a page")),
    h("div.tiles", null,
      h("section.tile", null, h("h2", null, "Check"), facts([["Data", report.data], ["Rows", report.rows.toLocaleString("en-US")], ["When", moment(report.at)], ["Version", report.model && `${report.model}@${report.version}`], ["Reference", Object.entries(report.reference).filter(([key]) => key !== "hash").map(([key, value]) => `${key} ${plain(value)}`).join(", ")]])),
      report.reasons.length > 0 && h("section.tile", null, h("h2", null, "Why"), h("ul", null, report.reasons.map((/** @type {any} */ each) => h("li.failure", null, badge(each.level, TONES[each.level]), h("span", null, each.text))))),
      (report.classifier || report.performance) && h("section.tile", null, h("h2", null, "As a whole"), facts([
        ["Told apart", report.classifier && `AUC ${short(report.classifier.auc, 4)} (${short(report.classifier.low, 4)} to ${short(report.classifier.high, 4)}), p ${short(report.classifier.p, 3)}`],
        ["Performance", report.performance && `${report.performance.figure} ${short(report.performance.value, 4)}${report.performance.baseline === null ? "" : `, before ${short(report.performance.baseline, 4)}`}`],
      ])),
    ),
    h("details.part", { style: { display: "block" } }, h("summary.faint", null, "Thresholds"), h("div.tile", null, facts(Object.entries(report.thresholds).map(([key, value]) => [key.replaceAll("_", " "), plain(value)])))),
    h("div.part", null, h("h2", null, "Columns"), h("span.faint", null, count(report.features.length, "column"))), place,
    h("div.part", null, h("h2", null, "Distributions"), h("span.faint", null, "grey: reference, blue: this batch")),
    h("div.profile", null, report.features.slice(0, MOST_DRAWN).filter((/** @type {any} */ each) => each.bars).map(distribution)),
    report.correlations.length > 0 && [h("div.part", null, h("h2", null, "Correlations that changed most")), h("div.tile", null, table(["Pair", { title: "Before", number: true }, { title: "Now", number: true }], report.correlations.map((/** @type {any} */ each) => [each.features.join(" · "), short(each.before, 3), short(each.after, 3)])))],
    report.notes.length > 0 && [h("div.part", null, h("h2", null, "Notes")), h("ul", null, report.notes.map((/** @type {string} */ each) => h("li.faint", null, each)))],
  ];

  /** Both distributions of a column over each other. @param {any} each */
  function distribution(each) {
    const { after, before, edges, labels = [] } = each.bars;
    const drawing = bars(after ?? [], before, `${each.name}: before and now`);
    return h("section.tile", { "aria-label": `Distribution of ${each.name}` },
      h("div.row-of", null, h("h3", null, each.name), badge(each.level, TONES[each.level]), h("span.spacer"), barTools({ title: each.name, drawing, edges: edges ?? labels, after: after ?? [], before, python: () => driftPython(report.model, check, each.name) })),
      drawing, h("div.row-of.faint", null, edges ? [short(edges[0], 4), h("span.spacer"), short(edges.at(-1), 4)] : labels.slice(0, 4).map(plain).join(" · ")));
  }

  function draw() {
    const { of } = COLUMNS[sorted];
    const missing = (/** @type {any} */ value) => value === null || value === undefined;
    const rows = [...report.features].sort((left, right) => {
      const [a, b] = [of(left), of(right)];
      if (missing(a) || missing(b)) return Number(missing(a)) - Number(missing(b));
      return (turned ? -1 : 1) * (typeof a === "number" && typeof b === "number" ? a - b : byName(String(a), String(b)));
    });
    fill(place, h("div.tile.scroll.trials", null, h("table.plain", { "aria-label": "Columns" }, h("thead", null, h("tr", null, COLUMNS.map((column, i) => h("th", { scope: "col", class: column.number ? "number" : "", "aria-sort": i !== sorted ? "none" : turned ? "descending" : "ascending" },
      h("button.link", { type: "button", onclick: () => { turned = i === sorted ? !turned : column.number; sorted = i; draw(); } }, column.title, i === sorted && (turned ? " ↓" : " ↑")))))),
    h("tbody", null, rows.map((each) => h("tr", null, COLUMNS.map((column, i) => {
      const value = column.of(each);
      const shown = column.show ? column.show(value, each) : missing(value) ? "" : short(value, 4);
      return i ? h("td", { class: column.number ? "number" : "", title: typeof value === "number" ? String(value) : "" }, shown) : h("th", { scope: "row" }, shown);
    })))))));
  }
}
