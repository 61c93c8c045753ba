/** Figures that Python made as Plotly JSON. Plotly is fetched when the first of them comes into sight, on no other page. */

import { fill, h } from "../core/h.js";
import { dialog } from "../core/notice.js";
import { colourOf, theme } from "../core/theme.js";
import { blobOf, decoded, kept, rowsOf } from "./figure_data.js";
import { trouble } from "./parts.js";
import { takeTools } from "./take.js";

/** Names of colours in figures, and those of the page. */
const NAMES = /** @type {Record<string, string>} */ ({ "--ink": "--text", "--soft": "--faint", "--faint": "--figure-faint", "--strong": "--figure-strong" });
/** What users wrote, or long lists of numbers: no colour is in there. */
const PLAIN = new Set(["x", "y", "z", "text", "name", "values", "ticktext", "tickvals", "categoryarray", "label", "title", "customdata"]);
const RUN = /^[0-9a-f]{32}$/;
const NEAR = "300px";

/** @typedef {{title: string, data: any[], layout: any, reason?: string, note?: string, height?: number, is_wide?: boolean}} Figure */

/** @type {Promise<any> | null} */
let loading = null;

/** @returns {Promise<any>} Plotly */
export function plotly() {
  loading ??= new Promise((done, fail) => document.head.append(h("script", {
    src: new URL("../plotly.min.js", import.meta.url).href,
    onload: () => done(/** @type {any} */ (window).Plotly),
    onerror: () => { loading = null; fail(new Error("Figures need plotly on the server: pip install plotly")); },
  })));
  return loading;
}

/** A name of a colour, and how much of it is seen. */
const NAME = /^(--[a-z]+(?:-\d+)?)(?:\/(0?\.\d+|0|1))?$/;

/**
 * @param {any} value
 * @param {CSSStyleDeclaration} style
 * @param {string} run  id of the run that a trace is of: its colour is the one that it has everywhere
 * @returns {any}
 */
function coloured(value, style, run = "") {
  if (typeof value === "string") {
    const [, name, share] = NAME.exec(value) ?? [];
    if (!name) return value;
    const colour = run && name.startsWith("--run-") ? colourOf(run) : style.getPropertyValue(NAMES[name] ?? name).trim();
    return share === undefined ? colour : `${colour}${Math.round(Number(share) * 255).toString(16).padStart(2, "0")}`;
  }
  if (Array.isArray(value)) return value.map((each) => coloured(each, style, run));
  if (value !== null && typeof value === "object" && !ArrayBuffer.isView(value)) {
    return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, PLAIN.has(key) ? each : coloured(each, style, run)]));
  }
  return value;
}

/** The look of the page for a figure. @param {Figure} figure @param {any[]} traces */
function dressed(figure, traces) {
  const style = getComputedStyle(document.documentElement);
  const ink = (/** @type {string} */ name) => style.getPropertyValue(name).trim();
  const data = traces.map((trace) => coloured(trace, style, RUN.test(trace.legendgroup ?? "") ? trace.legendgroup : ""));
  const layout = coloured(figure.layout, style);
  const font = { family: getComputedStyle(document.body).fontFamily, size: 11, color: ink("--faint") };
  const legends = data.filter((/** @type {any} */ trace) => trace.name && trace.showlegend !== false).length;
  Object.assign(layout, {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", autosize: true, font, hovermode: layout.hovermode ?? "closest", height: undefined, width: undefined,
    margin: { l: 52, r: 18, b: 40, ...layout.margin, t: legends > 1 ? 34 : 12 },
    hoverlabel: { font: { family: font.family, size: 12, color: ink("--text") }, bgcolor: ink("--raised"), bordercolor: ink("--line-strong") },
    legend: { bgcolor: "rgba(0,0,0,0)", orientation: "h", y: 1.02, yanchor: "bottom", x: 0, ...layout.legend },
  });
  for (const key of new Set([...Object.keys(layout), "xaxis", "yaxis"])) {
    if (!/^[xy]axis\d*$/.test(key)) continue;
    layout[key] = { gridcolor: ink("--grid"), linecolor: ink("--line"), zeroline: false, automargin: true, exponentformat: "power", minexponent: 4, ...layout[key] };
    if (layout[key].title) layout[key].title = { font: { size: 11 }, standoff: 8, ...layout[key].title };
  }
  return { data, layout };
}

