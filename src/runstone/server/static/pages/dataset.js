/** One dataset: its versions, their files, what the columns hold, and what two versions have apart. */

import { get, part } from "../core/api.js";
import { bytes, count, moment, plain, short } from "../core/format.js";
import { fill, h, icon } from "../core/h.js";
import { onChanges } from "../core/live.js";
import { store } from "../core/state.js";
import { badge, choice, headOf, runLink, since, table, tabsOf } from "./areas.js";
import { historyList } from "./model_history.js";
import { facts, nothing, show } from "./parts.js";
import { profileOf } from "./profile.js";

const FILES = 500; // of a version at once
const TABS = [{ name: "", title: "Versions" }, { name: "files", title: "Files" }, { name: "profile", title: "Profile" }, { name: "diff", title: "Compare" }, { name: "history", title: "History" }];

/** @param {import("./index.js").Frame} frame */
export function openDataset({ main, signal }) {
  const name = store.state.item;
  const base = `datasets/${part(name)}`;
  const page = h("div");
  fill(main, page);
  const body = h("div.page-body");
  /** @type {any} */
  let data;
  let withRows = false; // compared, too
  const load = () => show(page, signal, () => get(base, {}, { signal }), (answer) => {
    data = answer;
    return draw();
  }, { none: `There is no dataset ${name}.` });
  onChanges((changes) => { if (changes.datasets) void load(); }, signal);
  store.watch(["tab", "version", "other"], () => { if (data) fill(page, draw()); }, signal);
  return load();

  function draw() {
    document.title = `${name} · Runstone`;
    const chosen = data.versions.find((/** @type {any} */ each) => String(each.version) === store.state.version) ?? data.versions[0];
    fill(body, !chosen ? nothing("It has no version.", "data") : partOf(chosen));
    return h("div.run-page", null,
      headOf("datasets", "All datasets", [h("h1", null, name), Object.entries(data.tags).map(([tag, value]) => badge(value ? `${tag}: ${value}` : tag))], [
        store.state.tab === "files" || store.state.tab === "profile" ? pick("Version", chosen?.version, (version) => store.set({ version })) : false,
        chosen && h("a", { href: store.href({ page: "lineage", ref: `dataset:${name}@${chosen.version}` }, { fresh: true }) }, icon("graph"), " Lineage")]),
      tabsOf("Parts of the dataset", TABS), body);
  }

  /** What is on the tab that is open. @param {any} chosen */
  function partOf(chosen) {
    switch (store.state.tab) {
      case "files": return files(chosen);
      case "profile": return profile(chosen);
      case "diff": return diff();
      case "history": return historyList(data.history);
      default: return versions(chosen);
    }
  }

  /** @param {string} label @param {any} value @param {(value: string) => void} choose */
  function pick(label, value, choose) {
    return choice(label, data.versions.map((/** @type {any} */ each) => ({ value: String(each.version), text: `${each.version}${each.aliases.length ? ` (${each.aliases.join(", ")})` : ""}` })), String(value), choose);
  }

  /** @param {any} chosen */
  function versions(chosen) {
    return [
      h("section.tile", { style: { margin: "0 0 12px" } }, h("div.part", { style: { "margin-top": "0" } }, h("h2", null, `${name}@${chosen.version}`), chosen.revoked !== null && badge(`revoked: ${chosen.revoked}`, "bad"), chosen.aliases.map((/** @type {string} */ each) => badge(`@${each}`))),
        facts([["Source", chosen.source], ["Content", chosen.is_stored ? "stored" : "by reference: only its hashes are kept"], ["Files", chosen.files], ["Size", bytes(chosen.size_bytes)], ["Added", `${moment(chosen.added_at)}${chosen.author ? ` by ${chosen.author}` : ""}`], ["Run", chosen.run && runLink(chosen.run)], ["Notes", chosen.notes],
          ["Tags", Object.keys(chosen.tags).length > 0 && Object.entries(chosen.tags).map(([key, value]) => badge(value ? `${key}: ${value}` : key))], ["Hash", h("span.mono", null, chosen.hash)]])),
      h("div.tile", null, table(["Version", { title: "Files", number: true }, { title: "Size", number: true }, "Content", "Source", "Run", "Added", "Notes", ""], data.versions.map((/** @type {any} */ each) => [
        h("b", null, h("a", { href: store.href({ version: String(each.version) }), "aria-current": each === chosen ? "true" : null }, each.version)), each.files, bytes(each.size_bytes), each.is_stored ? "stored" : h("span.faint", null, "by reference"), each.source ?? "", each.run && runLink(each.run), since(each.added_at), each.notes ?? "",
        h("span.row-of", null, each.revoked !== null && badge("revoked", "bad"), each.aliases.map((/** @type {string} */ alias) => badge(`@${alias}`))),
      ]), { label: "Versions" })),
    ];
  }

  /** @param {any} chosen */
  function files(chosen) {
    const place = h("div");
    const from = Number(store.state.other) || 0;
    void show(place, signal, () => get(`${base}/versions/${chosen.version}`, { offset: from, limit: FILES }, { signal }), (answer) => [
      h("div.part", null, h("span.faint", null, `${count(answer.tree_total, "file")}, ${bytes(answer.size_bytes)}`), answer.tree_total > FILES && [
        h("button", { type: "button", disabled: from === 0, onclick: () => store.set({ other: String(Math.max(0, from - FILES)) }) }, "Before"), h("span", null, `${from + 1} to ${Math.min(answer.tree_total, from + FILES)}`),
        h("button", { type: "button", disabled: from + FILES >= answer.tree_total, onclick: () => store.set({ other: String(from + FILES) }) }, "Next")]),
      h("div.tile", null, table(["Path", { title: "Size", number: true }, "blake3"], answer.tree.map((/** @type {any} */ each) => [each.path, bytes(each.size_bytes), h("span.mono.faint", { title: each.hash }, `${(each.hash ?? "").slice(0, 16)}…`)]), { label: "Files" })),
    ]);
    return place;
  }

  /** @param {any} chosen */
  function profile(chosen) {
    const place = h("div");
    void show(place, signal, () => get(`${base}/profile`, { version: chosen.version }, { signal }), (answer) => (answer.columns && Object.keys(answer.columns).length
      ? h("div.profile", null, Object.entries(answer.columns).map(([column, of]) => profileOf(column, of, `${name}@${chosen.version}`)))
      : nothing("No profile was made of it: runstone data add --profile", "chart")));
    return place;
  }

  function diff() {
    if (data.versions.length < 2) return nothing("Two versions are needed.", "compare");
    const right = store.state.version || data.versions[0].version;
    const left = store.state.other || data.versions[1].version;
    const place = h("div");
    const rows = h("input", { type: "checkbox", checked: withRows, onchange: () => { withRows = rows.checked; void load(); } });
    const load = () => { fill(place); return show(place, signal, () => get(`${base}/diff`, { a: left, b: right, rows: rows.checked }, { signal }), difference); };
    void load();
    return [h("div.part", null, pick("Version on the left", left, (other) => store.set({ other })), "against", pick("Version on the right", right, (version) => store.set({ version })), h("label.row-of", null, rows, "Rows too")), place];
  }

  /** @param {any} answer */
  function difference(answer) {
    if (answer.is_empty && !answer.rows) return nothing("The two versions are the same.", "check");
    const kinds = /** @type {[string, string][]} */ ([["added", "good"], ["removed", "bad"], ["changed", "warn"], ["renamed", "accent"]]);
    const changes = kinds.flatMap(([kind, tone]) => answer[kind].map((/** @type {any} */ each) => [each.path, [badge(kind, tone), kind === "renamed" && ` from ${each.before?.path}`], bytes(each.before?.size_bytes), bytes(each.after?.size_bytes)]));
    const figure = (/** @type {any} */ each, /** @type {string} */ name) => { const both = each.figures?.[name]; return both ? `${short(both[0], 4)} → ${short(both[1], 4)}` : ""; };
    return [
      h("div.part", null, kinds.map(([kind, tone]) => answer.counts[kind] > 0 && badge(`${answer.counts[kind]} ${kind}`, tone))),
      h("div.tiles", null,
        answer.columns.length > 0 && h("section.tile", { style: { "grid-column": "1 / -1" } }, h("h2", null, "Columns"), table(["Column", { title: "PSI", number: true }, { title: "JS", number: true }, "Type", { title: "Mean", number: true }, { title: "Std", number: true }, { title: "Nulls", number: true }, { title: "Distinct", number: true }],
          [...answer.columns].sort((a, b) => (b.psi ?? -1) - (a.psi ?? -1)).map((each) => [each.name, each.psi === null ? "" : h("span", { class: each.psi >= 0.25 ? "bad" : each.psi >= 0.1 ? "warn" : "" }, short(each.psi, 3)), short(each.js, 3), each.before === each.after ? each.before : `${each.before ?? "missing"} → ${each.after ?? "missing"}`, figure(each, "mean"), figure(each, "std"), figure(each, "nulls"), figure(each, "distinct")]), { label: "Columns" })),
        changes.length > 0 && h("section.tile", null, h("h2", null, "Files"), table(["Path", "", { title: "Was", number: true }, { title: "Is", number: true }], changes, { label: "Changed files" })),
        answer.rows && h("section.tile", null, h("h2", null, "Rows"), facts([["Before", answer.rows.before.toLocaleString("en-US")], ["After", answer.rows.after.toLocaleString("en-US")], ["Added", answer.rows.added.toLocaleString("en-US")], ["Removed", answer.rows.removed.toLocaleString("en-US")]]),
          samples("A few that were added", answer.rows.columns, answer.rows.added_samples), samples("A few that were removed", answer.rows.columns, answer.rows.removed_samples))),
    ];
  }

  /** @param {string} title @param {string[]} columns @param {any[]} rows */
  function samples(title, columns, rows) {
    return rows?.length > 0 && [h("h3", { style: { margin: "10px 0 4px" } }, title), table(columns, rows.map((row) => columns.map((column) => plain(row[column]))))];
  }
}
