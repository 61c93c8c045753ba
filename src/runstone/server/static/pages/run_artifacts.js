/** What a run made: files with their sizes and hashes, where they came from and went, and a look into them. */

import { get, part, url } from "../core/api.js";
import { bytes, count, moment, plain } from "../core/format.js";
import { fill, h, icon } from "../core/h.js";
import { store } from "../core/state.js";
import { quoted } from "../table/columns.js";
import { badge, choice, table } from "./areas.js";
import { filesApart, foldersOf, marksOf } from "./artifact_tree.js";
import { hrefOf } from "./lineage.js";
import { nothing, show, tree } from "./parts.js";

const SEPARATOR = "//"; // between the artifact and the file, in the URL of the page
const MOST_FILES = 2000;
const OFFERED = 500; // runs to compare with

/** @param {import("./run.js").Place} place */
export function artifacts({ run, body, signal }) {
  const list = h("nav.files", { "aria-label": "Artifacts" });
  const content = h("div.preview", { tabIndex: 0, "aria-label": "Preview" });
  fill(body, h("div.split", null, h("div.tile", null, list), content));
  draw();
  store.watch(["item", "other"], draw, signal);

  function draw() {
    const [name, file = ""] = store.state.item.split(SEPARATOR);
    const chosen = run.artifacts.find((/** @type {any} */ each) => each.name === name);
    fill(list, run.artifacts.map((/** @type {any} */ each) => [
      link(each.name, "", h("span", null, icon(each.is_folder ? "data" : "artifact"), " ", each.name, marksOf(each).map((mark) => [" ", badge(mark, mark === "best" ? "good" : "accent")])), bytes(each.size_bytes), each.name === name && !file),
      each.name === name && each.is_folder && h("div.tree", { data: { files: each.name } }),
    ]));
    if (!chosen) return void fill(content, nothing(`${count(run.artifacts.length, "artifact")}: choose one`));
    void open(chosen, file);
  }

  /** @param {string} name @param {string} file @param {any} label @param {string} size @param {boolean} isCurrent */
  function link(name, file, label, size, isCurrent) {
    const item = file ? `${name}${SEPARATOR}${file}` : name;
    return h("a", {
      href: store.href({ item, other: "" }), "aria-current": String(isCurrent),
      onclick: (/** @type {MouseEvent} */ event) => { event.preventDefault(); store.set({ item, other: "" }); },
    }, label, h("span.faint.figure", null, size));
  }

  /** @param {any} artifact @param {import("./artifact_tree.js").Folder} folder @param {string} file @returns {any} */
  const branch = (artifact, folder, file) => [
    folder.folders.map((each) => h("details", { open: true }, h("summary", null, `${each.name}/ `, h("span.faint", null, bytes(each.size_bytes))), branch(artifact, each, file))),
    folder.files.map((each) => link(artifact.name, each.path, h("span", null, each.path.split("/").at(-1), !each.is_here && h("i.bad", null, " missing")), bytes(each.size_bytes), each.path === file)),
  ];

  /** @param {any} artifact @param {string} file */
  async function open(artifact, file) {
    const base = `runs/${part(run.id)}/artifacts/${part(artifact.name)}`;
    await show(content, signal, () => get(base), (answer) => {
      const under = list.querySelector("[data-files]");
      if (under) fill(under, branch(artifact, foldersOf(answer.files.slice(0, MOST_FILES)), file), answer.files.length > MOST_FILES && h("p.faint", null, `${count(answer.files.length - MOST_FILES, "file")} more`));
      const entry = answer.files.find((/** @type {any} */ each) => each.path === file) ?? (answer.files.length === 1 ? answer.files[0] : null);
      const inner = h("div");
      if (store.state.other) void compare(inner, answer);
      else if (entry?.is_here) void show(inner, signal, () => get(`${base}/preview`, { path: entry.path }), (look) => shown(look, url(`${base}/file`, { path: entry.path })));
      else if (entry) fill(inner, nothing("This file is missing: its content is not in this workspace.", "alert"));
      return [
        h("div.part", null, h("h2", null, entry ? entry.path : answer.name), marksOf(answer).map((mark) => badge(mark, mark === "best" ? "good" : "accent")), h("span.faint", null, bytes(entry?.size_bytes ?? answer.size_bytes)), h("span.faint", null, moment(answer.logged_at)), h("span.spacer"), others(),
          entry ? entry.is_here && h("a", { href: url(`${base}/file`, { path: entry.path }), download: "" }, icon("download"), " Download")
            : h("a", { href: url(`${base}/zip`), download: "" }, icon("download"), " All as ZIP")),
        entry && h("p.mono.faint", null, `blake3 ${entry.hash}`),
        entry && origin(entry.hash),
        Object.keys(answer.metadata ?? {}).length > 0 && h("div.tree", null, tree(answer.metadata)), inner,
        !entry && !store.state.other && nothing(`${count(answer.files.length, "file")}: choose one on the left`),
      ];
    });
  }

  /** Runs whose artifact of this name can be compared with. */
  function others() {
    const place = h("span");
    const made = (/** @type {{value: string, text: string}[]} */ options) => fill(place, choice("Compare with the artifact of", [{ value: "", text: "Compare with…" }, ...options], store.state.other, (other) => store.set({ other })));
    made([]);
    void get("runs", { filter: `project = ${quoted(run.project)}`, limit: OFFERED }, { signal }).then(({ ids, columns }) => made(ids.flatMap((/** @type {string} */ id, /** @type {number} */ i) => (id === run.id ? [] : [{ value: id, text: columns.name[i] }])))).catch(() => {});
    return place;
  }

  /** @param {HTMLElement} inner @param {any} answer  the artifact of this run */
  const compare = (inner, answer) => show(inner, signal, () => get(`runs/${part(store.state.other)}/artifacts/${part(answer.name)}`), (before) => {
    const apart = filesApart(before.files, answer.files);
    if (!apart.length) return nothing("Both are the same, byte by byte.", "check");
    const tones = { added: "good", removed: "bad", changed: "warn" };
    return table(["Path", "", { title: "There", number: true }, { title: "Here", number: true }, "blake3 there", "blake3 here"], apart.map((each) => [
      each.path, badge(each.kind, tones[each.kind]), each.before ? bytes(each.before.size_bytes) : "", each.after ? bytes(each.after.size_bytes) : "",
      ...[each.before, each.after].map((file) => (file ? h("span.mono.faint", { title: file.hash }, `${file.hash.slice(0, 12)}…`) : ""))]), { label: "Files that differ" });
  }, { none: "That run has no artifact of this name." });

  /** Who made a content and who uses it: asked when it is opened, as all runs are looked at for it. @param {string} hash */
  function origin(hash) {
    const inner = h("div.part");
    const ask = () => show(inner, signal, () => get("lineage", { ref: `artifact:${hash}`, depth: 1 }, { signal }), (answer) => {
      const of = (/** @type {number} */ from, /** @type {number} */ to) => answer.edges.filter((/** @type {any[]} */ edge) => edge[to] === answer.root).map((/** @type {any[]} */ edge) => {
        const node = answer.nodes.find((/** @type {any} */ each) => each.id === edge[from]);
        return [h("a", { href: hrefOf(node) || store.href({ page: "lineage", ref: node.id }, { fresh: true }) }, node.label), " "];
      });
      const [made, used] = [of(0, 1), of(1, 0)];
      return [h("span", null, "Produced by ", made.length ? made : "nothing that is known"), h("span", null, "Used by ", used.length ? used : "nothing yet"), h("a", { href: store.href({ page: "lineage", ref: `artifact:${hash}` }, { fresh: true }) }, icon("graph"), " Lineage")];
    }, { none: "No run names this content as what it made or used." });
    return h("details", { ontoggle: (/** @type {any} */ event) => { if (event.target.open && !inner.hasChildNodes()) void ask(); } }, h("summary.faint", null, "Producer and consumers"), inner);
  }
}

