/** What the pages of sweeps, data, models, lineage and reports have in common. */

import { ApiError } from "../core/api.js";
import { ago, moment } from "../core/format.js";
import { fill, h, icon } from "../core/h.js";
import { toast } from "../core/notice.js";
import { pattern } from "../core/pattern.js";
import { store } from "../core/state.js";

/** @typedef {import("../core/h.js").Child} Child */

/** Which role may do what another may. */
const ROLES = ["viewer", "contributor", "maintainer", "admin"];

/**
 * Whether whoever looks may do what takes a role; the server asks again.
 * @param {any} info  of `api/info`
 * @param {"contributor" | "maintainer" | "admin"} role
 */
export const may = (info, role) => !info.read_only && (!info.user || ROLES.indexOf(info.user.role ?? "viewer") >= ROLES.indexOf(role));

/**
 * Do something that the server may refuse; what it says is shown.
 * @template T
 * @param {() => Promise<T>} doing
 * @param {string} [said]  shown when it is done
 * @returns {Promise<T | null>}  `null`: refused
 */
export async function attempt(doing, said = "") {
  try {
    const answer = await doing();
    if (said) toast(said);
    return answer;
  } catch (error) {
    toast(error instanceof ApiError ? error.message : String(error), { error: true });
    return null;
  }
}

/** A page's head: where one is, what can be done. @param {Child} title @param {Child} [tools] */
export const head = (title, tools) => h("header.page-head.area-head", null, title, h("span.spacer"), tools);

/** The head of one of many, with the way back to all. @param {string} page @param {string} all @param {Child} title @param {Child} [tools] */
export const headOf = (page, all, title, tools) => head(h("div.run-title", null,
  h("a.icon-button", { href: store.href({ page }, { fresh: true }), "aria-label": all, title: all }, icon("left")), title), tools);

/**
 * Tabs that are a part of the URL.
 * @param {string} label
 * @param {{name: string, title: string}[]} tabs
 */
export const tabsOf = (label, tabs) => h("nav.tabs", { role: "tablist", "aria-label": label }, tabs.map(({ name, title }) => h("a", {
  role: "tab", href: store.href({ tab: name }), "aria-selected": String(name === (tabs.some((each) => each.name === store.state.tab) ? store.state.tab : "")),
}, title)));

/** @param {string} id @param {Child} [label] */
export const runLink = (id, label) => h("a", { href: store.href({ page: "run", run: id }, { fresh: true }) }, label ?? h("span.mono", null, `${id.slice(0, 12)}…`));

/** @param {number | null | undefined} at */
export const since = (at) => at ? h("time", { title: moment(at) }, ago(at)) : "";

/** @param {string} text @param {string} [tone]  good, bad, warn */
export const badge = (text, tone = "") => h(`span.badge${tone ? `.tone-${tone}` : ""}`, null, text);

/**
 * A table.
 * @param {(string | {title: string, number?: boolean})[]} heads
 * @param {Child[][]} rows  the first cell names the row
 * @param {{caption?: string, label?: string}} [how]
 */
export function table(heads, rows, { caption = "", label = "" } = {}) {
  const isNumber = heads.map((each) => typeof each !== "string" && !!each.number);
  return h("div.scroll", null, h("table.plain", { "aria-label": label || caption },
    caption && h("caption", null, caption),
    h("thead", null, h("tr", null, heads.map((each, i) => h("th", { scope: "col", class: isNumber[i] ? "number" : "" }, typeof each === "string" ? each : each.title)))),
    h("tbody", null, rows.map((cells) => h("tr", null, cells.map((cell, i) => (i ? h("td", { class: isNumber[i] ? "number" : "" }, cell) : h("th", { scope: "row" }, cell))))))));
}

/**
 * A list that can be searched by name.
 * @template T
 * @param {object} how
 * @param {T[]} how.items
 * @param {(item: T) => string} how.words  what is searched
 * @param {(items: T[]) => Child} how.make
 * @param {string} how.label
 */
export function searched({ items, words, make, label }) {
  const place = h("div.tile");
  const problem = h("span.field-error", { role: "alert" });
  const input = h("input", { type: "search", placeholder: "Search (regex)", "aria-label": label, value: store.state.search, oninput: () => { store.set({ search: input.value }, { replace: true }); draw(); } });
  draw();
  return [h("div.part", null, input, problem), place];

  function draw() {
    const { test, error } = pattern(input.value);
    problem.textContent = error;
    const found = items.filter((item) => test(words(item)));
    fill(place, found.length ? make(found) : h("p.faint", null, "Nothing fits."));
  }
}

/**
 * A select.
 * @param {string} label  accessible name
 * @param {{value: string, text?: string}[]} options
 * @param {string} value
 * @param {(value: string) => void} choose
 */
export const choice = (label, options, value, choose) => {
  const made = h("select", { "aria-label": label, onchange: () => choose(made.value) }, options.map((each) => h("option", { value: each.value, selected: each.value === value }, each.text ?? each.value)));
  return made;
};

/**
 * A page that shows all of a kind, or one of them where the address names it.
 * @template T
 * @param {import("./index.js").Frame} frame
 * @param {(frame: import("./index.js").Frame) => T} list
 * @param {(frame: import("./index.js").Frame) => T} one
 */
export function listOrOne(frame, list, one) {
  let closing = new AbortController();
  const draw = () => {
    closing.abort();
    closing = new AbortController();
    fill(frame.main);
    const inner = { ...frame, signal: closing.signal };
    return store.state.item ? one(inner) : list(inner);
  };
  frame.signal.addEventListener("abort", () => closing.abort());
  store.watch(["item"], () => void draw(), frame.signal);
  return draw();
}
