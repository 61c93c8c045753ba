/**
 * The run table: a grid of divs of which only the rows in view exist. It shows a list of items and tells what is done to it.
 */

import { fill, h, icon } from "../core/h.js";
import { menu } from "../core/notice.js";
import { cellText, cellTitle, direction } from "./columns.js";
import { short } from "../core/format.js";

export const ROW_PX = 28;
const BESIDE = 6; // rows made above and below the window
const NAME_MIN = 90;

/** @typedef {import("./columns.js").Column} Column */
/** @typedef {import("./rows.js").Row} Row */
/**
 * @typedef {{kind: "run", row: Row, isPinned?: boolean, isInner?: boolean} | {kind: "group", key: string, label: string, runs: number, isOpen: boolean, get: (field: string) => any}} Item
 */

/**
 * @typedef {object} Host
 * @property {() => number} count
 * @property {(index: number) => Item | undefined} item
 * @property {() => Column[]} columns
 * @property {() => number} frozen   how many columns stay beside the name
 * @property {() => string[]} sort
 * @property {() => number} nameWidth
 * @property {(id: string) => {colour: string, isShown: boolean, isSelected: boolean, isBaseline: boolean, isFocus: boolean}} look
 * @property {() => Row | undefined} baseline
 * @property {(id: string) => string} href
 * @property {(columns: Column[]) => void} onColumns
 * @property {(width: number) => void} onNameWidth
 * @property {(field: string, add: boolean) => void} onSort
 * @property {(column: Column, index: number) => import("../core/notice.js").Item[]} headMenu
 * @property {(row: Row) => import("../core/notice.js").Item[]} rowMenu
 * @property {(id: string) => void} onShow
 * @property {(id: string, index: number, extend: boolean) => void} onSelect
 * @property {(key: string) => void} onGroup
 * @property {(id: string) => void} onHover
 * @property {(row: Row) => void} onOpen
 */

