/** One run: what it was, what it learnt, where it ran, what it printed and made. */

import { get, part } from "../core/api.js";
import { ago, bytes, count, duration, exact, fieldName, moment, numeric, short } from "../core/format.js";
import { fill, h, icon, iconButton } from "../core/h.js";
import { bind } from "../core/keys.js";
import { onChanges } from "../core/live.js";
import { copyText, menu, prompt } from "../core/notice.js";
import { pattern } from "../core/pattern.js";
import { store } from "../core/state.js";
import { colourOf, theme } from "../core/theme.js";
import { chartGrid } from "../chart/grid.js";
import { chartBar } from "../chart/toolbar.js";
import * as actions from "../table/actions.js";
import { facts, nothing, tree, trouble } from "./parts.js";

/**
 * A tab whose module is fetched when it is first opened.
 *
 * @param {() => Promise<any>} load @param {string} name
 * @returns {(place: Place) => Promise<Opened>}
 */
const later = (load, name) => async (place) => {
  const module = await load();
  return place.signal.aborted ? undefined : module[name](place);
};

/**
 * @typedef {{run: any, body: HTMLElement, signal: AbortSignal}} Place  where a tab is made
 * @typedef {void | {update: (run: any) => void}} Opened
 * @type {{name: string, title: string, fits: (run: any) => boolean, open: (place: Place) => Opened | Promise<Opened>}[]}
 */
const TABS = [
  { name: "", title: "Overview", fits: () => true, open: overview },
  { name: "charts", title: "Charts", fits: (run) => Object.keys(run.metrics).length > 0, open: (place) => charts(place, "!system") },
  { name: "params", title: "Params", fits: (run) => Object.keys(run.params).length > 0, open: params },
  { name: "metrics", title: "Metrics", fits: (run) => Object.keys(run.metrics).length > 0, open: metrics },
  { name: "system", title: "System", fits: (run) => Object.keys(run.metrics).some((name) => name.startsWith("system/")), open: later(() => import("./run_system.js"), "system") },
  { name: "media", title: "Media", fits: (run) => run.records?.length > 0, open: later(() => import("./run_media.js"), "media") },
  { name: "environment", title: "Environment", fits: (run) => run.has_environment, open: later(() => import("./run_details.js"), "environment") },
  { name: "console", title: "Console", fits: (run) => run.consoles > 0, open: later(() => import("./run_details.js"), "consoleLines") },
  { name: "code", title: "Code", fits: (run) => run.has_patch, open: later(() => import("./run_details.js"), "patch") },
  { name: "artifacts", title: "Artifacts", fits: (run) => run.artifacts.length > 0, open: later(() => import("./run_artifacts.js"), "artifacts") },
  { name: "lineage", title: "Inputs and outputs", fits: (run) => run.inputs.length + run.outputs.length > 0, open: links },
  { name: "attempts", title: "Attempts", fits: (run) => run.attempts.length > 1, open: attempts },
  { name: "doctor", title: "Doctor", fits: () => true, open: later(() => import("./run_details.js"), "doctor") },
];