/** Draw into a place. @param {HTMLElement} place @param {Figure} figure @param {any[]} [traces] */
export async function drawFigure(place, figure, traces = figure.data) {
  const Plotly = await plotly();
  const { data, layout } = dressed(figure, traces);
  await Plotly.react(place, data, layout, { responsive: true, displayModeBar: false, displaylogo: false, showSendToCloud: false });
}

/**
 * A card with a figure that is fetched and drawn when it comes into sight.
 * @param {object} how
 * @param {AbortSignal} how.signal
 * @param {string} how.title
 * @param {() => Promise<Figure>} how.ask
 * @param {() => string} how.python  code that makes it again
 * @param {Child} [how.tools]
 * @param {boolean} [how.wide]
 * @typedef {import("../core/h.js").Child} Child
 */
export function figureCard({ signal, title, ask, python, tools, wide = false }) {
  const place = h("div.figure-place");
  const say = h("div");
  const note = h("p.faint.figure-note");
  const heading = h("h3.card-title", null, title);
  /** @type {Figure | null} */
  let held = null;
  /** @type {Set<number> | null} trials that are shown */
  let shown = null;
  let isNear = false;
  let isStale = true;
  let turn = 0;
  const element = h(`article.figure-card${wide ? ".wide" : ""}`, { "aria-label": title, data: { state: "waiting" } },
    h("header.card-head", null, heading, h("span.spacer"), tools,
      takeTools({
        title, python, large: () => held && showLarge(held, traces()), numbers: () => rowsOf(held?.data ?? []),
        picture: async () => (held && !held.reason ? blobOf(await image("png")) : null),
        vector: async () => blobOf(await image("svg")).text(),
      })),
    place, say, note);
  const observer = new IntersectionObserver((entries) => {
    isNear = entries.some((each) => each.isIntersecting);
    if (isNear && isStale) void load();
  }, { rootMargin: NEAR });
  observer.observe(element);
  theme.watch(() => { if (element.dataset.state === "ready") void draw(); }, signal);
  signal.addEventListener("abort", () => {
    observer.disconnect();
    /** @type {any} */ (window).Plotly?.purge(place);
  });

  const traces = () => (held ? held.data.map((trace) => kept(trace, shown)) : []);

  async function load() {
    isStale = false;
    const mine = ++turn;
    if (!held) element.dataset.state = "loading";
    try {
      const figure = await ask();
      if (signal.aborted || mine !== turn) return;
      held = { ...figure, data: figure.data.map(decoded) };
      heading.textContent = figure.title || title;
      note.textContent = figure.note ?? "";
      await draw();
    } catch (error) {
      if (signal.aborted || mine !== turn) return;
      element.dataset.state = "error";
      fill(say, trouble(/** @type {Error} */ (error).message, () => void load()));
    }
  }

  async function draw() {
    if (!held) return;
    fill(say, held.reason && h("p.loading", null, held.reason));
    place.hidden = !!held.reason;
    place.style.height = `${held.height ?? 340}px`;
    if (!held.reason) await drawFigure(place, held, traces());
    if (!signal.aborted) element.dataset.state = held.reason ? "empty" : "ready";
  }

  /** The figure as it is, as the address of a picture. @param {"png" | "svg"} format @returns {Promise<string>} */
  const image = async (format) => (await plotly()).toImage(place, { format, scale: 2 });

  return {
    element,
    /** What it shows has changed. */
    renew() {
      isStale = true;
      if (isNear) void load();
    },
    /** Show only some trials. @param {Set<number> | null} trials */
    filter(trials) {
      shown = trials;
      if (element.dataset.state === "ready") void draw();
    },
  };
}

/** Over the whole page. @param {Figure} figure @param {any[]} traces */
export function showLarge(figure, traces) {
  const place = h("div", { style: { height: "calc(100dvh - 120px)" } });
  dialog(figure.title, () => place, { full: true, onclose: () => /** @type {any} */ (window).Plotly?.purge(place) });
  if (!figure.reason) void drawFigure(place, figure, traces);
}
