/** How versions in use are doing: what checks found over time, reports of drift, incidents. */

import { get, part, send, url } from "../core/api.js";
import { count, moment, short } from "../core/format.js";
import { fill, h } from "../core/h.js";
import { onChanges } from "../core/live.js";
import { prompt } from "../core/notice.js";
import { store } from "../core/state.js";
import { svg } from "../core/svg.js";
import { attempt, badge, head, headOf, may, since, table } from "./areas.js";
import { driftReport } from "./drift.js";
import { nothing, show } from "./parts.js";

const RENEW_MS = 15_000;
export const TONES = /** @type {Record<string, string>} */ ({ ok: "good", warning: "warn", drift: "bad", error: "bad" });

/** @param {import("./index.js").Frame} frame */
export function open({ main, signal, info }) {
  const body = h("div.page-body");
  const top = h("div");
  fill(main, top, body);
  store.watch(["item", "ref", "other"], draw, signal);
  onChanges((changes) => { if (changes.models && !store.state.ref) void load(); }, signal);
  const timer = setInterval(() => { if (!document.hidden && !store.state.ref) void load(); }, RENEW_MS);
  signal.addEventListener("abort", () => clearInterval(timer));
  return draw();

  function draw() {
    fill(body);
    const { item, ref } = store.state;
    fill(top, item ? headOf("monitoring", "All models", h("h1", null, item), ref && h("a", { href: store.href({ page: "monitoring", item }, { fresh: true }) }, "All checks")) : head(h("h1", null, "Monitoring")));
    return load();
  }

  function load() {
    const { item, ref } = store.state;
    if (item && ref) {
      const path = `monitoring/${part(item)}/${/^#\d+$/.test(ref) ? `incidents/${ref.slice(1)}/report` : `reports/${part(ref)}`}`;
      const reference = store.state.other;
      return show(body, signal, () => get(path, { reference }, { signal }), (report) => driftReport(report, { check: ref, address: url(path, { html: true, reference }) }), { none: "This report is not here any more." });
    }
    if (item) return show(body, signal, () => get(`monitoring/${part(item)}`, {}, { signal }), model, { none: `There is no model ${item}.` });
    return show(body, signal, () => get("monitoring", {}, { signal }), everything);
  }

  /** @param {any} answer */
  function everything(answer) {
    if (!answer.versions.length && !answer.incidents.length) {
      return h("div.empty", null, h("h2", null, "Nothing is in use yet"), h("p", null, "Versions in a stage, under an alias or deployed are watched: what their data looked like is compared with what comes in."),
        h("pre.block", null, "runstone monitor profile credit-risk@production train.csv\nrunstone monitor check credit-risk@production today.csv"));
    }
    return [versions(answer.versions), h("div.part", null, h("h2", null, "Open incidents")), h("div.tile", null, incidents(answer.incidents))];
  }

  /** @param {any[]} all */
  function versions(all) {
    return h("div.tile", null, table(["Version", "Health", "Checks", "Last check", "In use as", "Incidents"], all.map((each) => {
      const last = each.checks.at(-1);
      return [
        h("a", { href: store.href({ page: "monitoring", item: each.model }, { fresh: true }) }, `${each.model}@${each.version}`), badge(each.health, TONES[each.health]), timeline(each.checks),
        last ? [h("a", { href: reportOf(last) }, since(last.at)), " ", h("span.faint", null, `${count(last.rows, "row")}, ${count(last.drifted, "column")} moved`)] : h("span.faint", null, "none"),
        h("span.row-of", null, each.places.map((/** @type {string} */ place) => badge(place))), each.incidents.length ? badge(`${each.incidents.length} open`, "bad") : "",
      ];
    }), { label: "Versions in use" }));
  }

  /** @param {any} check */
  function reportOf(check) {
    return store.href({ page: "monitoring", item: check.model, ref: check.id }, { fresh: true });
  }

  /** A bar for each check: the more columns moved, the higher. @param {any[]} checks */
  function timeline(checks) {
    if (!checks.length) return "";
    const most = Math.max(1, ...checks.map((check) => check.drifted));
    const tone = /** @type {Record<string, string>} */ ({ ok: "--good", warning: "--warn", drift: "--bad", error: "--bad" });
    return svg("svg", { viewBox: `0 0 ${checks.length * 7} 22`, width: checks.length * 7, height: 22, role: "img", "aria-label": `${checks.length} checks: ${checks.map((check) => check.verdict).join(", ")}` }, checks.map((check, i) => {
      const height = check.verdict === "ok" ? 4 : 6 + (16 * check.drifted) / most;
      return svg("rect", { x: i * 7, y: 22 - height, width: 5, height, rx: 1, style: `fill: var(${tone[check.verdict] ?? "--axis"})` }, svg("title", null, `${moment(check.at)}: ${check.headline}`));
    }));
  }

  /** @param {any[]} all */
  function incidents(all) {
    return (all.length ? table(["Incident", "Kind", "Version", "What", "Opened", "State", ""], all.map((each) => [
      `#${each.number}`, each.kind, h("a", { href: store.href({ page: "models", item: each.model, version: each.version }, { fresh: true }) }, `${each.model}@${each.version}`), [each.summary, (each.actions ?? []).map((/** @type {any} */ action) => h("div.faint", null, `${action.what ?? ""} ${action.detail ?? ""}`))], since(each.opened_at),
      each.closed_at === null ? badge("open", "bad") : [badge("closed", "good"), " ", h("span.faint", null, each.resolution ?? "")],
      h("span.row-of", null, each.report_hash && h("a", { href: store.href({ page: "monitoring", item: each.model, ref: `#${each.number}` }, { fresh: true }) }, "Report"),
        each.closed_at === null && may(info, "maintainer") && h("button", { type: "button", onclick: () => void close(each) }, "Close")),
    ]), { label: "Incidents" }) : h("p.faint", null, "None"));
  }

  /** @param {any} incident */
  async function close(incident) {
    const reason = await prompt(`Close incident #${incident.number} of ${incident.model}`, { label: "Reason, for the history", verb: "Close" });
    if (reason && await attempt(() => send("POST", `monitoring/${part(incident.model)}/incidents/${incident.number}/close`, { reason }), `Incident #${incident.number} is closed`)) void load();
  }

  /** @param {any} answer */
  function model(answer) {
    const checks = [...answer.checks].reverse();
    return [
      answer.versions.length > 0 ? versions(answer.versions) : nothing("No version of it is in use.", "monitor"),
      h("div.part", null, h("h2", null, "Checks")),
      checks.length ? h("div.tile", null, table(["When", "Verdict", "Version", "What was found", "Data", { title: "Rows", number: true }, { title: "Columns moved", number: true }, "Performance", "Incident"], checks.map((check) => [
        h("a", { href: reportOf(check) }, moment(check.at)), badge(check.verdict, TONES[check.verdict]), check.version, check.headline, check.data, check.rows.toLocaleString("en-US"), check.drifted, check.performance ? `${check.performance[0]} ${short(check.performance[1], 4)}` : "", check.incident ? `#${check.incident}` : "",
      ]), { label: "Checks" })) : h("p.faint", null, "No check yet: runstone monitor check"),
      h("div.part", null, h("h2", null, "Incidents")), h("div.tile", null, incidents(answer.incidents)),
    ];
  }
}