/** @param {import("./index.js").Frame} frame */
export async function open({ main, signal, info }) {
  const id = store.state.run;
  const head = h("header.page-head");
  const tabs = h("nav.tabs", { role: "tablist", "aria-label": "Parts of the run" });
  const body = h("div.page-body");
  fill(main, h("div.run-page", null, head, tabs, body));
  /** @type {any} */
  let run;
  let closing = new AbortController();
  /** @type {Opened} */
  let opened;
  signal.addEventListener("abort", () => closing.abort());

  async function load() {
    run = await get(`runs/${part(id)}`, {}, { signal });
    document.title = `${run.name} · Runstone`;
    drawHead();
    drawTabs();
  }

  const fitting = () => TABS.filter((tab) => tab.fits(run) || tab.name === store.state.tab);

  function drawHead() {
    const colour = colourOf(run.id, run.tags.colour);
    fill(head,
      h("div.run-title", null,
        h("a.icon-button", { href: store.href({ page: "runs", project: run.project }, { fresh: true }), "aria-label": `Runs of ${run.project}`, title: `Runs of ${run.project}` }, icon("left")),
        h("span.dot", { style: { background: colour } }), h("h1", null, run.name), h("span.badge", { data: { status: run.status } }, run.status),
        run.stop_requested && run.status === "running" && h("span.badge", null, "asked to stop"),
        run.pinned && h("span.badge", null, "pinned"), run.archived && h("span.badge", null, "archived"), run.is_deleted && h("span.badge", null, "deleted"),
        h("span.faint", { title: moment(run.started_at) }, `${ago(run.started_at)}, ${duration(run.duration_s)}`)),
      h("span.spacer"),
      run.status === "running" && !info.read_only && h("button", { type: "button", onclick: () => void actions.stop(run.id, run.name) }, icon("stop"), "Stop"),
      h("a.wide-only", { href: store.href({ page: "runs", project: run.project, runs: [run.id] }, { fresh: true }) }, "In the table"),
      iconButton("more", "More", (event) => menu(/** @type {Element} */ (event.currentTarget), [
        { label: "Copy id", icon: "copy", run: () => void copyText(run.id, "Id") },
        ...(info.read_only ? [] : /** @type {import("../core/notice.js").Item[]} */ ([
          { label: "Rename…", run: () => void actions.rename(run.id, run.name) },
          { label: "Notes…", run: () => void editNotes() },
          { label: "Tag…", icon: "tag", run: () => actions.tag([run.id]) },
          { label: "Colour…", run: () => actions.recolour(run.id, colour) },
          { label: run.archived ? "Unarchive" : "Archive", run: () => void actions.archive([run.id], !run.archived) },
          run.is_deleted ? { label: "Restore", run: () => void actions.restore([run.id]) } : { label: "Delete", icon: "trash", danger: true, run: () => void actions.remove([run.id]) },
        ])),
      ])));
  }

  async function editNotes() {
    const notes = await prompt("Notes", { label: "Text", value: run.notes ?? "" });
    if (notes !== null) await actions.edit(run.id, { notes }, "Notes kept");
  }

  function drawTabs() {
    fill(tabs, fitting().map((tab) => h("a", {
      role: "tab", href: store.href({ tab: tab.name, item: "" }), "aria-selected": String(tab.name === store.state.tab),
      onclick: (/** @type {MouseEvent} */ event) => { event.preventDefault(); store.set({ tab: tab.name, item: "", zoom: null }); },
    }, tab.title)));
  }

  function openTab() {
    closing.abort();
    closing = new AbortController();
    drawTabs();
    fill(body);
    const tab = TABS.find((each) => each.name === store.state.tab) ?? TABS[0];
    body.classList.toggle("tab-charts", tab.name === "charts" || tab.name === "system");
    const place = { run, body, signal: closing.signal };
    opened = undefined;
    Promise.resolve(tab.open(place)).then((made) => { if (!place.signal.aborted) opened = made; }, (error) => {
      if (!place.signal.aborted) fill(body, trouble(error.message, openTab));
    });
  }

  try {
    await load();
  } catch (error) {
    if (!signal.aborted) fill(main, h("div.page-body", null, trouble(/** @type {Error} */ (error).message)));
    return;
  }
  openTab();
  store.watch(["tab"], openTab, signal);
  theme.watch(drawHead, signal);
  const renew = () => void load().then(() => opened?.update(run)).catch(() => {}); // the banner says when the server is away
  onChanges((changes) => { if (changes.all || changes.runs.has(id)) renew(); }, signal);
  actions.onEdited(renew, signal);
  bind([
    { keys: "]", label: "Next part of the run", run: () => step(1) },
    { keys: "[", label: "Part of the run before", run: () => step(-1) },
  ], signal);

  /** @param {number} by */
  function step(by) {
    const all = fitting();
    const at = all.findIndex((tab) => tab.name === store.state.tab);
    store.set({ tab: all[(at + by + all.length) % all.length].name, item: "" });
  }
}

