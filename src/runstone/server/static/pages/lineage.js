/** What came of what: sources, versions of data, runs, versions of models, and where they stand. */

import { get } from "../core/api.js";
import { count, moment } from "../core/format.js";
import { fill, h } from "../core/h.js";
import { onChanges } from "../core/live.js";
import { store } from "../core/state.js";
import { badge, choice, head, table } from "./areas.js";
import { graph } from "./lineage_graph.js";
import { facts, show, tree } from "./parts.js";

const MOST_ROWS = 1000;

/** The page of a thing. @param {any} node */
export function hrefOf(node) {
  const rest = node.id.slice(node.id.indexOf(":") + 1);
  const version = String(node.facts.version ?? "");
  switch (node.kind) {
    case "run": return store.href({ page: "run", run: rest }, { fresh: true });
    case "dataset": return store.href({ page: "datasets", item: node.name, version }, { fresh: true });
    case "model": return store.href({ page: "models", item: node.name, version }, { fresh: true });
    case "stage": case "alias": return store.href({ page: "models", item: node.name }, { fresh: true });
    case "deployment": case "incident": return store.href({ page: "models", item: node.name, tab: "operation" }, { fresh: true });
    default: return "";
  }
}

/** @param {import("./index.js").Frame} frame */
export function open({ main, signal }) {
  /** @type {string[]} things to begin with */
  let refs = [];
  const input = h("input", { type: "text", list: "lineage-refs", placeholder: "run, model:NAME@V, dataset:NAME@V", "aria-label": "Lineage of", value: store.state.ref, style: { width: "min(26rem, 100%)" }, onchange: () => store.set({ ref: input.value.trim() }) });
  const names = h("datalist", { id: "lineage-refs" });
  const tools = h("span.row-of");
  const body = h("div.page-body");
  fill(main, head([h("h1", null, "Lineage"), input, names], tools), body);
  store.watch(["ref", "way", "depth"], draw, signal);
  onChanges((changes) => { if (store.state.ref && (changes.models || changes.datasets)) void load(); }, signal);
  void offer();
  draw();

  function draw() {
    input.value = store.state.ref;
    fill(tools, choice("Direction", [{ value: "both", text: "Both ways" }, { value: "up", text: "What it came of" }, { value: "down", text: "What came of it" }], store.state.way, (way) => store.set({ way })),
      choice("Steps", [{ value: "0", text: "All steps" }, ...[1, 2, 3, 5].map((n) => ({ value: String(n), text: count(n, "step") }))], String(store.state.depth), (depth) => store.set({ depth: Number(depth) })));
    if (store.state.ref) return void load();
    fill(body, h("div.empty", null, h("h2", null, "What came of what"), h("p", null, "Name a run, a version of a model or of data; or begin with one of these."), h("div.row-of", { data: { part: "begin" }, style: { "justify-content": "center" } })));
    begin();
  }

  async function offer() {
    const [models, datasets] = await Promise.all([get("models", {}, { signal }), get("datasets", {}, { signal })]).catch(() => [{ models: [] }, { datasets: [] }]);
    refs = [...models.models.filter((/** @type {any} */ each) => each.latest).map((/** @type {any} */ each) => `model:${each.name}@${each.latest.version}`), ...datasets.datasets.filter((/** @type {any} */ each) => each.latest).map((/** @type {any} */ each) => `dataset:${each.name}@${each.latest.version}`)];
    fill(names, refs.slice(0, 500).map((ref) => h("option", { value: ref })));
    begin();
  }

  function begin() {
    const place = body.querySelector('[data-part="begin"]');
    if (place) fill(place, refs.slice(0, 12).map((ref) => h("a.badge", { href: store.href({ ref }) }, ref)));
  }

  function load() {
    fill(body);
    return show(body, signal, () => get("lineage", { ref: store.state.ref, direction: store.state.way, depth: store.state.depth || null }, { signal }), drawn, { none: `Nothing is called ${store.state.ref} here.` });
  }

  /** @param {any} answer */
  function drawn(answer) {
    /** @type {Map<string, any>} */
    const nodes = new Map(answer.nodes.map((/** @type {any} */ node) => [node.id, node]));
    const details = h("div", { "aria-live": "polite" });
    /** @type {[string, string][]} */
    const edges = answer.edges.map((/** @type {any[]} */ [from, to]) => [from, to]);
    const drawing = graph({ signal, nodes: answer.nodes, edges: answer.edges, root: answer.root, onChoose: (id) => tell(nodes.get(id)), onOpen: (id) => { const href = hrefOf(nodes.get(id)); if (href) store.open(href); } });
    const tell = (/** @type {any} */ node) => fill(details, node && h("section.tile", { style: { "margin-top": "12px" } },
      h("div.part", { style: { "margin-top": "0" } }, h("h2", null, node.label), badge(node.kind), node.revoked && badge(`revoked: ${node.revoked}`, "bad"), node.descends_from_revoked.length > 0 && badge("descends from something revoked", "bad"), h("span.spacer"),
        hrefOf(node) && h("a", { href: hrefOf(node) }, "Open"), node.id !== answer.root && /^(run|model|dataset|source|artifact):/.test(node.id) && h("a", { href: store.href({ ref: node.kind === "run" || node.kind === "artifact" ? node.id.slice(node.id.indexOf(":") + 1) : node.id }) }, "Its lineage")),
      facts([["Known as", h("span.mono", null, node.id)], ["Since", moment(node.at)], ["Group", node.group]]), h("div.tree", null, tree(node.facts))));
    tell(nodes.get(answer.root));
    const from = (/** @type {string} */ id) => answer.edges.filter((/** @type {any[]} */ edge) => edge[1] === id).map((/** @type {any[]} */ edge) => [nodeLink(nodes.get(edge[0])), edge[2] ? h("span.faint", null, ` as ${edge[2]}`) : "", " "]);
    return [
      h("p.faint", { style: { "margin-bottom": "8px" } }, `${count(nodes.size, "thing")}, ${count(edges.length, "step")}. Arrows move along it, Enter opens, drag moves, Ctrl+wheel zooms.`),
      drawing.element, details,
      h("details.part", { style: { display: "block" } }, h("summary", null, "As a list"), table(["Thing", "Kind", "Came of", "Since"], answer.nodes.slice(0, MOST_ROWS).map((/** @type {any} */ node) => [nodeLink(node), node.kind, from(node.id), moment(node.at)]), { label: "Lineage" })),
    ];
  }

  /** @param {any} node */
  function nodeLink(node) {
    return (node ? (hrefOf(node) ? h("a", { href: hrefOf(node) }, node.label) : node.label) : "");
  }
}
