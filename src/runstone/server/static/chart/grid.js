/**
 * All charts of some runs: sections by the part of the name before the slash, pinned ones first.
 * A card is made when it comes near the window, and gives its canvases back when it leaves.
 */

import { count } from "../core/format.js";
import { fill, h, icon } from "../core/h.js";
import { bind } from "../core/keys.js";
import { onChanges } from "../core/live.js";
import { dialog } from "../core/notice.js";
import { byName, pattern } from "../core/pattern.js";
import { store } from "../core/state.js";
import { chartCard } from "./card.js";
import { hover } from "./hover.js";
import { hideTooltip } from "./tooltip.js";
import { zooming } from "./zoom.js";

const PINNED = "\0pinned";
const NEAR = "150px 0px";

/** @param {string} metric */
const sectionOf = (metric) => (metric.includes("/") ? metric.slice(0, metric.indexOf("/")) : "");

/** What of a line is no number. @param {import("./series.js").Points} points */
const strange = ({ nan, inf }) => nan + inf > 0 && h("span.bad", null, [nan > 0 && `${nan.toLocaleString("en-US")} NaN`, inf > 0 && `${inf.toLocaleString("en-US")} Inf`].filter(Boolean).join(", "));

/**
 * @param {object} how
 * @param {AbortSignal} how.signal
 * @param {string | ((metric: string) => boolean)} [how.only]  shows only metrics of this prefix, or all but this one when it begins with "!"; or those for which it holds
 */