/** @param {Place} place */
function overview({ run, body }) {
  const draw = (/** @type {any} */ now) => {
    const main = Object.entries(now.metrics).filter(([name]) => !name.startsWith("system/")).slice(0, 14);
    const flat = Object.entries(now.flat_params ?? {});
    fill(body,
      now.failure && h("section.tile", null, h("h2.bad", null, `${now.failure.type ?? "Failed"}: ${now.failure.message ?? ""}`), now.failure.traceback && h("pre.block", null, now.failure.traceback)),
      now.warnings.length > 0 && h("div.trouble", { role: "status" }, icon("alert"), h("ul", null, now.warnings.map((/** @type {any} */ each) => h("li", null, typeof each === "string" ? each : each.message ?? JSON.stringify(each))))),
      h("div.tiles", null,
        alertsOf(now.alerts ?? []),
        h("section.tile", null, h("h2", null, "Run"), facts([
          ["Project", h("a", { href: store.href({ page: "runs", project: now.project }, { fresh: true }) }, now.project)],
          ["Group", now.group], ["Id", h("span.mono", null, now.id)], ["Started", moment(now.started_at)], ["Ended", moment(now.ended_at)], ["Duration", duration(now.duration_s)],
          ["Parent", now.parent && h("a", { href: store.href({ page: "run", run: now.parent }, { fresh: true }) }, now.parent)],
          ["Attempts", now.attempts.length > 1 && String(now.attempts.length)], ["Dropped points", now.dropped > 0 && String(now.dropped)],
          ["Tags", Object.keys(now.tags).length > 0 && h("span.row-of", null, Object.entries(now.tags).map(([name, value]) => h("span.badge", null, value ? `${name}: ${value}` : name)))],
          ["Notes", now.notes],
        ])),
        main.length > 0 && h("section.tile", null, h("h2", null, "Metrics"), h("table.plain", null,
          h("thead", null, h("tr", null, ["", "last", "lowest", "highest"].map((name) => h("th", { scope: "col" }, name)))),
          h("tbody", null, main.map(([name, one]) => h("tr", null, h("th", { scope: "row" }, name), ["last", "min", "max"].map((figure) => h("td", null, short(numeric(one[figure]), 5)))))))),
        flat.length > 0 && h("section.tile", null, h("h2", null, "Params"), facts(flat.slice(0, 24).map(([name, value]) => [name, value === null ? "null" : typeof value === "object" ? JSON.stringify(value) : String(value)])), flat.length > 24 && h("p.faint", null, `and ${flat.length - 24} more`)),
        now.artifacts.length > 0 && h("section.tile", null, h("h2", null, "Artifacts"), facts(now.artifacts.slice(0, 12).map((/** @type {any} */ each) => [each.name, bytes(each.size_bytes)])))));
  };
  draw(run);
  return { update: draw };
}

/** What somebody wanted to be told of, the newest first. @param {any[]} alerts */
const alertsOf = (alerts) => alerts.length > 0 && h("section.tile", { "aria-label": "Alerts" }, h("h2", null, count(alerts.length, "alert")), [...alerts].reverse().map((each) => h("div.alert", { data: { level: each.level } },
  h("span.badge", { class: { error: "tone-bad", warning: "tone-warn" }[/** @type {string} */ (each.level)] ?? "" }, each.level), h("b", null, each.title), h("time.faint", { title: moment(each.at) }, ago(each.at)),
  each.text && h("p", null, each.text), each.metric && h("p.faint", null, `${each.metric}${each.step === null ? "" : ` at step ${each.step}`}${each.value === null ? "" : `: ${short(numeric(each.value), 5)}`}${each.rule ? `, rule ${each.rule}` : ""}`),
  each.deliveries.length > 0 && h("p.faint", null, each.deliveries.map((/** @type {[string, boolean, string]} */ [name, isTaken, detail]) => `${name}: ${isTaken ? "told" : `not told, ${detail}`}`).join("; ")))));

/** @param {Place} place @param {string} only */
function charts({ run, body, signal }, only) {
  const grid = chartGrid({ signal, only });
  grid.element.dataset.size = store.state.size;
  store.watch(["size"], () => { grid.element.dataset.size = store.state.size; }, signal);
  /** @type {string[]} */
  let names = [];
  const bar = chartBar({ signal, metrics: () => names });
  fill(body, bar.element, grid.element);
  let known = "";
  const update = (/** @type {any} */ now) => {
    names = Object.keys(now.metrics);
    if (names.join("\n") === known) return;
    known = names.join("\n");
    grid.setMetrics(names);
  };
  grid.setScene({ runs: [{ id: run.id, label: run.name, colour: run.tags.colour, parent: run.parent }], groups: null });
  update(run);
  return { update };
}

