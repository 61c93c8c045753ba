/** One metric on the page: its chart, its controls, and fetching while it can be seen. */

import { short } from "../core/format.js";
import { fill, h, icon, iconButton } from "../core/h.js";
import { menu, prompt } from "../core/notice.js";
import { store } from "../core/state.js";
import { runDashes } from "../core/colour.js";
import { colourOf, theme } from "../core/theme.js";
import { lineChart } from "./chart.js";
import { copyPython, saveCsv, savePng, showTable } from "./export.js";
import { mean } from "./groups.js";
import { wholeY } from "./layout.js";
import { padded } from "./scale.js";
import { loader } from "./loader.js";
import { nothing } from "./series.js";

/** @typedef {{id: string, label: string, colour?: string | null, parent?: string | null}} Shown  a run of the charts; `colour`: chosen by hand */
/** @typedef {{key: string, label: string, ids: string[], runs: number}} Group */
/** @typedef {{runs: Shown[], groups: Group[] | null}} Scene */

const FEW = 600; // buckets, even of a small chart: twice as many points come as they are, which costs no more than what buckets say

/** How x is called, and its unit. @param {string} x @returns {{name: string, unit: import("./ticks.js").Unit}} */
export function axis(x) {
  if (x === "time") return { name: "time", unit: "clock" };
  if (x === "relative") return { name: "since start", unit: "duration" };
  if (x === "process") return { name: "process time", unit: "duration" };
  return { name: x.startsWith("metric:") ? x.slice(7) : "step", unit: "number" };
}

/**
 * @param {object} how
 * @param {string} how.metric
 * @param {() => Scene} how.scene
 * @param {AbortSignal} how.signal
 * @param {import("./zoom.js").Zoom} how.zoom
 * @param {(metric: string) => void} [how.onFull]
 * @param {() => void} [how.onExtent]  the range of y has changed
 * @param {() => void} [how.onGrowth]  points have come
 */
