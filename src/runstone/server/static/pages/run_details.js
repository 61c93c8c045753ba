/** Parts of a run that are fetched when opened: environment, console, patch, doctor. */

import { get, part } from "../core/api.js";
import { count, moment, plain } from "../core/format.js";
import { fill, h, icon } from "../core/h.js";
import { copyText, prompt } from "../core/notice.js";
import { pattern } from "../core/pattern.js";
import { store } from "../core/state.js";
import { quoted } from "../table/columns.js";
import { marked, nothing, show, tree } from "./parts.js";

const LINES = 2000; // of the console at once
const WAIT_MS = 150;
const OFFERED = 500; // runs of this project, and of others
const BY_ID = "\0"; // no id

/** @param {import("./run.js").Place} place */
export function environment({ run, body, signal }) {
  const content = h("div");
  const other = h("select", { "aria-label": "Compare the environment with", onchange: () => void choose() }, h("option", { value: "" }, "Compare with…"));
  const problem = h("span.field-error", { role: "alert" });
  const search = h("input", { type: "search", placeholder: "Search (regex)", "aria-label": "Search the environment", oninput: () => draw() });
  fill(body, h("div.part", null, search, problem, other), content);
  /** @type {any} */
  let held = null;
  void offer();
  void draw();
  store.watch(["other"], () => { mark(); void draw(); }, signal);

  /** Runs of the same project first, then all others; one that is not among them is named by its id. */
  async function offer() {
    const own = `project = ${quoted(run.project)}`;
    const answers = await Promise.all([get("runs", { filter: own, limit: OFFERED }, { signal }), get("runs", { filter: `not (${own})`, limit: OFFERED }, { signal })]).catch(() => []);
    for (const { ids, columns } of answers) {
      ids.forEach((/** @type {string} */ id, /** @type {number} */ i) => id !== run.id && other.append(h("option", { value: id }, columns.project[i] === run.project ? columns.name[i] : `${columns.project[i]}: ${columns.name[i]}`)));
    }
    other.append(h("option", { value: BY_ID }, "Another, by its id…"));
    mark();
  }

  function mark() {
    const now = store.state.other;
    if (now && ![...other.options].some((/** @type {HTMLOptionElement} */ option) => option.value === now)) other.append(h("option", { value: now }, now));
    other.value = now;
  }

  async function choose() {
    if (other.value !== BY_ID) return store.set({ other: other.value });
    const id = await prompt("Compare with another run", { label: "Id of the run", verb: "Compare" });
    if (id) store.set({ other: id });
    mark();
  }

  async function draw() {
    if (store.state.other) {
      return show(content, signal, () => get(`runs/${part(run.id)}/environment/diff/${part(store.state.other)}`), (answer) => differences(answer), { none: "One of the two has no environment." });
    }
    const { test, error } = pattern(search.value);
    problem.textContent = error;
    return show(content, signal, async () => (held ??= await get(`runs/${part(run.id)}/environment`)), (answer) => h("div.tiles", null,
      Object.entries(answer.as_used ?? answer.environment).map(([name, value]) => {
        const inner = value !== null && typeof value === "object" ? tree(value, test, name) : test(`${name} ${value}`) ? [h("div.leaf", null, h("span.faint", null, plain(value)))] : [];
        return inner.length > 0 && h("section.tile", null, h("h2", null, name.replaceAll("_", " ")), h("div.tree.scroll", { style: { "max-height": "340px" } }, inner));
      })), { none: "No environment was recorded." });
  }

  /** @param {any} answer */
  function differences(answer) {
    const back = h("button.link", { type: "button", onclick: () => store.set({ other: "" }) }, "Show all of this run");
    if (answer.is_equal) return [back, nothing("The two environments are the same.", "check")];
    return [back, Object.entries(answer.groups).filter(([, group]) => group.differences.length).map(([name, group]) => h("section", null,
      h("div.part", null, h("h2", null, name.replaceAll("_", " ")), h("span.faint", null, `${group.equal} equal`)),
      h("div.tile.scroll", null, h("table.plain", null, h("thead", null, h("tr", null, ["", "This run", "The other"].map((title) => h("th", { scope: "col" }, title)))),
        h("tbody", null, group.differences.map((/** @type {any} */ each) => h("tr", null, h("th", { scope: "row" }, each.name), h("td", null, each.left === null ? h("i.faint", null, "missing") : plain(each.left)), h("td", null, each.right === null ? h("i.faint", null, "missing") : plain(each.right)))))))))];
  }
}

