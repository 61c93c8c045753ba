/** One sweep: how far it is, which trials there are, what goes with what; and its steering. */

import { get, part, send } from "../core/api.js";
import { bytes, count, duration, moment, numeric, plain, short } from "../core/format.js";
import { afterPaint, fill, h, icon } from "../core/h.js";
import { onChanges } from "../core/live.js";
import { confirm, copyText, prompt } from "../core/notice.js";
import { store } from "../core/state.js";
import { theme } from "../core/theme.js";
import { attempt, badge, choice, headOf, may, runLink, tabsOf } from "./areas.js";
import { axisBadges } from "./axis_badges.js";
import { figureCard } from "./figure.js";
import { parallel } from "./parallel.js";
import { facts, trouble, tree } from "./parts.js";
import { sweepPython } from "./python.js";
import { trialsTable } from "./sweep_trials.js";
import { progress } from "./sweep_progress.js";

const POLL_MS = 2000;
const AXES = 12;
const TABS = [{ name: "", title: "Overview" }, { name: "figures", title: "Figures" }, { name: "trials", title: "Trials" }, { name: "config", title: "Config" }];
/** What is on which tab; `several`: where there is more than one metric. */
const FIGURES = /** @type {Record<string, {kind: string, title: string, wide?: boolean, several?: boolean}[]>} */ ({
  "": [{ kind: "history", title: "History", wide: true }],
  figures: [
    { kind: "pareto", title: "Pareto front", several: true }, { kind: "hypervolume", title: "Hypervolume", several: true },
    { kind: "importance", title: "Importance" }, { kind: "edf", title: "Empirical distribution" },
    { kind: "slice", title: "Slice", wide: true }, { kind: "contour", title: "Contour", wide: true },
    { kind: "intermediate", title: "Intermediate values", wide: true }, { kind: "timeline", title: "Timeline", wide: true }, { kind: "spending", title: "What more time brought", wide: true },
  ],
});

/**
 * @typedef {object} Trials  columns, as `…/trials` answers
 * @property {number} seq
 * @property {number[]} number
 * @property {string[]} run_id
 * @property {string[]} state
 * @property {(number | null)[]} rank
 * @property {Record<string, any[]>} params
 * @property {Record<string, any[]>} values
 */

