/** Datasets: all of them, or one. */

import { get } from "../core/api.js";
import { bytes } from "../core/format.js";
import { fill, h } from "../core/h.js";
import { onChanges } from "../core/live.js";
import { store } from "../core/state.js";
import { badge, head, listOrOne, searched, since, table } from "./areas.js";
import { openDataset } from "./dataset.js";
import { show } from "./parts.js";

/** @param {import("./index.js").Frame} frame */
export const open = (frame) => listOrOne(frame, list, openDataset);

/** @param {import("./index.js").Frame} frame */
function list({ main, signal }) {
  const body = h("div.page-body");
  fill(main, head(h("h1", null, "Datasets")), body);
  const load = () => show(body, signal, () => get("datasets", {}, { signal }), ({ datasets }) => (datasets.length ? searched({
    items: datasets, label: "Search datasets", words: (each) => `${each.name} ${Object.entries(each.tags).flat().join(" ")}`,
    make: (found) => table(["Dataset", { title: "Versions", number: true }, { title: "Files", number: true }, { title: "Size", number: true }, "Content", "Source", "Aliases", "Changed"], found.map((each) => [
      h("a", { href: store.href({ page: "datasets", item: each.name }, { fresh: true }) }, each.name), each.count, each.latest?.files ?? "", bytes(each.latest?.size_bytes),
      each.latest && (each.latest.revoked ? badge("revoked", "bad") : each.latest.is_stored ? "stored" : h("span.faint", null, "by reference")), each.latest?.source ?? "",
      Object.entries(each.aliases).map(([alias, version]) => badge(`${alias}: ${version}`)), since(each.latest?.added_at ?? each.created_at),
    ])),
  }) : h("div.empty", null, h("h2", null, "No dataset yet"), h("p", null, "A version is the content of files or tables, with where it came from."),
    h("pre.block", null, 'runstone data add data/\n\n# or in a run\nrun.use_dataset("data/train.csv", role="train")'))));
  onChanges((changes) => { if (changes.datasets) void load(); }, signal);
  return load();
}