/**
 * What can be seen of a file.
 * @param {any} look  of `…/preview`
 * @param {string} address  of its bytes
 */
export function shown(look, address) {
  const cut = look.is_cut && h("p.warn", null, "Only the beginning is shown.");
  switch (look.kind) {
    case "image": return look.is_too_large ? h("p.faint", null, `A picture of ${look.width} × ${look.height}: too large to be shown here.`) : h("img", { src: address, alt: look.name, loading: "lazy" });
    case "json": return h("div.tree", null, look.json !== null && typeof look.json === "object" ? tree(look.json) : plain(look.json));
    case "table": return [h("div.scroll", null, h("table.plain", null, h("thead", null, h("tr", null, look.columns.map((/** @type {string} */ name) => h("th", { scope: "col" }, name)))),
      h("tbody", null, look.rows.map((/** @type {any[]} */ row) => h("tr", null, row.map((value) => h("td", null, plain(value)))))))), cut];
    case "tensors": return [h("div.scroll", null, h("table.plain", null, h("thead", null, h("tr", null, ["Tensor", "Type", "Shape"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", null, look.tensors.map((/** @type {any} */ each) => h("tr", null, h("th", { scope: "row" }, each.name), h("td", null, each.dtype), h("td", null, (each.shape ?? []).join(" × "))))))), cut];
    case "text": return [/\.html?$/i.test(look.name) && !look.is_cut ? htmlPage(look) : h("pre.block", null, look.text), cut];
    default: return h("p.faint", null, `${look.name}, ${bytes(look.size_bytes)}: no preview of this kind of file.`);
  }
}

/** HTML as its text; as a page only where it may do nothing: no scripts, no forms, no origin. @param {any} look */
function htmlPage(look) {
  const inner = h("div", null, h("pre.block", null, look.text));
  const button = h("button", { type: "button", "aria-pressed": "false", onclick: () => {
    const isPage = button.getAttribute("aria-pressed") === "true";
    button.setAttribute("aria-pressed", String(!isPage));
    fill(inner, isPage ? h("pre.block", null, look.text) : h("iframe.sandboxed", { sandbox: "", srcdoc: look.text, title: look.name }));
  } }, "As a page, without scripts");
  return [h("div.part", null, button), inner];
}