/** @param {Host} host @param {AbortSignal} signal */
export function runTable(host, signal) {
  /** @type {any[]} */
  let pool = [];
  let cursor = 0;
  let frame = 0;
  /** @type {Column[]} */
  let columns = [];

  const head = h("div.table-head", { role: "row" });
  const body = h("div.table-body", { role: "rowgroup" });
  const element = h("div.table", { role: "grid", tabIndex: 0, "aria-label": "Runs", "aria-multiselectable": "true" }, head, body);
  element.addEventListener("scroll", () => { frame ||= requestAnimationFrame(() => { frame = 0; render(); }); }, { passive: true, signal });
  const observer = new ResizeObserver(() => render());
  observer.observe(element);
  signal.addEventListener("abort", () => observer.disconnect());
  element.addEventListener("keydown", onKey, { signal });
  body.addEventListener("click", onClick, { signal });
  body.addEventListener("contextmenu", onMenu, { signal });
  body.addEventListener("pointerover", (/** @type {PointerEvent} */ event) => host.onHover(rowOf(event.target)?.id ?? ""), { signal });
  body.addEventListener("pointerleave", () => host.onHover(""), { signal });

  /** @param {EventTarget | null} target */
  function entryOf(target) {
    const at = target instanceof Element ? target.closest(".row") : null;
    return pool.find((each) => each.element === at);
  }

  /** @param {EventTarget | null} target @returns {Row | null} */
  function rowOf(target) {
    const item = entryOf(target)?.item;
    return item?.kind === "run" ? item.row : null;
  }

  /** @param {MouseEvent} event */
  function onClick(event) {
    const entry = entryOf(event.target);
    if (!entry?.item || !(event.target instanceof Element)) return;
    cursor = entry.index;
    if (entry.item.kind === "group") return host.onGroup(entry.item.key);
    const { row } = entry.item;
    if (event.target.closest(".row-eye")) host.onShow(row.id);
    else if (event.target.closest(".row-check")) {
      event.preventDefault();
      host.onSelect(row.id, entry.index, event.shiftKey);
    } else if (event.target.closest(".row-more")) menu(event.target, host.rowMenu(row));
    else if (event.target.closest("a") && !event.ctrlKey && !event.metaKey && !event.shiftKey) {
      event.preventDefault();
      host.onOpen(row);
    } else render();
  }

  /** @param {MouseEvent} event */
  function onMenu(event) {
    const row = rowOf(event.target);
    if (!row || !(event.target instanceof Element)) return;
    event.preventDefault();
    menu(event.target, host.rowMenu(row));
  }

  /** @param {KeyboardEvent} event */
  function onKey(event) {
    if (event.target !== element) return;
    const page = Math.max(1, Math.floor(element.clientHeight / ROW_PX) - 2);
    const steps = /** @type {Record<string, number>} */ ({ ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity });
    const item = host.item(cursor);
    if (event.key in steps) moveCursor(steps[event.key]);
    else if (event.key === "Enter" && item) item.kind === "group" ? host.onGroup(item.key) : host.onOpen(item.row);
    else if (event.key === "ContextMenu" && item?.kind === "run") menu(pool.find((each) => each.index === cursor)?.element ?? element, host.rowMenu(item.row));
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** @param {number} by */
  function moveCursor(by) {
    const count = host.count();
    cursor = Math.max(0, Math.min(count - 1, cursor + by));
    const top = cursor * ROW_PX;
    if (top < element.scrollTop) element.scrollTop = top;
    else if (top + 2 * ROW_PX > element.scrollTop + element.clientHeight) element.scrollTop = top + 2 * ROW_PX - element.clientHeight;
    element.focus({ preventScroll: true });
    render();
    const item = host.item(cursor);
    host.onHover(item?.kind === "run" ? item.row.id : "");
  }

  function renderHead() {
    columns = host.columns();
    const sort = host.sort();
    const width = host.nameWidth();
    let left = width;
    const total = width + columns.reduce((sum, column) => sum + column.width, 0);
    element.style.setProperty("--table-width", `${total}px`);
    element.style.setProperty("--name-width", `${width}px`);
    element.setAttribute("aria-colcount", String(columns.length + 1));
    fill(head,
      h("div.cell.name", { role: "columnheader", "aria-sort": sortWord(sort, "name"), style: { width: `${width}px`, left: "0" } },
        headButton("Run", "name", sort), edge((by) => host.onNameWidth(Math.max(NAME_MIN, width + by)))),
      columns.map((column, index) => {
        const isFrozen = index < host.frozen();
        const cell = h("div.cell", {
          role: "columnheader", "aria-sort": sortWord(sort, column.field), draggable: true, title: column.field,
          class: `${isFrozen ? "frozen" : ""} ${column.kind === "number" || column.kind === "duration" ? "right" : ""}`,
          style: { width: `${column.width}px`, ...(isFrozen && { left: `${left}px` }) },
          ondragstart: (/** @type {DragEvent} */ event) => event.dataTransfer?.setData("text/x-column", String(index)),
          ondragover: (/** @type {DragEvent} */ event) => event.dataTransfer?.types.includes("text/x-column") && event.preventDefault(),
          ondrop: (/** @type {DragEvent} */ event) => {
            event.preventDefault();
            const from = Number(event.dataTransfer?.getData("text/x-column"));
            const next = [...columns];
            next.splice(index, 0, ...next.splice(from, 1));
            host.onColumns(next);
          },
          oncontextmenu: (/** @type {MouseEvent} */ event) => { event.preventDefault(); menu(cell, host.headMenu(column, index)); },
        }, headButton(column.title, column.field, sort),
        h("button.head-more", { type: "button", "aria-label": `Column ${column.title}`, onclick: () => menu(cell, host.headMenu(column, index)) }, icon("down")),
        edge((by) => host.onColumns(columns.map((each, k) => (k === index ? { ...each, width: Math.max(48, each.width + by) } : each)))));
        left += isFrozen ? column.width : 0;
        return cell;
      }));
  }

  /** @param {string} title @param {string} field @param {string[]} sort */
  function headButton(title, field, sort) {
    const place = sort.findIndex((each) => each === field || each === `-${field}`);
    return h("button.head-name", { type: "button", onclick: (/** @type {MouseEvent} */ event) => host.onSort(field, event.shiftKey) },
      h("span", null, title), place >= 0 && h("span.sort-mark", null, sort[place].startsWith("-") ? "↓" : "↑", sort.length > 1 && place + 1));
  }

  /** @param {string[]} sort @param {string} field */
  const sortWord = (sort, field) => (sort.includes(field) ? "ascending" : sort.includes(`-${field}`) ? "descending" : "none");

  /** @param {(by: number) => void} apply */
  function edge(apply) {
    return h("span.edge", {
      onpointerdown: (/** @type {PointerEvent} */ event) => {
        const handle = /** @type {HTMLElement} */ (event.currentTarget);
        const cell = /** @type {HTMLElement} */ (handle.parentElement);
        const start = event.clientX;
        event.preventDefault();
        event.stopPropagation();
        handle.setPointerCapture(event.pointerId);
        const width = cell.offsetWidth;
        handle.onpointermove = (move) => { cell.style.width = `${Math.max(48, width + move.clientX - start)}px`; };
        handle.onpointerup = (up) => { handle.onpointermove = handle.onpointerup = null; apply(up.clientX - start); };
      },
      onclick: (/** @type {Event} */ event) => event.stopPropagation(),
    });
  }

  /** A row of the pool with its parts, which are written again and again. */
  function makeRow() {
    const check = h("input.row-check", { type: "checkbox", tabIndex: -1, "aria-label": "Select" });
    const eye = h("button.row-eye", { type: "button", tabIndex: -1 });
    const name = h("a.row-name", { tabIndex: -1 });
    const more = h("button.row-more", { type: "button", tabIndex: -1, "aria-label": "More for this run" }, icon("more"));
    const first = h("div.cell.name", { role: "rowheader" }, check, eye, name, more);
    const row = h("div.row", { role: "row" }, first);
    body.append(row);
    return { element: row, check, eye, name, more, cells: /** @type {any[]} */ ([]), item: undefined, index: -1, shape: "" };
  }

  function render() {
    const count = host.count();
    const visible = Math.ceil(element.clientHeight / ROW_PX);
    const from = Math.max(0, Math.min(count - visible, Math.floor(element.scrollTop / ROW_PX)) - BESIDE);
    const to = Math.min(count, from + visible + 2 * BESIDE);
    body.style.height = `${count * ROW_PX}px`;
    element.setAttribute("aria-rowcount", String(count + 1));
    while (pool.length < to - from) pool.push(makeRow());
    const now = Date.now() / 1000;
    const shape = `${columns.map((column) => `${column.field}~${column.width}`)}|${host.frozen()}|${host.nameWidth()}`;
    const base = host.baseline();
    pool.forEach((entry, k) => {
      const index = from + ((k - (from % pool.length) + pool.length) % pool.length); // a row keeps its element while it is in view
      const inView = index < to;
      entry.element.hidden = !inView;
      entry.index = inView ? index : -1;
      if (inView) write(entry, index, shape, now, base);
    });
    element.setAttribute("aria-activedescendant", count ? `row-${cursor}` : "");
  }

  /** @param {any} entry @param {string} shape */
  function reshape(entry, shape) {
    entry.shape = shape;
    entry.cells.forEach((/** @type {any} */ cell) => cell.element.remove());
    let left = host.nameWidth();
    entry.cells = columns.map((column, index) => {
      const text = document.createTextNode("");
      const delta = h("span.delta");
      const isFrozen = index < host.frozen();
      const element = h("div.cell", { role: "gridcell", class: `${isFrozen ? "frozen" : ""} ${column.kind === "number" || column.kind === "duration" ? "right" : ""}`, style: { width: `${column.width}px`, ...(isFrozen && { left: `${left}px` }) } }, text);
      left += isFrozen ? column.width : 0;
      entry.element.append(element);
      return { element, text, delta, shown: "" };
    });
  }

  /** @param {any} entry @param {number} index @param {string} shape @param {number} now @param {Row | undefined} base */
  function write(entry, index, shape, now, base) {
    if (entry.shape !== shape) reshape(entry, shape);
    const item = host.item(index);
    entry.item = item;
    const { element: row } = entry;
    row.style.transform = `translateY(${index * ROW_PX}px)`;
    row.id = `row-${index}`;
    row.setAttribute("aria-rowindex", String(index + 2));
    if (!item) {
      row.className = "row waiting";
      entry.name.textContent = "";
      for (const cell of entry.cells) put(cell, "", "");
      return;
    }
    const isGroup = item.kind === "group";
    const id = isGroup ? item.key : item.row.id;
    const look = host.look(id);
    row.className = `row${index === cursor ? " cursor" : ""}${isGroup ? " group" : ""}${look.isSelected ? " selected" : ""}${look.isBaseline ? " baseline" : ""}${look.isFocus ? " focus" : ""}${!isGroup && item.isPinned ? " pinned" : ""}${!isGroup && item.isInner ? " inner" : ""}`;
    row.setAttribute("aria-selected", String(look.isSelected));
    entry.check.hidden = entry.more.hidden = isGroup;
    entry.check.checked = look.isSelected;
    entry.eye.style.setProperty("--colour", look.colour);
    entry.eye.setAttribute("aria-pressed", String(look.isShown));
    const label = isGroup ? `${item.isOpen ? "▾" : "▸"} ${item.label}` : item.row.get("name") ?? id;
    if (entry.name.textContent !== label) entry.name.textContent = label;
    entry.name.title = isGroup ? `${item.runs} runs` : `${label}\n${id}`;
    const eyeLabel = `${look.isShown ? "Hide" : "Show"} ${label} in charts`;
    if (entry.eye.title !== eyeLabel) {
      entry.eye.title = eyeLabel;
      entry.eye.setAttribute("aria-label", eyeLabel);
      entry.check.setAttribute("aria-label", `Select ${label}`);
    }
    if (isGroup) entry.name.removeAttribute("href");
    else entry.name.href = host.href(id);
    columns.forEach((column, k) => {
      const cell = entry.cells[k];
      if (isGroup) return put(cell, groupText(item.get(column.field), column), "");
      const value = item.row.get(column.field);
      put(cell, cellText(value, column, now), cellTitle(value, column));
      if (column.kind === "status") cell.element.dataset.status = value;
      compareTo(cell, base && base.id !== id ? base.get(column.field) : undefined, value, column);
    });
  }

  /** @param {any} cell @param {string} text @param {string} title */
  function put(cell, text, title) {
    if (cell.shown !== text) cell.text.data = cell.shown = text;
    if (cell.element.title !== title) cell.element.title = title;
    if (cell.element.dataset.status) delete cell.element.dataset.status;
    if (cell.delta.parentNode) cell.delta.remove();
  }

  /** How far from the baseline, and whether that is good. @param {any} cell @param {any} base @param {any} value @param {Column} column */
  function compareTo(cell, base, value, column) {
    if (!column.field.startsWith("metrics.") || typeof base !== "number" || typeof value !== "number") return;
    const off = value - base;
    const good = Math.sign(off) * direction(column.field);
    cell.delta.textContent = `${off > 0 ? "+" : ""}${short(off, 3)}`;
    cell.delta.className = `delta ${good > 0 ? "good" : good < 0 ? "bad" : ""}`;
    cell.element.append(cell.delta);
  }

  /** @param {any} value @param {Column} column */
  const groupText = (value, column) => (value && typeof value === "object" && "mean" in value
    ? column.kind === "number" ? `${short(value.mean, 4)}${value.std ? ` ± ${short(value.std, 2)}` : ""}` : cellText(value.mean, column, 0) : "");

  return {
    element,
    /** Rows have changed. */
    render,
    /** Columns or the sort have. */
    renderAll() {
      renderHead();
      render();
    },
    moveCursor,
    toTop() {
      element.scrollTop = 0;
      cursor = 0;
    },
    /** @returns {Item | undefined} where the cursor is */
    get current() {
      return host.item(cursor);
    },
    get cursor() {
      return cursor;
    },
  };
}
