/** What a run made: files with their sizes and hashes, and a look into them. */

import { get, part, url } from "../core/api.js";
import { bytes, count, moment, plain } from "../core/format.js";
import { fill, h, icon } from "../core/h.js";
import { store } from "../core/state.js";
import { nothing, show, tree } from "./parts.js";

const SEPARATOR = "//"; // between the artifact and the file, in the URL of the page

/** @param {import("./run.js").Place} place */
export function artifacts({ run, body, signal }) {
  const list = h("nav.files", { "aria-label": "Artifacts" });
  const content = h("div.preview", { tabIndex: 0, "aria-label": "Preview" });
  fill(body, h("div.split", null, h("div.tile", null, list), content));
  draw();
  store.watch(["item"], draw, signal);

  function draw() {
    const [name, file = ""] = store.state.item.split(SEPARATOR);
    const chosen = run.artifacts.find((/** @type {any} */ each) => each.name === name);
    fill(list, run.artifacts.map((/** @type {any} */ each) => [
      link(each.name, "", h("span", null, icon(each.is_folder ? "data" : "artifact"), " ", each.name), bytes(each.size_bytes), each.name === name && !file),
      each.name === name && each.is_folder && h("div", { style: { "padding-left": "14px" }, data: { files: each.name } }),
    ]));
    if (!chosen) return void fill(content, nothing(`${count(run.artifacts.length, "artifact")}: choose one`));
    void open(chosen, file);
  }

  /** @param {string} name @param {string} file @param {any} label @param {string} size @param {boolean} isCurrent */
  function link(name, file, label, size, isCurrent) {
    const item = file ? `${name}${SEPARATOR}${file}` : name;
    return h("a", {
      href: store.href({ item }), "aria-current": String(isCurrent),
      onclick: (/** @type {MouseEvent} */ event) => { event.preventDefault(); store.set({ item }); },
    }, label, h("span.faint.figure", null, size));
  }

  /** @param {any} artifact @param {string} file */
  async function open(artifact, file) {
    const base = `runs/${part(run.id)}/artifacts/${part(artifact.name)}`;
    await show(content, signal, () => get(base), (answer) => {
      const under = list.querySelector("[data-files]");
      if (under) fill(under, answer.files.slice(0, 2000).map((/** @type {any} */ each) => link(artifact.name, each.path, h("span", null, each.path, !each.is_here && h("i.bad", null, " missing")), bytes(each.size_bytes), each.path === file)));
      const entry = answer.files.find((/** @type {any} */ each) => each.path === file) ?? (answer.files.length === 1 ? answer.files[0] : null);
      const inner = h("div");
      if (entry?.is_here) void show(inner, signal, () => get(`${base}/preview`, { path: entry.path }), (look) => shown(look, url(`${base}/file`, { path: entry.path })));
      else if (entry) fill(inner, nothing("This file is missing: its content is not in this workspace.", "alert"));
      return [
        h("div.part", null, h("h2", null, entry ? entry.path : answer.name), h("span.faint", null, bytes(entry?.size_bytes ?? answer.size_bytes)), h("span.faint", null, moment(answer.logged_at)), h("span.spacer"),
          entry ? entry.is_here && h("a", { href: url(`${base}/file`, { path: entry.path }), download: "" }, icon("download"), " Download")
            : h("a", { href: url(`${base}/zip`), download: "" }, icon("download"), " All as ZIP")),
        entry && h("p.mono.faint", null, `blake3 ${entry.hash}`),
        Object.keys(answer.metadata ?? {}).length > 0 && h("div.tree", null, tree(answer.metadata)), inner,
        !entry && nothing(`${count(answer.files.length, "file")}: choose one on the left`),
      ];
    });
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
    case "text": return [h("pre.block", null, look.text), cut];
    default: return h("p.faint", null, `${look.name}, ${bytes(look.size_bytes)}: no preview of this kind of file.`);
  }
}