/** @param {Place} place */
function params({ run, body }) {
  const problem = h("span.field-error", { role: "alert" });
  const list = h("div.tree");
  const search = h("input", { type: "search", placeholder: "Search params (regex)", "aria-label": "Search params", oninput: draw });
  fill(body, h("div.part", null, search, problem, h("button", { type: "button", onclick: () => void copyText(JSON.stringify(run.params, null, 2), "Params as JSON") }, icon("copy"), "Copy JSON")), h("div.tile", null, list));
  function draw() {
    const { test, error } = pattern(search.value);
    problem.textContent = error;
    const found = tree(run.params, test);
    fill(list, found.length ? found : h("p.faint", null, "No param fits"));
  }
  draw();
}

/** @param {Place} place */
function metrics({ run, body }) {
  const problem = h("span.field-error", { role: "alert" });
  const rows = h("tbody");
  let shown = run;
  const search = h("input", { type: "search", placeholder: "Search metrics (regex)", "aria-label": "Search metrics", oninput: () => draw(shown) });
  fill(body, h("div.part", null, search, problem), h("div.tile.scroll", null, h("table.plain", null,
    h("thead", null, h("tr", null, ["Metric", "Last", "Lowest", "at step", "Highest", "at step", "Mean", "Points", "NaN"].map((name) => h("th", { scope: "col" }, name)))), rows)));
  const draw = (/** @type {any} */ now) => {
    shown = now;
    const { test, error } = pattern(search.value);
    problem.textContent = error;
    fill(rows, Object.entries(now.metrics).filter(([name]) => test(name)).slice(0, 1000).map(([name, one]) => h("tr", null,
      h("th", { scope: "row" }, h("a", { href: store.href({ page: "run", run: now.id, tab: "charts", metrics: `^${name.replace(/[.*+?^${}()|[\]\\/]/g, "\\$&")}$` }, { fresh: true }), title: fieldName("metrics", name) }, name)),
      [one.last, one.min, one.min_step, one.max, one.max_step, one.mean].map((value, i) => h("td", { title: value === null ? "" : exact(numeric(value)) }, i === 2 || i === 4 ? value ?? "" : short(numeric(value), 6))),
      h("td", null, one.count.toLocaleString("en-US")), h("td", { class: one.nan ? "bad" : "" }, one.nan || ""))));
  };
  draw(run);
  return { update: draw };
}

/** @param {Place} place */
function links({ run, body }) {
  const list = (/** @type {string} */ title, /** @type {any[]} */ all) => h("section.tile", null, h("h2", null, title), all.length ? h("table.plain", null,
    h("thead", null, h("tr", null, ["Kind", "Name", "Version", "Role", "From"].map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", null, all.map((each) => h("tr", null, h("td", null, each.kind), h("th", { scope: "row" }, linkTo(each)), h("td", null, each.version ?? (each.hash ? `${each.hash.slice(0, 12)}…` : "")), h("td", null, each.role ?? ""), h("td", null, each.source ?? ""))))) : h("p.faint", null, "None"));
  fill(body, run.inputs.length + run.outputs.length ? [h("div.part", null, h("a", { href: store.href({ page: "lineage", ref: run.id }, { fresh: true }) }, icon("graph"), " Lineage")), h("div.tiles", null, list("Inputs", run.inputs), list("Outputs", run.outputs))] : nothing("This run names nothing that it used or made.", "graph"));
}

/** @param {any} link */
function linkTo(link) {
  const page = { dataset: "datasets", model: "models" }[/** @type {string} */ (link.kind)];
  return page ? h("a", { href: store.href({ page, item: link.name, version: link.version ?? "" }, { fresh: true }) }, link.name) : link.name;
}

/** @param {Place} place */
function attempts({ run, body }) {
  const draw = (/** @type {any} */ now) => fill(body, h("p.faint", null, count(now.attempts.length, "attempt")), h("div.tile.scroll", null, h("table.plain", null,
    h("thead", null, h("tr", null, ["Attempt", "Status", "Started", "Duration", "From step", "Host", "Failure"].map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", null, now.attempts.map((/** @type {any} */ each, /** @type {number} */ i) => h("tr", null, h("th", { scope: "row" }, String(each.attempt ?? each.number ?? i + 1)),
      h("td", null, each.status && h("span.badge", { data: { status: each.status } }, each.status)), h("td", null, moment(each.started_at)),
      h("td", null, each.ended_at ? duration(each.ended_at - each.started_at) : ""), h("td", null, each.from_step ?? each.resumed_at_step ?? ""), h("td", null, each.host ?? ""), h("td", null, each.failure?.message ?? "")))))));
  draw(run);
  return { update: draw };
}