export function chartGrid({ signal, only = "" }) {
  /** @type {string[]} */
  let metrics = [];
  /** @type {import("./card.js").Scene} */
  let scene = { runs: [], groups: null };
  /** @type {Map<Element, {metric: string, card: ReturnType<typeof chartCard> | null}>} */
  const slots = new Map();
  const closed = remembered();
  const cards = () => [...slots.values()].flatMap(({ card }) => card ?? []);
  const zoom = zooming();
  /** @type {any} the card of the full screen */
  let opened = null;
  let built = "";

  const isWanted = typeof only === "function" ? only : (/** @type {string} */ metric) => !only || (only.startsWith("!") ? sectionOf(metric) !== only.slice(1) : sectionOf(metric) === only);
  const element = h("div.grid");
  const sight = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) see(target, isIntersecting);
  }, { rootMargin: NEAR });

  signal.addEventListener("abort", () => {
    sight.disconnect();
    hover.set({ x: null, run: "", kept: false });
    hideTooltip();
  });
  store.watch(["metrics", "pinned"], build, signal);
  store.watch(["x"], () => {
    store.set({ zoom: null }, { replace: true });
    refresh();
  }, signal);
  store.watch(["smooth", "logx", "logy", "log", "robust", "shared", "y", "band", "baseline"], () => refresh(), signal);
  store.watch(["zoom"], () => refresh(zoom.wait_ms), signal);
  store.watch(["tail"], follow, signal);
  store.watch(["shared"], share, signal);
  onChanges((changes) => cards().forEach((card) => card.changed(changes.runs, changes.all)), signal);
  const target = () => {
    const at = element.querySelector(".card:hover, .card:focus-within");
    return at ? [...slots.values()].find(({ card }) => card?.element === at)?.card : null;
  };
  bind([
    { keys: "l", label: "Logarithmic y: of the chart below the pointer, or of all", run: () => { const card = target(); card ? card.toggleLog() : store.set({ logy: !store.state.logy }); } },
    { keys: "f", label: "Full screen of the chart below the pointer", run: () => { const metric = target()?.metric ?? shown()[0]; if (metric) full(metric); } },
    { keys: "Backspace", label: "The zoom before", run: () => { const card = target() ?? cards()[0]; if (card) zoom.back(card); } },
    { keys: "Escape", label: "Let the tooltip go", run: () => hover.set({ kept: false, x: null, run: "" }) },
  ], signal);

  /** @returns {Set<string>} */
  function remembered() {
    try {
      return new Set(JSON.parse(localStorage.getItem("runstone.closed") ?? "[]"));
    } catch {
      return new Set();
    }
  }

  /** @param {number} [wait_ms] */
  function refresh(wait_ms = 0) {
    for (const card of cards()) card.refresh(wait_ms);
    opened?.refresh(wait_ms);
  }

  /** @param {Element} slot @param {boolean} visible */
  function see(slot, visible) {
    const entry = slots.get(slot);
    if (!entry || (!visible && !entry.card)) return;
    if (!entry.card) {
      entry.card = chartCard({ metric: entry.metric, scene: () => scene, signal, zoom, onFull: full, onExtent: share, onGrowth: follow });
      slot.append(entry.card.element);
    }
    entry.card.see(visible);
  }

  /** Metrics that the pattern lets through, by section. @returns {Map<string, string[]>} */
  function sections() {
    const { pinned, metrics: wanted } = store.state;
    const { test } = pattern(wanted);
    const fits = metrics.filter((metric) => test(metric) && isWanted(metric));
    /** @type {Map<string, string[]>} */
    const found = new Map();
    const first = pinned.filter((/** @type {string} */ metric) => fits.includes(metric));
    if (first.length) found.set(PINNED, first);
    for (const metric of fits.sort(byName)) {
      if (pinned.includes(metric)) continue;
      const section = sectionOf(metric);
      found.set(section, [...(found.get(section) ?? []), metric]);
    }
    // what the machine did comes after what was learnt
    return new Map([...found].sort(([a], [b]) => Number(a === "system") - Number(b === "system") || Number(b === PINNED) - Number(a === PINNED)));
  }

  const shown = () => [...sections().values()].flat();

  function build() {
    const found = sections();
    const key = JSON.stringify([...found]);
    if (key === built) return;
    built = key;
    const kept = new Map([...slots].map(([slot, entry]) => [entry.metric, { slot, entry }]));
    slots.clear();
    fill(element, metrics.length === 0 ? empty("No metrics yet", "Charts appear here as soon as a shown run logs a number.")
      : found.size === 0 ? empty("No metric fits", "Change the search of metrics above.")
        : [...found].map(([name, names]) => section(name, names, kept)));
    for (const { entry } of kept.values()) if (!slots.size || ![...slots.values()].includes(entry)) entry.card?.see(false);
    for (const slot of slots.keys()) sight.observe(slot);
  }

  /** @param {string} title @param {string} text */
  const empty = (title, text) => h("div.empty", null, icon("chart"), h("h2", null, title), h("p", null, text));

  /** @param {string} name @param {string[]} names @param {Map<string, any>} kept */
  function section(name, names, kept) {
    const slotsHere = names.map((metric) => {
      const held = kept.get(metric);
      const slot = held?.slot ?? h("div.slot", { data: { metric } });
      slots.set(slot, held?.entry ?? { metric, card: null });
      return slot;
    });
    const title = name === PINNED ? "Pinned" : name || "Metrics";
    return h("details.section", {
      open: !closed.has(name),
      data: { section: title },
      ontoggle: (/** @type {any} */ event) => {
        closed[event.target.open ? "delete" : "add"](name);
        try {
          localStorage.setItem("runstone.closed", JSON.stringify([...closed]));
        } catch {
          // it opens again with the next visit
        }
      },
    }, h("summary", null, icon("right"), h("h2", null, title), h("span.faint", null, names.length)), h("div.slots", null, slotsHere));
  }

  function share() {
    if (!store.state.shared) return;
    for (const names of sections().values()) {
      const of = cards().filter((card) => names.includes(card.metric));
      const extents = of.flatMap((card) => (card.extent ? [card.extent] : []));
      if (extents.length) of.forEach((card) => card.shareY([Math.min(...extents.map((e) => e[0])), Math.max(...extents.map((e) => e[1]))]));
    }
  }

  /** Move the zoom to where the newest points are. */
  function follow() {
    const { tail, zoom: now } = store.state;
    const end = cards().reduce((last, card) => Math.max(last, card.end), -Infinity);
    if (tail && now && Number.isFinite(end) && end !== now[1]) store.set({ zoom: [end - (now[1] - now[0]), end] }, { replace: true });
  }

  /** @param {string} first */
  function full(first) {
    const stop = new AbortController();
    signal.addEventListener("abort", () => stop.abort());
    const all = shown();
    let at = Math.max(0, all.indexOf(first));
    const stage = h("div.stage");
    const legend = h("div.legend");
    const place = h("span.faint");
    /** @type {AbortController | null} */
    let one = null;
    const open = () => {
      one?.abort();
      one = new AbortController();
      opened = chartCard({ metric: all[at], scene: () => scene, signal: one.signal, zoom });
      fill(stage, opened.element);
      place.textContent = `${at + 1} of ${all.length}`;
      requestAnimationFrame(() => opened?.see(true));
    };
    const move = (/** @type {number} */ by) => {
      at = (at + by + all.length) % all.length;
      open();
    };
    const onKey = (/** @type {KeyboardEvent} */ event) => {
      if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
      if (event.target instanceof Element && event.target.closest(".plot")) return; // there arrows move the crosshair
      move(event.key === "ArrowLeft" ? -1 : 1);
    };
    document.addEventListener("keydown", onKey, { signal: stop.signal });
    dialog("Chart", () => [stage, legend], {
      full: true,
      tools: [place, h("button.icon-button", { type: "button", "aria-label": "Chart before (←)", onclick: () => move(-1) }, icon("left")),
        h("button.icon-button", { type: "button", "aria-label": "Next chart (→)", onclick: () => move(1) }, icon("right"))],
      onclose: () => {
        one?.abort();
        stop.abort();
        opened = null;
        hover.set({ x: null, run: "", kept: false });
        hideTooltip();
      },
    });
    open();
    const tell = () => fill(legend, opened?.chart.lines.map((/** @type {any} */ line) => h("button.legend-item", {
      type: "button", onmouseenter: () => hover.set({ run: line.run }), onmouseleave: () => hover.set({ run: "" }),
    }, h("span.swatch", { style: { background: line.colour } }), line.label, strange(line.points))));
    hover.watch(tell, stop.signal);
    setTimeout(tell, 400);
  }

  return {
    element,
    /** @param {import("./card.js").Scene} next */
    setScene(next) {
      scene = next;
      refresh();
    },
    /** @param {string[]} names */
    setMetrics(names) {
      metrics = names;
      build();
    },
    get summary() {
      return count(shown().length, "chart");
    },
    full,
  };
}
