/** The trials of a sweep: sorted by a click, filtered by words and by what is chosen in the parallel coordinates. */

import { duration, moment, numeric, plain, short } from "../core/format.js";
import { afterPaint, fill, h, icon } from "../core/h.js";
import { byName } from "../core/pattern.js";
import { saveRows } from "../core/taking.js";
import { hover } from "../chart/hover.js";
import { badge, runLink } from "./areas.js";

const STEP = 100; // rows at a time
const SOON = 25; // of them, those that are made before anything is painted, where somebody waits for an answer of the hand

/** @typedef {{name: string, number: boolean, of: (i: number) => any, show?: (value: any, i: number) => import("../core/h.js").Child}} Column */

/**
 * @param {object} how
 * @param {AbortSignal} how.signal
 * @param {() => void} how.onClear  nothing is to be chosen any more
 */
export function trialsTable({ signal, onClear }) {
  /** @type {any} */
  let trials = { number: [] };
  /** @type {Column[]} */
  let columns = [];
  let front = new Set();
  let [sorted, turned, most] = ["trial", false, STEP];
  /** @type {Set<number> | null} */
  let chosen = null;
  const told = h("span.faint", { role: "status" });
  const place = h("div");
  const search = h("input", { type: "search", placeholder: "Filter by words", "aria-label": "Filter trials", oninput: () => draw() });
  const element = h("div", null, h("div.part", null, search, told, h("span.spacer"), h("button", { type: "button", onclick: save }, icon("download"), "CSV")), place);
  hover.watch(({ run }) => {
    for (const row of place.querySelectorAll("tr[data-run]")) row.classList.toggle("hovered", row.dataset.run === run);
  }, signal);

  function found() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const text = (/** @type {number} */ i) => columns.map((column) => `${column.name}=${plain(column.of(i))}`).join(" ").toLowerCase();
    const rows = trials.number.map((/** @type {number} */ _, /** @type {number} */ i) => i).filter((/** @type {number} */ i) => (!chosen || chosen.has(trials.number[i])) && (!words.length || words.every((/** @type {string} */ word) => text(i).includes(word))));
    const column = columns.find((each) => each.name === sorted) ?? columns[0];
    const empty = (/** @type {any} */ value) => value === null || value === undefined || Number.isNaN(value);
    return column ? rows.sort((/** @type {number} */ i, /** @type {number} */ j) => {
      const [a, b] = [column.of(i), column.of(j)];
      if (empty(a) || empty(b)) return Number(empty(a)) - Number(empty(b)); // what is missing is last either way
      const order = typeof a === "number" && typeof b === "number" ? a - b : byName(plain(a), plain(b));
      return turned ? -order : order;
    }) : rows;
  }

  const rowOf = (/** @type {number} */ i) => h("tr", {
    data: { run: trials.run_id[i], trial: trials.number[i] }, class: trials.rank[i] === 1 || front.has(trials.number[i]) ? "best" : "",
    onpointerenter: () => hover.set({ run: trials.run_id[i] }), onpointerleave: () => hover.set({ run: "" }),
  }, columns.map((column, k) => {
    const value = column.of(i);
    const shown = column.show ? column.show(value, i) : column.number && typeof value === "number" ? short(value, 5) : plain(value);
    return k ? h("td", { class: column.number ? "number" : "", title: typeof value === "number" ? String(value) : "" }, shown) : h("th", { scope: "row" }, shown);
  }));

  /** @param {number} [soon]  how many rows at once; the others follow when these are seen */
  function draw(soon = most) {
    const rows = found();
    told.replaceChildren(rows.length === trials.number.length ? `${rows.length} trials` : `${rows.length} of ${trials.number.length} trials`);
    if (chosen) told.append(" · ", h("button.link", { type: "button", onclick: onClear }, "Show all"));
    const body = h("tbody", null, rows.slice(0, soon).map(rowOf));
    fill(place, h("div.tile.scroll.trials", null, h("table.plain", { "aria-label": "Trials" },
      h("thead", null, h("tr", null, columns.map((column) => h("th", { scope: "col", class: column.number ? "number" : "", "aria-sort": column.name !== sorted ? "none" : turned ? "descending" : "ascending" },
        h("button.link", { type: "button", onclick: () => { turned = column.name === sorted && !turned; sorted = column.name; draw(); } }, column.name, column.name === sorted && (turned ? " ↓" : " ↑")))))),
      body)),
    rows.length > most && h("p.part", null, h("button", { type: "button", onclick: () => { most += 5 * STEP; draw(); } }, `Show more (${rows.length - most})`)));
    if (soon < most) afterPaint(() => body.isConnected && body.append(...rows.slice(soon, most).map(rowOf)));
  }

  function save() {
    const lines = [columns.map((column) => column.name), ...found().map((/** @type {number} */ i) => columns.map((column) => column.of(i)))];
    saveRows("trials", lines);
  }

  return {
    element,
    /** @param {any} sweep @param {any} next  columns of all trials */
    set(sweep, next) {
      trials = next;
      front = new Set(sweep.front);
      const numbers = (/** @type {any[]} */ column) => column.every((value) => value === null || typeof numeric(value) === "number");
      const many = (/** @type {string} */ name) => trials[name]?.some((/** @type {any} */ value) => value !== null && value !== undefined);
      columns = [
        { name: "trial", number: true, of: (i) => trials.number[i], show: (value, i) => runLink(trials.run_id[i], String(value)) },
        { name: "state", number: false, of: (i) => trials.state[i], show: (value) => h("span.badge", { data: { status: value === "complete" ? "finished" : value } }, value) },
        { name: "rank", number: true, of: (i) => trials.rank[i] },
        ...Object.entries(trials.values ?? {}).map(([name, column]) => ({ name, number: true, of: (/** @type {number} */ i) => numeric(column[i]) })),
        ...Object.entries(trials.params ?? {}).map(([name, column]) => ({ name, number: numbers(column), of: (/** @type {number} */ i) => numeric(column[i]) })),
        { name: "last step", number: true, of: (i) => trials.last_step[i] },
        { name: "took", number: true, of: (i) => trials.duration_s[i], show: (value) => duration(value) },
        { name: "started", number: false, of: (i) => trials.started_at[i], show: (value) => moment(value) },
        ...(many("host") ? [{ name: "host", number: false, of: (/** @type {number} */ i) => trials.host[i] }] : []),
        ...(many("reason") ? [{ name: "reason", number: false, of: (/** @type {number} */ i) => trials.reason[i], show: (/** @type {any} */ value) => value && h("span.bad", { title: value }, value.slice(0, 80)) }] : []),
        ...(trials.is_feasible?.includes(false) ? [{ name: "feasible", number: false, of: (/** @type {number} */ i) => trials.is_feasible[i], show: (/** @type {any} */ value) => (value === false ? badge("no", "warn") : "") }] : []),
      ];
      draw();
    },
    /** @param {Set<number> | null} numbers */
    choose(numbers) {
      chosen = numbers;
      most = STEP;
      draw(SOON);
    },
  };
}
