/** Models: all of them, or one. */

import { get } from "../core/api.js";
import { count } from "../core/format.js";
import { fill, h } from "../core/h.js";
import { onChanges } from "../core/live.js";
import { store } from "../core/state.js";
import { badge, head, listOrOne, searched, since, table } from "./areas.js";
import { openModel } from "./model.js";
import { show } from "./parts.js";

/** @param {import("./index.js").Frame} frame */
export const open = (frame) => listOrOne(frame, list, openModel);

/** @param {import("./index.js").Frame} frame */
function list({ main, signal }) {
  const body = h("div.page-body");
  fill(main, head(h("h1", null, "Models")), body);
  const load = () => show(body, signal, () => get("models", {}, { signal }), ({ models }) => (models.length ? searched({
    items: models, label: "Search models", words: (each) => `${each.name} ${Object.entries(each.tags).flat().join(" ")}`,
    make: (found) => table(["Model", { title: "Versions", number: true }, "Latest", "In stages", "Aliases", "Deployed", "Incidents", "Changed"], found.map((each) => {
      const link = (/** @type {string} */ version) => h("a", { href: store.href({ page: "models", item: each.name, version }, { fresh: true }) }, version);
      return [
        h("a", { href: store.href({ page: "models", item: each.name }, { fresh: true }) }, each.name), each.count, each.latest && link(each.latest.version),
        h("span.row-of", null, Object.entries(each.in_stage).filter(([stage, versions]) => stage !== each.stages[0] && versions.length).map(([stage, versions]) => h("span", null, h("span.faint", null, `${stage} `), versions.map((/** @type {string} */ version) => [link(version), " "])))),
        h("span.row-of", null, Object.entries(each.aliases).map(([alias, version]) => h("span", null, h("span.faint", null, `@${alias} `), link(version)))),
        each.deployed.length ? h("span", { title: each.deployed.map((/** @type {any} */ one) => `${one.version} at ${one.target}`).join(", ") }, count(each.deployed.length, "place")) : "",
        each.open_incidents.length ? badge(`${each.open_incidents.length} open`, "bad") : "", since(each.latest?.registered_at ?? each.created_at),
      ];
    })),
  }) : h("div.empty", null, h("h2", null, "No model yet"), h("p", null, "A run registers what it made; each time is a version that never changes."),
    h("pre.block", null, 'run.log_model(model, name="credit-risk", example=x[:5])\n\n# later\nrunstone.load_model("credit-risk@production")'))));
  onChanges((changes) => { if (changes.models) void load(); }, signal);
  return load();
}