/** @param {import("./run.js").Place} place */
export function consoleLines({ run, body, signal }) {
  let timer = 0;
  let isFollowing = run.status === "running";
  const total = h("span.faint");
  const lines = h("div.console", { role: "log", "aria-label": "What the run printed", tabIndex: 0 });
  const search = h("input", { type: "search", placeholder: "Search", "aria-label": "Search the console", value: store.state.item, oninput: () => {
    clearTimeout(timer);
    timer = window.setTimeout(() => { store.set({ item: search.value }, { replace: true }); void load(); }, WAIT_MS);
  } });
  const follow = h("button", { type: "button", "aria-pressed": String(isFollowing), onclick: () => { isFollowing = !isFollowing; follow.setAttribute("aria-pressed", String(isFollowing)); void load(); } }, "Follow the end");
  fill(body, h("div.part", null, search, follow, total), lines);
  void load();

  function load() {
    const wanted = search.value;
    return show(lines, signal, () => get(`runs/${part(run.id)}/console`, { search: wanted, lines: LINES, from_line: isFollowing ? -LINES : 0 }, { signal }), (answer) => {
      total.textContent = wanted ? count(answer.total, "line fits", "lines fit") : `${count(answer.total, "line")}${answer.total > LINES ? `, ${isFollowing ? "last" : "first"} ${LINES} shown` : ""}`;
      requestAnimationFrame(() => { if (isFollowing) lines.scrollTop = lines.scrollHeight; });
      return answer.lines.length ? answer.lines.map((/** @type {any} */ line) => h("div.console-line", { class: line.stream === 2 ? "err" : "", title: line.at ? moment(line.at) : "" }, h("span.n", null, line.n + 1), h("span", null, marked(line.text, wanted))))
        : h("p.loading", null, wanted ? "No line has this text" : "It printed nothing");
    }, { none: "Nothing was recorded of the console." });
  }
  return { update: () => { if (isFollowing) void load(); } };
}

/** @param {import("./run.js").Place} place */
export function patch({ run, body, signal }) {
  void show(body, signal, () => get(`runs/${part(run.id)}/patch`), (answer) => [
    h("div.part", null, h("span", null, count(answer.files.length, "file")), h("button", { type: "button", onclick: () => void copyText(answer.patch, "Patch") }, icon("copy"), "Copy"), answer.is_cut && h("span.warn", null, "Cut: it is larger than what is shown")),
    h("div.patch", { tabIndex: 0, "aria-label": "What was not committed" }, answer.patch.split("\n").map((/** @type {string} */ line) => h("span", { class: line.startsWith("@@") ? "at" : /^(\+\+\+|---|diff|index)/.test(line) ? "faint" : line.startsWith("+") ? "add" : line.startsWith("-") ? "del" : "" }, line || " "))),
  ], { none: "All was committed, or it ran outside a repository." });
}

/** @param {import("./run.js").Place} place */
export function doctor({ run, body, signal }) {
  const load = () => show(body, signal, () => get(`runs/${part(run.id)}/doctor`), (answer) => [
    h("div.part", null, answer.is_healthy ? [icon("check"), h("b.good", null, "Nothing looks wrong")] : h("b", null, count(answer.findings.length, "finding")), h("span.faint", null, count(answer.checked.length, "check"))),
    answer.findings.length > 0 && h("section.tile", null, answer.findings.map((/** @type {any} */ each) => h("div.finding", null,
      h("span.badge", { class: each.severity === "error" || each.severity === "critical" ? "bad" : "warn" }, each.severity), h("b", null, each.title),
      h("p.faint", null, each.explanation), h("p", null, each.action)))),
    Object.keys(answer.not_checked).length > 0 && h("details", null, h("summary.faint", null, `${count(Object.keys(answer.not_checked).length, "check")} could not be made`), h("ul", null, Object.entries(answer.not_checked).map(([name, why]) => h("li.faint", null, `${name}: ${why}`)))),
  ], { none: "There is nothing to look at." });
  void load();
  return { update: () => void load() };
}
