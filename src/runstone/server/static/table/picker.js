/** Choosing columns out of thousands: a search, and the first hundreds that fit. */

import { get } from "../core/api.js";
import { fill, h } from "../core/h.js";
import { popover } from "../core/notice.js";
import { byName, pattern } from "../core/pattern.js";
import { store } from "../core/state.js";
import { readColumns, titleOf, writeColumns } from "./columns.js";

const SHOWN = 150;
const ATTRIBUTES = ["status", "started_at", "ended_at", "duration", "project", "group", "notes", "failure", "attempts", "parent", "id"];
const FIGURES = ["last", "min", "max", "mean", "count"];

/**
 * @param {Element} anchor
 * @param {string} filter  of the runs whose fields are offered
 */
export async function openPicker(anchor, filter) {
  /** @type {{field: string, kind: string, runs?: number}[]} */
  let all = ATTRIBUTES.map((field) => ({ field, kind: "attributes" }));
  const list = h("div.picker-list", { role: "group", "aria-label": "Columns" });
  const problem = h("div.field-error", { role: "alert" });
  const search = h("input", { type: "search", placeholder: "Search columns (regular expression)", "aria-label": "Search columns", autofocus: true, oninput: draw });
  const figure = h("select", { "aria-label": "Figure of metrics", title: "Figure of metrics", onchange: draw }, FIGURES.map((name) => h("option", null, name)));
  popover(anchor, h("div.picker", null, h("div.row-of", null, search, figure), problem, list));
  search.focus();

  function draw() {
    const chosen = new Set(readColumns(store.state.columns).map((column) => column.field));
    const { test, error } = pattern(search.value);
    problem.textContent = error;
    const fits = all.map((each) => (each.kind === "metrics" && figure.value !== "last" ? { ...each, field: `${each.field}.${figure.value}` } : each)).filter((each) => test(each.field));
    fits.sort((a, b) => Number(chosen.has(b.field)) - Number(chosen.has(a.field)));
    fill(list, fits.slice(0, SHOWN).map((each) => h("label.picker-item", { title: each.field },
      h("input", { type: "checkbox", checked: chosen.has(each.field), onchange: (/** @type {any} */ event) => choose(each.field, event.target.checked) }),
      h("span", null, titleOf(each.field)), h("span.faint", null, each.kind === "attributes" ? "run" : each.kind))),
    fits.length > SHOWN && h("p.faint", null, `${(fits.length - SHOWN).toLocaleString("en-US")} more: search for them`),
    fits.length === 0 && h("p.faint", null, "No column has this name"));
  }

  /** @param {string} field @param {boolean} isChosen */
  function choose(field, isChosen) {
    const columns = readColumns(store.state.columns);
    store.set({ columns: isChosen ? [...store.state.columns, field] : writeColumns(columns.filter((column) => column.field !== field)) });
  }

  draw();
  const answers = await Promise.all(["metrics", "params", "tags"].map((kind) => get("fields", { kind, filter })));
  all = [...answers.flatMap((answer) => answer.fields.map((/** @type {any} */ each) => ({ field: each.name, kind: each.kind, runs: each.runs }))).sort((a, b) => byName(a.field, b.field)), ...all];
  draw();
}