export function chartCard({ metric, scene, signal, zoom, onFull, onExtent, onGrowth }) {
  const data = loader();
  /** @type {AbortController | null} */
  let asking = null;
  /** @type {[number, number] | null} */
  let ownX = null;
  /** @type {[number, number] | null} */
  let ownY = null;
  /** @type {[number, number] | null} */
  let sharedY = null;
  let timer = 0;
  let isVisible = false;

  const chart = lineChart({
    name: `Chart of ${metric}`,
    signal,
    xName: () => axis(store.state.x).name,
    isSynced: () => true,
    onView: (x, y, keep) => {
      if (y !== undefined) ownY = y;
      zoom.set({ x, keep, owner: api });
      if (y !== undefined) show();
    },
    onBack: () => zoom.back(api),
  });
  const notes = h("div.card-notes");
  const problem = h("div.card-problem", { hidden: true, role: "alert" });
  const pin = iconButton("pin", "Pin this chart (p)", togglePin);
  const log = h("button.text-button", { type: "button", title: "Logarithmic y axis (l)", onclick: toggleLog }, "log");
  const element = h("article.card", { "aria-label": metric, data: { metric } },
    h("header.card-head", null,
      h("h3.card-title", { title: metric }, metric),
      notes,
      h("span.card-tools", null, log, pin,
        onFull && iconButton("full", "Full screen (f)", () => onFull(metric)),
        iconButton("more", `More for ${metric}`, (event) => menu(/** @type {Element} */ (event.currentTarget), actions())))),
    h("div.card-plot", null, chart.element, problem));

  const isLogY = () => store.state.logy !== store.state.log.includes(metric);

  theme.watch(show, signal);
  store.watch(["pinned", "logy", "log"], marks, signal);
  marks();

  function marks() {
    pin.setAttribute("aria-pressed", String(store.state.pinned.includes(metric)));
    log.setAttribute("aria-pressed", String(isLogY()));
  }

  /** @param {string} key */
  const toggled = (key) => {
    const now = store.state[key];
    return { [key]: now.includes(metric) ? now.filter((/** @type {string} */ each) => each !== metric) : [...now, metric] };
  };

  function togglePin() {
    store.set(toggled("pinned"));
  }

  function toggleLog() {
    store.set(toggled("log"));
  }

  /** @returns {import("../core/notice.js").Item[]} */
  function actions() {
    const { x, logx, smooth } = store.state;
    const name = axis(x).name;
    return [
      { label: "Download PNG", icon: "download", run: () => chart.picture && savePng(chart.picture, metric, chart.lines, element) },
      { label: "Download CSV", icon: "download", run: saveAll },
      { label: "Copy Python", icon: "copy", run: () => copyPython(metric, {
        runs: scene().runs.map((run) => ({ id: run.id, label: run.label, colour: colourOf(run.id, run.colour) })), x, logX: logx, logY: isLogY(), range: range(), smooth }) },
      { label: "Show as table", icon: "table", run: () => showTable(metric, name, chart.lines) },
      "line",
      { label: "Fix the range of y…", checked: ownY !== null, run: fixY },
      { label: "Whole range", run: () => { ownY = null; zoom.set({ x: null, keep: true, owner: api }); show(); } },
    ];
  }

  async function saveAll() {
    const lines = await finer(new AbortController().signal, 10_000);
    saveCsv(metric, axis(store.state.x).name, lines);
  }

  async function fixY() {
    const now = ownY ?? (chart.layout ? [chart.layout.sy.low, chart.layout.sy.high] : [0, 1]);
    const given = await prompt("Range of y", { label: "Lowest and highest value, apart by a space; nothing: as the data say", value: now.map((v) => short(v, 4).replaceAll("−", "-").replaceAll(",", "")).join(" "), verb: "Fix" });
    if (given === null) return;
    const [low, high] = given.split(/[\s;]+/).map(Number);
    ownY = given !== "" && low < high ? [low, high] : null;
    show();
  }

  /** @returns {[number, number] | null} */
  const range = () => (store.state.sync ? store.state.zoom : ownX);

  /** @returns {import("./layout.js").View} */
  function view() {
    const { x, logx, robust, shared, y } = store.state;
    return { x: range(), y: ownY ?? y ?? (shared && sharedY ? padded(isLogY() ? "log" : "linear", sharedY) : null), logX: logx, logY: isLogY(), robust, unit: axis(x).unit };
  }

  /** @param {number} [buckets] @returns {import("./loader.js").Wish} */
  function wish(buckets = Math.max(FEW, chart.columns / 2)) {
    const { runs, groups } = scene();
    const { x, smooth } = store.state;
    return { metric, runs: groups ? groups.flatMap((group) => group.ids) : runs.map((run) => run.id), x, smooth, range: range(), buckets };
  }

  /** @param {Map<string, import("./series.js").Points>} points @returns {import("./series.js").Line[]} */
  function linesOf(points) {
    const { runs, groups } = scene();
    const { baseline, band, x } = store.state;
    const dashes = runDashes(groups ? groups.map((group) => group.key) : runs.map((run) => run.id));
    if (groups) {
      return groups.map((group) => ({
        key: group.key, run: group.key, metric, label: `${group.label} (n=${group.ids.length})`, colour: colourOf(group.key), dash: dashes.get(group.key) ?? [], isBaseline: false,
        points: mean(group.ids.flatMap((id) => points.get(id) ?? []), band, Math.round(chart.columns / 2)),
      })).filter((line) => line.points.x.length > 0);
    }
    return runs.map((run) => ({
      key: run.id, run: run.id, metric, label: run.label, colour: colourOf(run.id, run.colour), dash: dashes.get(run.id) ?? [],
      isBaseline: run.id === baseline, isFork: !!run.parent && x === "step", points: points.get(run.id) ?? nothing(),
    })).filter((line) => line.points.x.length > 0 || line.points.error);
  }

  /** Points of all lines at this resolution, beside what is shown. @param {AbortSignal} stop @param {number} buckets */
  async function finer(stop, buckets) {
    return linesOf(await loader().load(wish(buckets), stop));
  }

  /** Draw what is held. */
  function show() {
    if (!isVisible) return;
    draw(data.held(wish()));
  }

  /** @param {Map<string, import("./series.js").Points>} points */
  function draw(points) {
    const lines = linesOf(points).filter((line) => !line.points.error);
    const before = chart.layout?.sy;
    return chart.set(lines, view()).then(() => {
      describe(lines);
      const after = chart.layout?.sy;
      if (before?.low !== after?.low || before?.high !== after?.high) onExtent?.();
    });
  }

  /** @param {import("./series.js").Line[]} lines */
  function describe(lines) {
    const nan = lines.filter((line) => line.points.nan > 0);
    const inf = lines.filter((line) => line.points.inf > 0);
    const sum = (/** @type {"nan" | "inf" | "dropped" | "repeated"} */ key) => lines.reduce((total, line) => total + line.points[key], 0);
    const names = (/** @type {typeof lines} */ of, /** @type {"nan" | "inf" | "repeated"} */ key) => of.filter((line) => line.points[key]).map((line) => `${line.label}: ${line.points[key]}`).join("\n");
    const lost = (chart.layout?.dropped ?? 0) + sum("dropped");
    const at = chart.layout;
    const isElsewhere = at !== null && lines.length > 0 && lines.every(({ points }) => points.x1 < at.sx.low || points.x0 > at.sx.high);
    fill(notes,
      isElsewhere && h("span.note", { title: "All points lie outside the range of x" }, "nothing in this range"),
      nan.length > 0 && h("span.note.bad", { title: names(nan, "nan") }, `${sum("nan").toLocaleString("en-US")} NaN`),
      inf.length > 0 && h("span.note.bad", { title: names(inf, "inf") }, `${sum("inf").toLocaleString("en-US")} Inf`),
      sum("repeated") > 0 && h("span.note", { title: `Points with the step of the point before; drawn in the order in which they were logged\n${names(lines, "repeated")}` }, `${sum("repeated").toLocaleString("en-US")} repeated`),
      lost > 0 && h("span.note", { title: "Points without a place on these axes: 0 or less on a logarithmic one, or without a value for x" }, `${lines.some((line) => line.points.low) && chart.layout?.dropped ? "at least " : ""}${lost.toLocaleString("en-US")} dropped`),
      (chart.layout?.beyond ?? 0) > 0 && h("span.note", { title: "Points above or below the range of y" }, `${chart.layout?.beyond.toLocaleString("en-US")} out of view`));
    chart.element.setAttribute("aria-label", `Chart of ${metric} over ${axis(store.state.x).name}, ${lines.length} ${lines.length === 1 ? "line" : "lines"}${lines.length ? `: ${lines.slice(0, 5).map((line) => line.label).join(", ")}${lines.length > 5 ? ", …" : ""}` : ""}`);
  }

  /** Fetch what is missing and draw it. */
  async function load() {
    if (!isVisible) return;
    asking?.abort();
    const mine = (asking = new AbortController());
    if (chart.element.dataset.state !== "ready") chart.element.dataset.state = "loading";
    element.setAttribute("aria-busy", "true");
    try {
      const points = await data.load(wish(), mine.signal);
      if (mine.signal.aborted || signal.aborted) return;
      const refused = [...points.values()].find((each) => each.error && !/no metric|never logged|not found/i.test(each.error));
      problem.hidden = !refused;
      fill(problem, refused && [icon("alert"), refused.error]);
      await draw(points);
      onGrowth?.();
    } catch (error) {
      if (mine.signal.aborted || signal.aborted) return;
      problem.hidden = false;
      chart.element.dataset.state = "error";
      fill(problem, icon("alert"), /** @type {Error} */ (error).message, h("button.link", { type: "button", onclick: () => void load() }, "Try again"));
    } finally {
      if (asking === mine) element.removeAttribute("aria-busy");
    }
  }

  const api = {
    element,
    metric,
    chart,
    /** @param {boolean} visible */
    see(visible) {
      if (visible === isVisible) return;
      isVisible = visible;
      if (visible) {
        chart.wake();
        show();
        void load();
      } else {
        asking?.abort();
        chart.sleep();
      }
    },
    /** Something about the wish has changed: draw what is there, then fetch. @param {number} [wait_ms] */
    refresh(wait_ms = 0) {
      if (!isVisible) return;
      show();
      clearTimeout(timer);
      if (data.isReady(wish())) asking?.abort(); // what is drawn is what is meant
      else if (wait_ms) timer = window.setTimeout(() => void load(), wait_ms);
      else void load();
    },
    /** @param {Set<string>} runs @param {boolean} all */
    changed(runs, all) {
      const mine = wish().runs.filter((run) => all || runs.has(run));
      data.outdate(mine);
      if (mine.length) void load();
    },
    /** @param {[number, number] | null} x */
    setOwnX(x) {
      ownX = x;
    },
    get ownX() {
      return ownX;
    },
    /** Where the newest point lies along x. */
    get end() {
      return chart.lines.reduce((end, { points }) => (points.x1 > end ? points.x1 : end), -Infinity);
    },
    /** @returns {[number, number] | null} range of y that the data of this card want */
    get extent() {
      const at = chart.layout;
      return at && wholeY(chart.lines, at.spans, [at.sx.low, at.sx.high], chart.view);
    },
    /** @param {[number, number] | null} y */
    shareY(y) {
      if (String(y) === String(sharedY)) return;
      sharedY = y;
      show();
    },
    toggleLog,
    togglePin,
  };
  return api;
}
