/** What happened to a model or dataset, and what went wrong. */

import { moment } from "../core/format.js";
import { h } from "../core/h.js";
import { store } from "../core/state.js";
import { badge, since, table } from "./areas.js";

/** @param {any[]} events  oldest first */
export const historyList = (events) => h("div.tile", null, h("ol.history", { "aria-label": "History" }, [...events].reverse().map((event) => h("li", { title: `event ${event.seq}, hash ${event.hash}` },
  h("time.faint", null, moment(event.at)), h("span.faint", null, event.by.user ?? "", event.by.host ? ` @ ${event.by.host}` : ""), h("span", null, event.told)))));

/** @param {any[]} incidents */
export const incidentTable = (incidents) => (incidents.length ? table(["Incident", "Kind", "Version", "What", "Opened", "State"], incidents.map((each) => [
  `#${each.number}`, each.kind, h("a", { href: store.href({ page: "models", item: each.model, version: each.version }, { fresh: true }) }, `${each.model}@${each.version}`), each.summary, since(each.opened_at),
  each.closed_at === null ? badge("open", "bad") : h("span", { title: moment(each.closed_at) }, badge("closed", "good"), " ", each.resolution),
])) : h("p.faint", null, "None"));