/** @param {import("./index.js").Frame} frame */
export async function openSweep({ main, signal, info }) {
  const base = `sweeps/${part(store.state.item)}`;
  /** @type {any} */
  let sweep;
  /** @type {Trials & Record<string, any>} */
  let trials = { seq: -1, number: [], run_id: [], state: [], rank: [], params: {}, values: {} };
  /** @type {Set<number> | null} */
  let chosen = null;
  /** @type {(ReturnType<typeof figureCard> & {isLive: boolean, end: () => void})[]} */
  let cards = [];
  /** @type {import("./parallel.js").Item[]} */
  let items = [];
  let isAsking = false;
  let drawnMetric = "";

  const top = h("div");
  const tabs = h("div");
  const tiles = h("div.tiles.narrow");
  const body = h("div.page-body");
  fill(main, h("div.run-page", null, top, tabs, body));
  const onOpen = (/** @type {{id: string}} */ item) => store.open(store.href({ page: "run", run: item.id }, { fresh: true }));
  const lines = parallel({ signal, onOpen, python: () => sweepPython(sweep.id, "parallel", { metric: metric() }), onBrush: (ids) => {
    const inside = ids && new Set(ids);
    chosen = inside && new Set(items.filter((item) => inside.has(item.id)).map((item) => item.values.trial));
    rows.choose(chosen);
    afterPaint(filterCards); // the lines and the table are seen before figures take their time
  } });
  const rows = trialsTable({ signal, onClear: () => lines.clear() });

  const ended = () => trials.state.filter((state) => state !== "running" && state !== "waiting").length;
  const metrics = () => sweep.metrics.map((/** @type {any} */ one) => one.name);
  const metric = () => (metrics().includes(store.state.metric) ? store.state.metric : metrics()[0]);

  try {
    await load();
  } catch (error) {
    if (!signal.aborted) fill(body, trouble(/** @type {Error} */ (error).message));
    return;
  }
  drawTab();
  store.watch(["tab", "metric"], drawTab, signal);
  store.watch(["pair"], () => { if (store.state.tab === "figures") drawTab(); }, signal);
  store.watch(["axes"], drawParallel, signal);
  theme.watch(() => { makeItems(); drawParallel(); }, signal);
  onChanges((changes) => { if (changes.sweeps || changes.all) void renew(); }, signal);
  const timer = setInterval(() => { if (!document.hidden && sweep.status === "running") void renew(); }, POLL_MS);
  signal.addEventListener("abort", () => clearInterval(timer));

  /** @returns {Promise<boolean>} whether there is anything new */
  async function load() {
    const [told, more] = await Promise.all([get(base, {}, { signal }), get(`${base}/trials`, { after: trials.seq }, { signal })]);
    const isNew = !more.is_unchanged || sweep?.status !== told.status;
    sweep = told;
    document.title = `${sweep.name} · Runstone`;
    if (!more.is_unchanged) trials = more;
    makeItems();
    drawHead();
    return isNew;
  }

  async function renew() {
    if (isAsking) return;
    isAsking = true;
    try {
      const before = ended();
      if (!await load()) return;
      drawTiles();
      drawParallel();
      rows.set(sweep, trials);
      const more = ended() !== before;
      for (const card of cards) if (more || card.isLive) card.renew();
    } catch {
      // the banner says when the server is away
    } finally {
      isAsking = false;
    }
  }

  /** Trials with a result, the best last, so that they lie on top; the better, the stronger the colour. */
  function makeItems() {
    const worst = Math.max(1, ...trials.rank.map((rank) => rank ?? 0));
    const rankOf = new Map(trials.number.map((number, i) => [number, trials.rank[i] ?? worst + 1]));
    items = trials.number.flatMap((number, i) => {
      const values = Object.fromEntries([...Object.entries(trials.params).map(([name, column]) => [`params.${name}`, numeric(column[i])]), ...Object.entries(trials.values).map(([name, column]) => [`metrics.${name}`, numeric(column[i])])]);
      return trials.state[i] === "complete" || trials.state[i] === "pruned" ? [{ id: trials.run_id[i], label: `trial ${number}`, colour: shade(1 - (trials.rank[i] ?? worst) / worst), values: { ...values, trial: number } }] : [];
    }).sort((a, b) => (rankOf.get(b.values.trial) ?? 0) - (rankOf.get(a.values.trial) ?? 0));
  }

  /** @param {Set<number> | null} next  trials inside the chosen stretches */
  function choose(next) {
    chosen = next;
    rows.choose(next);
    filterCards();
  }

  function filterCards() {
    for (const card of cards) card.filter(chosen);
  }

  function drawHead() {
    const isRunning = sweep.status === "running";
    fill(top, headOf("sweeps", "All sweeps", [h("h1", null, sweep.name), h("span.badge", { data: { status: sweep.status } }, sweep.status), sweep.is_paused && isRunning && badge("paused", "warn"),
      h("span.faint", { title: moment(sweep.started_at) }, duration(sweep.active_s))], [
      may(info, "contributor") && isRunning && h("button", { type: "button", onclick: () => void stop() }, icon("stop"), "Stop"),
      may(info, "maintainer") && (sweep.can_resume || (isRunning && sweep.is_paused)) && h("button", { type: "button", onclick: () => void resume() }, icon("redo"), "Resume"),
      may(info, "maintainer") && h("button", { type: "button", onclick: () => void add() }, icon("plus"), "Add trials"),
      h("a.wide-only", { href: store.href({ page: "runs", filter: `group = '${sweep.id}'` }, { fresh: true }) }, "In the table"),
    ]));
    fill(tabs, tabsOf("Parts of the sweep", TABS));
  }

  async function stop() {
    if (!await confirm(`Stop ${sweep.name}?`, "Its running trials are asked to stop and save what they have. It can be resumed.", "Stop")) return;
    await attempt(() => send("POST", `${base}/stop`), "Asked to stop");
    void renew();
  }

  async function resume() {
    await attempt(() => send("POST", `${base}/resume`), "Goes on");
    void renew();
  }

  async function add() {
    const text = await prompt("Add trials", { label: "How many more", value: "10", verb: "Add" });
    const more = Number(text);
    if (text === null) return;
    const done = await attempt(() => send("POST", `${base}/trials`, { add: more }));
    if (done) void renew();
  }

  function drawTab() {
    for (const card of cards) card.end();
    cards = [];
    fill(tabs, tabsOf("Parts of the sweep", TABS));
    const { tab } = store.state;
    const pick = metrics().length > 1 && tab !== "config" && choice("Metric", metrics().map((/** @type {string} */ name) => ({ value: name })), metric(), (name) => store.set({ metric: name }));
    drawnMetric = metric();
    if (tab === "config") return void fill(body, h("div.part", null, h("button", { type: "button", onclick: () => void copyText(JSON.stringify(sweep.config, null, 2), "Config as JSON") }, icon("copy"), "Copy JSON")), h("div.tile.tree", null, tree(sweep.config)));
    if (tab === "trials") {
      fill(body, rows.element);
      return rows.set(sweep, trials);
    }
    if (tab === "figures") {
      fill(body, pick && h("div.part", null, pick), h("div.figures", null, FIGURES.figures.filter((each) => !each.several || metrics().length > 1).map(card)));
      return choose(chosen);
    }
    drawTiles();
    const axes = h("span.row-of", { data: { part: "axes" } });
    fill(body, tiles, h("div.part", null, h("h2", null, "Parallel coordinates"), pick, axes, h("span.spacer"), lines.tools), lines.element, h("div.figures", { style: { "margin-top": "14px" } }, FIGURES[""].map(card)), h("div.part", null, h("h2", null, "Trials")), rows.element);
    drawParallel();
    rows.set(sweep, trials);
    choose(chosen);
  }

  /** @param {{kind: string, title: string, wide?: boolean}} of */
  function card({ kind, title, wide }) {
    const ending = new AbortController();
    signal.addEventListener("abort", () => ending.abort(), { signal: ending.signal });
    const pair = kind === "contour" && store.state.pair.length === 2 ? { x: store.state.pair[0], y: store.state.pair[1] } : {};
    const made = figureCard({ signal: ending.signal, title, wide, ask: () => get(`${base}/figures/${kind}`, { metric: drawnMetric, ...pair }, { signal: ending.signal }), python: () => sweepPython(sweep.id, kind, { metric: drawnMetric, ...pair }), tools: kind === "contour" && pairs() });
    cards.push(Object.assign(made, { isLive: kind === "timeline" || kind === "intermediate", end: () => ending.abort() }));
    return made.element;
  }

  /** The two parameters of the contour. */
  function pairs() {
    const names = sweep.parameters.filter((/** @type {any} */ each) => each.is_searched).map((/** @type {any} */ each) => each.name);
    if (names.length < 2) return false;
    const now = store.state.pair.length === 2 ? store.state.pair : ["", ""];
    const set = (/** @type {number} */ at) => (/** @type {string} */ name) => {
      if (!name) return store.set({ pair: [] });
      const other = now[1 - at] && now[1 - at] !== name ? now[1 - at] : names.find((/** @type {string} */ each) => each !== name);
      store.set({ pair: at ? [other, name] : [name, other] });
    };
    const options = [{ value: "", text: "most important" }, ...names.map((/** @type {string} */ name) => ({ value: name }))];
    return [choice("Across", options, now[0], set(0)), choice("Up", options, now[1], set(1))];
  }

  function drawTiles() {
    const { best, forecast, usage } = sweep;
    const n = sweep.trials;
    fill(tiles,
      h("section.tile", null, h("h2", null, "Progress"), progress(n), facts([
        ["Trials", `${["complete", "running", "pruned", "failed"].filter((state) => n[state]).map((state) => `${n[state]} ${state}`).join(", ") || "none"}${n.expected ? ` of ${n.expected}` : ""}`],
        ["Left", forecast.left_s > 0 && `about ${duration(forecast.left_s)}`], ["Pace", forecast.trials_per_hour > 0 && `${short(forecast.trials_per_hour, 3)} trials an hour`],
        ["Sampler", sweep.sampler], ["Pruner", sweep.pruner !== "none" && `${sweep.pruner}, by ${sweep.pruned_by}`], ["In parallel", sweep.parallel],
        ["Ended", sweep.ended_because],
      ])),
      best && h("section.tile", null, h("h2", null, sweep.front.length ? `Pareto front: ${count(sweep.front.length, "trial")}` : "Best"), facts([
        ["Trial", runLink(best.run_id, `trial ${best.number}`)], ...metrics().map((/** @type {string} */ name, /** @type {number} */ i) => [name, h("b", null, short(numeric(best.values[i]), 6))]),
        ...Object.entries(best.params).slice(0, 14).map(([name, value]) => [name, plain(numeric(value))]),
      ])),
      h("section.tile", null, h("h2", null, "What it took"), facts([
        ["GPU", usage.gpu_s > 0 && duration(usage.gpu_s)], ["CPU", usage.cpu_s > 0 && duration(usage.cpu_s)], ["Trials", usage.trial_s > 0 && duration(usage.trial_s)],
        ["Energy", usage.energy_j > 0 && `${short(usage.energy_j / 3.6e6, 3)} kWh`], ["Most memory", usage.max_rss_bytes > 0 && bytes(usage.max_rss_bytes)],
        ...sweep.spending.filter((/** @type {any} */ each) => each.limit !== null).map((/** @type {any} */ each) => [each.name.replaceAll("_", " "), `${short(each.used, 3)} of ${short(each.limit, 3)}`]),
      ])),
      sweep.failures.length > 0 && h("section.tile", null, h("h2", null, "Why trials failed"), h("ul", null, sweep.failures.map((/** @type {any} */ each) => h("li.failure", null, badge(`${each.numbers.length} ×`, "bad"), h("span", null, each.reason), h("span.faint", null, each.numbers.slice(0, 8).join(", "), each.numbers.length > 8 && " …"))))));
  }

  function drawParallel() {
    /** @type {HTMLElement | null} */
    const axes = body.querySelector('[data-part="axes"]');
    if (!axes) return;
    const names = [...Object.keys(trials.params).map((name) => `params.${name}`), ...metrics().map((/** @type {string} */ name) => `metrics.${name}`)];
    const usual = [...names.filter((name) => name.startsWith("params.")).slice(0, AXES), `metrics.${metric()}`];
    const shown = store.state.axes.length ? store.state.axes.filter((/** @type {string} */ name) => names.includes(name)) : usual;
    const rest = names.filter((name) => !shown.includes(name));
    axisBadges(axes, { shown, others: rest, items: lines.axisItems });
    lines.set(items, shown);
  }
}

/** A colour between weak and strong. @param {number} share  1: strong */
function shade(share) {
  const [weak, strong] = theme.now === "dark" ? [[0x3d, 0x4a, 0x63], [0x9c, 0xc2, 0xff]] : [[0xc9, 0xd3, 0xe3], [0x12, 0x3f, 0x91]];
  return `#${weak.map((from, i) => Math.round(from + (strong[i] - from) * share ** 1.5).toString(16).padStart(2, "0")).join("")}`;
}
