/**
 * Media and texts by step: one slider for all names and all runs, so that what was logged together is seen together.
 * Only what is in sight, and only of the step that is shown, is fetched.
 */

import { get, part } from "../core/api.js";
import { count } from "../core/format.js";
import { fill, h, iconButton } from "../core/h.js";
import { bind } from "../core/keys.js";
import { byName, pattern } from "../core/pattern.js";
import { store } from "../core/state.js";
import { medium } from "./medium.js";
import { nothing, show, trouble } from "./parts.js";
import { latest, union } from "./steps.js";

const WAIT_MS = 60; // while the slider moves
const MOST_NAMES = 40; // more are found by a search
const NEAR = "200px";

/** @typedef {{id: string, label: string, colour?: string}} Run */
/** @typedef {{run: Run, name: string, spans: import("./steps.js").Span[], inner: HTMLElement, told: HTMLElement, at: number | undefined, isNear: boolean, stop: AbortController}} Cell */

/**
 * @param {object} how
 * @param {AbortSignal} how.signal
 * @param {string} how.none  what to say where nothing was logged
 */
export function mediaBoard({ signal, none }) {
  const content = h("div.media");
  const problem = h("span.field-error", { role: "alert" });
  const said = h("span.figure", { role: "status" });
  const slider = h("input", { type: "range", min: 0, step: 1, "aria-label": "Step", oninput: () => { move(); } });
  const search = h("input", { type: "search", placeholder: "Names (regex)", "aria-label": "Search names of media", oninput: build });
  const bar = h("div.part.media-bar", { hidden: true }, search, problem, iconButton("left", "Step of media before ([)", () => go(-1)), slider, iconButton("right", "Next step of media (])", () => go(1)), said);
  const element = h("div", null, bar, content);
  /** @type {Run[]} */
  let runs = [];
  /** @type {Map<string, Map<string, import("./steps.js").Span[]>>} by name, then by run */
  let series = new Map();
  /** @type {number[]} */
  let steps = [];
  /** @type {Map<Element, Cell>} */
  const cells = new Map();
  let timer = 0;
  let turn = 0;
  const sight = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      const cell = cells.get(target);
      if (!cell) continue;
      cell.isNear = isIntersecting;
      if (isIntersecting) update(cell);
    }
  }, { rootMargin: NEAR });
  signal.addEventListener("abort", () => { sight.disconnect(); clearTimeout(timer); forget(); });
  bind([
    { keys: "]", label: "Next step of media", run: () => go(1) },
    { keys: "[", label: "Step of media before", run: () => go(-1) },
  ], signal);

  /** @param {Run[]} next */
  async function load(next) {
    runs = next;
    const mine = ++turn;
    try {
      const answers = await Promise.all(runs.map((run) => get(`runs/${part(run.id)}/media`, {}, { signal })));
      if (signal.aborted || mine !== turn) return;
      const shape = () => JSON.stringify([runs.map((run) => run.id), [...series.keys()]]);
      const [was, wasAtEnd] = [shape(), steps.length > 0 && Number(slider.value) === steps.length - 1];
      series = new Map();
      answers.forEach((answer, i) => answer.media.forEach((/** @type {any} */ each) => {
        const of = series.get(each.name) ?? new Map();
        series.set(each.name, of.set(runs[i].id, each.spans));
      }));
      const before = steps[Number(slider.value)];
      steps = union([...series.values()].flatMap((of) => [...of.values()]));
      slider.max = String(Math.max(0, steps.length - 1));
      const wanted = wasAtEnd ? steps[steps.length - 1] : before ?? (store.state.item === "" ? NaN : Number(store.state.item));
      const at = Number.isFinite(wanted) ? steps.findLastIndex((step) => step <= wanted) : steps.length - 1;
      slider.value = String(Math.max(0, at));
      bar.hidden = !steps.length;
      if (cells.size && shape() === was) renew();
      else build();
    } catch (error) {
      if (!signal.aborted && mine === turn) fill(content, trouble(/** @type {Error} */ (error).message, () => void load(next)));
    }
  }

  function forget() {
    for (const cell of cells.values()) cell.stop.abort();
    cells.clear();
    sight.disconnect();
  }

  /** More steps of what is there. */
  function renew() {
    tell();
    for (const cell of cells.values()) {
      cell.spans = series.get(cell.name)?.get(cell.run.id) ?? [];
      if (cell.isNear) update(cell);
    }
  }

  /** Make the places again. */
  function build() {
    const { test, error } = pattern(search.value);
    problem.textContent = error;
    if (error) return;
    forget();
    if (!steps.length) return void fill(content, nothing(none));
    const names = [...series.keys()].filter(test).sort(byName);
    fill(content, runs.length > 1 ? names.slice(0, MOST_NAMES).map((name) => h("section.media-row", { "aria-label": name }, h("h3", null, name), h("div.media-cells", null, runs.map((run) => place(name, run)))))
      : h("div.media-cells", null, names.slice(0, MOST_NAMES).map((name) => place(name, runs[0]))),
    names.length > MOST_NAMES && h("p.faint", null, `${count(names.length - MOST_NAMES, "name")} more: search for them`), names.length === 0 && h("p.faint", null, "No name fits"));
    tell();
    for (const target of cells.keys()) sight.observe(target);
  }

  /** @param {string} name @param {Run} run */
  function place(name, run) {
    const told = h("span.faint");
    const inner = h("div.medium");
    const title = runs.length > 1 ? [h("span.swatch", { style: { background: run.colour ?? "var(--axis)" } }), h("b", null, run.label)] : h("b", null, name);
    const tile = h("figure.tile", { "aria-label": runs.length > 1 ? `${name} of ${run.label}` : name, data: { run: run.id, medium: name } }, h("figcaption.row-of", null, title, told), inner);
    cells.set(tile, { run, name, spans: series.get(name)?.get(run.id) ?? [], inner, told, at: NaN, isNear: false, stop: new AbortController() });
    return tile;
  }

  /** @param {number} by */
  function go(by) {
    slider.value = String(Number(slider.value) + by);
    move();
  }

  /** Another step: said at once, shown when the slider rests. */
  function move() {
    tell();
    clearTimeout(timer);
    timer = window.setTimeout(() => {
      store.set({ item: String(steps[Number(slider.value)]) }, { replace: true });
      for (const cell of cells.values()) if (cell.isNear) update(cell);
    }, WAIT_MS);
  }

  function tell() {
    const now = steps[Number(slider.value)];
    said.textContent = `step ${now.toLocaleString("en-US")} (${(Number(slider.value) + 1).toLocaleString("en-US")} of ${steps.length.toLocaleString("en-US")})`;
    slider.setAttribute("aria-valuetext", `step ${now}`);
  }

  /** Show the step of the slider, or the last one before it. @param {Cell} cell */
  function update(cell) {
    const now = steps[Number(slider.value)];
    const at = latest(cell.spans, now);
    cell.told.textContent = at === undefined || at === now ? "" : `of step ${at.toLocaleString("en-US")}`;
    if (at === cell.at) return;
    cell.at = at;
    cell.stop.abort();
    cell.stop = new AbortController();
    const stop = cell.stop.signal;
    if (at === undefined) return void fill(cell.inner, h("p.faint", null, cell.spans.length ? "Nothing yet at this step" : "Not logged by this run"));
    void show(cell.inner, stop, () => get(`runs/${part(cell.run.id)}/records`, { name: cell.name, from_step: at, to_step: at, limit: 20, steps: false }, { signal: stop }),
      (answer) => answer.records.map((/** @type {any} */ each) => medium(cell.run.id, cell.name, each, stop)));
  }

  return { element, load };
}
