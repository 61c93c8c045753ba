/** Reports: Markdown with live blocks, read and written. */

import { get, part, send, url } from "../core/api.js";
import { fill, h, icon } from "../core/h.js";
import { prompt } from "../core/notice.js";
import { store } from "../core/state.js";
import { colourOf, theme } from "../core/theme.js";
import { attempt, head, headOf, may, runLink, searched, since, table } from "./areas.js";
import { drawFigure, plotly } from "./figure.js";
import { decoded } from "./figure_data.js";
import { fromHtml } from "./markup.js";
import { show, trouble } from "./parts.js";

const WAIT_MS = 600;
const HEIGHT = 340;
const START = "# {name}\n\nWhat was asked, what was done, what came out.\n\n```runs\nlimit: 20\n```\n";

/** @param {import("./index.js").Frame} frame */
export function open({ main, signal, info }) {
  const body = h("div.page-body");
  const top = h("div");
  fill(main, top, body);
  /** Of what is shown now: ends with it. */
  let ending = new AbortController();
  signal.addEventListener("abort", () => ending.abort());
  store.watch(["item", "tab"], draw, signal);
  theme.watch(() => { for (const place of body.querySelectorAll(".rs-figure")) void figure(place); }, signal);
  return draw();

  function draw() {
    ending.abort();
    ending = new AbortController();
    const { item, tab } = store.state;
    fill(body);
    if (!item) return list();
    return tab === "write" ? write(item) : read(item);
  }

  function list() {
    fill(top, head(h("h1", null, "Reports"), may(info, "contributor") && h("button", { type: "button", onclick: () => void create() }, icon("plus"), "New report")));
    return show(body, ending.signal, () => get("reports", {}, { signal: ending.signal }), ({ reports }) => (reports.length ? searched({
      items: reports, label: "Search reports", words: (each) => `${each.name} ${each.title}`,
      make: (found) => table(["Report", "Name", "Changed", "Made"], found.map((each) => [h("a", { href: store.href({ page: "reports", item: each.name }, { fresh: true }) }, each.title), each.name, since(each.changed_at), since(each.created_at)]), { label: "Reports" }),
    }) : h("div.empty", null, h("h2", null, "No report yet"), h("p", null, "A report is Markdown; blocks in it show runs, curves, comparisons, sweeps and models as they are now."))));
  }

  async function create() {
    const name = await prompt("New report", { label: "Name", verb: "Write" });
    if (!name) return;
    const made = await attempt(() => send("PUT", `reports/${part(name)}`, { text: START.replace("{name}", name) }));
    if (made) store.open(store.href({ page: "reports", item: made.name, tab: "write" }, { fresh: true }));
  }

  /** @param {string} name */
  function read(name) {
    fill(top, headOf("reports", "All reports", h("span.faint", null, name), [
      may(info, "contributor") && h("a", { href: store.href({ tab: "write" }) }, "Write"),
      h("a", { href: url(`reports/${part(name)}/page`), download: "" }, icon("download"), " One HTML file")]));
    return show(body, ending.signal, () => get(`reports/${part(name)}`, { theme: "css" }, { signal: ending.signal }), (answer) => {
      document.title = `${answer.title} · Runstone`;
      return shown(answer.html);
    }, { none: `There is no report ${name}.` });
  }

  /** @param {string} html */
  function shown(html) {
    const element = h("article.report", null, fromHtml(html));
    for (const cell of element.querySelectorAll("th.rs-whole[title]")) {
      if (!/^[0-9a-f]{32}$/.test(cell.title)) continue;
      for (const chip of cell.querySelectorAll(".rs-chip")) chip.style.background = colourOf(cell.title);
      cell.replaceChildren(...[...cell.childNodes].map((node) => (node instanceof Text ? runLink(cell.title, node.data) : node)));
    }
    for (const place of element.querySelectorAll(".rs-figure")) void figure(place);
    return element;
  }

  /** @param {HTMLElement} place  of one figure; it holds what plotly takes */
  async function figure(place) {
    const { signal: now } = ending;
    const drawn = /** @type {HTMLElement} */ (place.querySelector(".rs-drawn") ?? place.appendChild(h("div.rs-drawn")));
    try {
      const told = JSON.parse(/** @type {HTMLElement} */ (place.querySelector("[data-figure]")).dataset.figure ?? "");
      drawn.style.height = `${told.layout?.height ?? HEIGHT}px`;
      await plotly();
      if (now.aborted) return;
      await drawFigure(drawn, { title: "", ...told, data: told.data.map(decoded) });
      now.addEventListener("abort", () => /** @type {any} */ (window).Plotly.purge(drawn));
      place.dataset.state = "ready";
    } catch (error) {
      if (!now.aborted) fill(drawn, trouble(/** @type {Error} */ (error).message));
    }
  }

  /** @param {string} name */
  function write(name) {
    const saved = h("span.faint", { role: "status" });
    const text = h("textarea", { "aria-label": "Markdown", spellcheck: true, disabled: true });
    const look = h("div", { "aria-live": "polite" });
    const problem = h("div");
    let kept = "";
    let timer = 0;
    let turn = 0;
    const { signal: now } = ending;
    const save = async () => {
      const wanted = text.value;
      if (!await attempt(() => send("PUT", `reports/${part(name)}`, { text: wanted }))) return;
      kept = wanted;
      saved.textContent = "Saved";
    };
    const preview = async () => {
      const mine = ++turn;
      try {
        const answer = await send("POST", `reports/preview?theme=css`, { text: text.value });
        if (mine !== turn || now.aborted) return;
        fill(problem);
        fill(look, shown(answer.html));
      } catch (error) {
        if (mine === turn && !now.aborted) fill(problem, trouble(/** @type {Error} */ (error).message));
      }
    };
    text.addEventListener("input", () => {
      saved.textContent = text.value === kept ? "" : "Not saved";
      clearTimeout(timer);
      timer = window.setTimeout(() => void preview(), WAIT_MS);
    });
    text.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
      if ((event.ctrlKey || event.metaKey) && event.key === "s") { event.preventDefault(); void save(); }
    });
    now.addEventListener("abort", () => clearTimeout(timer));
    fill(top, headOf("reports", "All reports", h("span.faint", null, name), [saved, h("a", { href: store.href({ tab: "" }) }, "Read"), h("button.primary", { type: "button", onclick: () => void save() }, icon("save"), "Save")]));
    fill(body, h("div.writing", null, text, h("div", null, problem, look)));
    return get(`reports/${part(name)}`, { theme: "css" }, { signal: now }).then((answer) => {
      text.value = kept = answer.text;
      text.disabled = false;
      fill(look, shown(answer.html));
    }).catch((error) => { if (!now.aborted) fill(problem, trouble(error.message)); });
  }
}
