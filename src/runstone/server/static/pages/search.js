/** Ctrl+K: to any page, project or run by a few letters of its name. */

import { get } from "../core/api.js";
import { fill, h, icon } from "../core/h.js";
import { dialog } from "../core/notice.js";
import { store } from "../core/state.js";
import { quoted } from "../table/columns.js";
import { pages } from "./index.js";

const WAIT_MS = 120;

/** @param {any[]} projects */
export function openSearch(projects) {
  let timer = 0;
  let at = 0;
  /** @type {{label: string, kind: string, href: string, icon: any}[]} */
  let results = [];
  const list = h("div.search-results", { role: "listbox", id: "search-results", "aria-label": "Results" });
  const close = dialog("Search", () => [
    h("input", { type: "search", placeholder: "Page, project or run", autofocus: true, "aria-label": "Search", role: "combobox", "aria-controls": "search-results", "aria-expanded": "true", oninput, onkeydown }), list]);

  /** @param {Event} event */
  function oninput(event) {
    const text = /** @type {HTMLInputElement} */ (event.target).value.trim();
    clearTimeout(timer);
    find(text);
    if (text) timer = window.setTimeout(() => void findRuns(text), WAIT_MS);
  }

  /** @param {string} text */
  function find(text) {
    const fits = (/** @type {string} */ name) => name.toLowerCase().includes(text.toLowerCase());
    results = [
      ...pages.filter((page) => page.inNav && fits(page.title)).map((page) => ({ label: page.title, kind: "page", icon: page.icon, href: store.href({ page: page.name }, { fresh: true }) })),
      ...projects.filter((project) => fits(project.name)).slice(0, 20).map((project) => ({ label: project.name, kind: "project", icon: "data", href: store.href({ page: "runs", project: project.name }, { fresh: true }) })),
    ];
    draw();
  }

  /** @param {string} text */
  async function findRuns(text) {
    const answer = await get("runs", { filter: `name contains ${quoted(text)} or id contains ${quoted(text.toLowerCase())}`, limit: 30, archived: "all" });
    results = [...results.filter((each) => each.kind !== "run"), ...answer.ids.map((/** @type {string} */ id, /** @type {number} */ i) => ({
      label: answer.columns.name[i], kind: `run in ${answer.columns.project[i]}`, icon: "chart", href: store.href({ page: "run", run: id }, { fresh: true }) }))];
    draw();
  }

  function draw() {
    at = Math.max(0, Math.min(at, results.length - 1));
    fill(list, results.length ? results.map((each, i) => h("a", { href: each.href, role: "option", "aria-selected": String(i === at), onclick: () => close() },
      icon(each.icon), h("span", null, each.label), h("span.spacer"), h("span.faint", null, each.kind))) : h("p.faint", null, "Nothing has this name"));
  }

  /** @param {KeyboardEvent} event */
  function onkeydown(event) {
    if (event.key === "Enter" && results[at]) {
      close();
      store.open(results[at].href);
    } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      at += event.key === "ArrowDown" ? 1 : -1;
      draw();
      list.children[at]?.scrollIntoView({ block: "nearest" });
    } else return;
    event.preventDefault();
  }

  find("");
}
