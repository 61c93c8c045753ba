/** The controls of all charts of a page. */

import { h, iconButton } from "../core/h.js";
import { menu } from "../core/notice.js";
import { pattern } from "../core/pattern.js";
import { store } from "../core/state.js";

const AXES = [["step", "Step"], ["relative", "Time since start"], ["process", "Process time"], ["time", "Wall clock"]];
const KINDS = [["none", "No smoothing"], ["ema", "Average (EMA)"], ["mean", "Running mean"], ["gauss", "Gaussian"]];

/**
 * @param {object} how
 * @param {AbortSignal} how.signal
 * @param {() => string[]} how.metrics  for x = a metric
 * @param {any} [how.before]
 */
export function chartBar({ signal, metrics, before }) {
  const problem = h("span.field-error", { role: "alert" });
  const search = h("input", { type: "search", placeholder: "Search metrics (regex)", "aria-label": "Search metrics", value: store.state.metrics, oninput: onSearch });
  const x = h("select", { "aria-label": "x axis", title: "x axis", onfocus: drawAxes, onchange: () => store.set({ x: x.value }) });
  const kind = h("select", { "aria-label": "Smoothing", title: "Smoothing (s)", onchange: onSmooth }, KINDS.map(([value, text]) => h("option", { value }, text)));
  const amount = h("input", { type: "range", "aria-label": "Amount of smoothing", oninput: onSmooth });
  const reset = h("button.link", { type: "button", onclick: () => store.set({ zoom: null, tail: false }) }, "Whole range");
  const tail = h("button.link", { type: "button", title: "Move along with the newest points", onclick: () => store.set({ tail: !store.state.tail }) }, "Follow tail");
  const element = h("div.chart-bar", null, before, search, x, h("span.smooth", null, kind, amount), problem, reset, tail, h("span.spacer"),
    iconButton("more", "More for all charts", (event) => menu(/** @type {Element} */ (event.currentTarget), options())));

  function onSearch() {
    problem.textContent = pattern(search.value).error;
    if (!problem.textContent) store.set({ metrics: search.value }, { replace: true });
  }

  function onSmooth() {
    const usual = /** @type {Record<string, string>} */ ({ ema: "0.6", mean: "10", gauss: "5", none: "0" });
    const [before] = store.state.smooth.split(":");
    store.set({ smooth: `${kind.value}:${kind.value !== before ? usual[kind.value] : kind.value === "none" ? "0" : amount.value}` }, { replace: true });
  }

  function drawAxes() {
    const all = metrics();
    const epoch = all.find((name) => /(^|[/.])epoch$/i.test(name));
    const names = all.filter((name) => name !== epoch);
    const now = store.state.x;
    const known = [...AXES, ...(epoch ? [[`metric:${epoch}`, "Epoch"]] : []), ...names.slice(0, 500).map((name) => [`metric:${name}`, name])];
    if (!known.some(([value]) => value === now)) known.push([now, now.replace("metric:", "")]);
    x.replaceChildren(...known.map(([value, text]) => h("option", { value, selected: value === now }, text)));
  }

  function draw() {
    const [how, much] = store.state.smooth.split(":");
    kind.value = how;
    amount.hidden = how === "none";
    Object.assign(amount, how === "ema" ? { min: 0, max: 0.999, step: 0.001 } : { min: 0, max: 200, step: 1 });
    amount.value = much;
    amount.title = how === "ema" ? `Weight of the past: ${much}` : how === "mean" ? `Points: ${much}` : `Deviation in points: ${much}`;
    reset.hidden = tail.hidden = !store.state.zoom;
    tail.setAttribute("aria-pressed", String(store.state.tail));
    if (document.activeElement !== search) search.value = store.state.metrics;
    drawAxes();
  }

  /** @returns {import("../core/notice.js").Item[]} */
  function options() {
    const { state } = store;
    const toggle = (/** @type {string} */ key, /** @type {string} */ label) => ({ label, checked: state[key], run: () => store.set({ [key]: !state[key] }) });
    const pick = (/** @type {string} */ key, /** @type {string} */ value, /** @type {string} */ label) => ({ label, checked: state[key] === value, run: () => store.set({ [key]: value }) });
    return [
      toggle("logx", "Logarithmic x"), toggle("logy", "Logarithmic y"), toggle("robust", "Leave out extremes (2–98 %)"),
      toggle("shared", "One range of y for a section"), toggle("sync", "Zoom all charts together"), "line",
      pick("size", "s", "Small charts"), pick("size", "m", "Medium charts"), pick("size", "l", "Large charts"), "line",
      pick("band", "minmax", "Groups: lowest to highest"), pick("band", "std", "Groups: standard deviation"), pick("band", "ci", "Groups: 95 % of the mean"),
    ];
  }

  store.watch(["x", "smooth", "zoom", "tail", "metrics"], draw, signal);
  draw();
  return { element, focus: () => search.focus(), redraw: draw };
}
