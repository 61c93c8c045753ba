/** Parallel coordinates: a line for each run over its params and metrics; a stretch of an axis chosen by hand filters them. */

import { h } from "../core/h.js";
import { prompt } from "../core/notice.js";
import { titleOf } from "../table/columns.js";
import { hover } from "../chart/hover.js";
import { axisOf } from "./axes.js";
import { sheet } from "./canvas.js";
import { parallelPython } from "./python.js";
import { canvasPicture, enlarge, takeTools } from "./take.js";

const TOP = 34;
const BOTTOM = 14;
const SIDE = 64;
const GRIP = 14; // pixels beside an axis that belong to it
const NEAR_PX = 8;
const END = 0.04; // of the height of an axis
const FONT = "11px system-ui, sans-serif";

/** @typedef {{id: string, label: string, colour: string, values: Record<string, any>}} Item  a run or trial with its values */

/**
 * @param {object} how
 * @param {AbortSignal} how.signal
 * @param {(ids: string[] | null) => void} how.onBrush  which items are inside all stretches; `null`: no stretch is chosen
 * @param {(item: Item) => void} how.onOpen
 * @param {() => string} [how.python]  code that makes it again; default: of runs
 */
export function parallel({ signal, onBrush, onOpen, python }) {
  /** @type {Item[]} */
  let items = [];
  /** @type {string[]} */
  let fields = [];
  /** @type {Map<string, [number, number]>} stretches as shares of the height */
  const brushes = new Map();
  /** @type {Set<string>} axes of the other kind: log instead of linear */
  const flipped = new Set();
  /** @type {Set<string>} axes upside down */
  const turned = new Set();
  /** @type {import("./axes.js").Axis[]} */
  let axes = [];
  /** @type {{field: string, from: number} | null} */
  let drag = null;
  let size = { width: 0, height: 0 };
  const { element, later, canvas } = sheet("div.parallel", "Parallel coordinates", paint, signal);
  const tip = h("p.faint", { "aria-live": "polite" });
  hover.watch(later, signal);

  const left = (/** @type {number} */ k) => (axes.length < 2 ? size.width / 2 : SIDE + (k * (size.width - 2 * SIDE)) / (axes.length - 1));
  const ends = (/** @type {string} */ field) => (turned.has(field) ? [TOP, size.height - BOTTOM] : [size.height - BOTTOM, TOP]);
  const share = (/** @type {number} */ y) => (y - TOP) / (size.height - BOTTOM - TOP);
  const placeOf = (/** @type {Item} */ item, /** @type {number} */ k) => {
    const [from, to] = ends(axes[k].field);
    return axes[k].place(item.values[axes[k].field], from, to);
  };
  const isInside = (/** @type {Item} */ item) => [...brushes].every(([field, [a, b]]) => {
    const k = fields.indexOf(field);
    const y = k < 0 ? null : placeOf(item, k);
    return k < 0 || (y !== null && share(y) >= a - 1e-6 && share(y) <= b + 1e-6);
  });

  /** @param {CanvasRenderingContext2D} g @param {{width: number, height: number}} now @param {(name: string) => string} ink */
  function paint(g, now, ink) {
    size = now;
    g.font = FONT;
    g.lineWidth = 1;
    const focus = hover.now.run;
    const draw = (/** @type {Item} */ item) => {
      g.strokeStyle = item.colour;
      g.beginPath();
      let isDown = false;
      axes.forEach((_, k) => {
        const y = placeOf(item, k);
        if (y === null) { isDown = false; return; }
        isDown ? g.lineTo(left(k), y) : g.moveTo(left(k), y);
        isDown = true;
      });
      g.stroke();
    };
    for (const item of items) {
      g.globalAlpha = !isInside(item) ? 0.07 : focus && focus !== item.id ? 0.3 : 0.85;
      draw(item);
    }
    g.globalAlpha = 1;
    const front = items.find((item) => item.id === focus);
    if (front) { g.lineWidth = 2.5; draw(front); }
    g.lineWidth = 1;
    const room = axes.length > 1 ? (size.width - 2 * SIDE) / (axes.length - 1) - 6 : size.width;
    axes.forEach((axis, k) => {
      const x = Math.round(left(k)) + 0.5;
      g.strokeStyle = ink("--axis");
      g.beginPath();
      g.moveTo(x, TOP);
      g.lineTo(x, size.height - BOTTOM);
      g.stroke();
      g.fillStyle = ink("--text");
      g.textAlign = k === 0 && axes.length > 1 ? "left" : k === axes.length - 1 && axes.length > 1 ? "right" : "center";
      g.textBaseline = "alphabetic";
      const title = titleOf(axis.field) + (axis.kind === "log" ? " (log)" : "");
      g.fillText(fitting(g, title, room), k === 0 ? 8 : k === axes.length - 1 && axes.length > 1 ? size.width - 8 : x, 18);
      g.fillStyle = ink("--faint");
      g.textAlign = "left";
      g.textBaseline = "middle";
      const [from, to] = ends(axis.field);
      for (const { at, label } of axis.marks(from, to)) {
        g.fillStyle = ink("--surface");
        g.globalAlpha = 0.75;
        g.fillRect(x + 3, at - 7, g.measureText(label).width + 4, 14);
        g.globalAlpha = 1;
        g.fillStyle = ink("--faint");
        g.fillText(label, x + 5, at);
      }
      const brush = brushes.get(axis.field);
      if (brush) {
        const [a, b] = brush.map((part) => TOP + part * (size.height - BOTTOM - TOP));
        g.fillStyle = g.strokeStyle = ink("--accent");
        g.globalAlpha = 0.2;
        g.fillRect(x - 6, a, 12, b - a);
        g.globalAlpha = 1;
        g.strokeRect(x - 6, a, 12, b - a);
      }
    });
  }

  const at = (/** @type {MouseEvent} */ event) => {
    const box = element.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };
  const axisAt = (/** @type {number} */ x) => axes.findIndex((_, k) => Math.abs(left(k) - x) <= GRIP);

  /** @param {number} x @param {number} y */
  function nearest(x, y) {
    const k = Math.min(axes.length - 2, Math.max(0, axes.findIndex((_, i) => left(i + 1) >= x)));
    if (axes.length < 2 || k < 0) return null;
    const part = (x - left(k)) / (left(k + 1) - left(k));
    let best = null;
    let distance = NEAR_PX;
    for (const item of items) {
      const [a, b] = [placeOf(item, k), placeOf(item, k + 1)];
      if (a === null || b === null || !isInside(item)) continue;
      const off = Math.abs(a + (b - a) * part - y);
      if (off < distance) [best, distance] = [item, off];
    }
    return best;
  }

  element.addEventListener("pointerdown", (/** @type {PointerEvent} */ event) => {
    const { x, y } = at(event);
    const k = axisAt(x);
    if (k < 0 || y < TOP - 8) return;
    element.setPointerCapture(event.pointerId);
    drag = { field: axes[k].field, from: share(y) };
    brushes.delete(drag.field);
    later();
  });
  element.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => {
    const { x, y } = at(event);
    if (drag) {
      const [a, b] = [drag.from, share(y)].sort((p, q) => p - q);
      if (b - a > 0.01) brushes.set(drag.field, [a < END ? -0.02 : a, b > 1 - END ? 1.02 : b]); // near an end means up to it
      return later();
    }
    element.style.cursor = axisAt(x) >= 0 ? "ns-resize" : "default";
    const item = nearest(x, y);
    hover.set({ run: item?.id ?? "" });
    tip.textContent = item ? `${item.label}: ${fields.map((field) => `${titleOf(field)} ${item.values[field] ?? "–"}`).join(", ")}` : hint();
  });
  element.addEventListener("pointerup", () => {
    if (!drag) return;
    drag = null;
    tell();
  });
  element.addEventListener("pointerleave", () => hover.set({ run: "" }));
  element.addEventListener("click", (/** @type {MouseEvent} */ event) => {
    const { x, y } = at(event);
    if (y < TOP - 8) {
      const k = axes.findIndex((_, i) => Math.abs(left(i) - x) < 60);
      if (k >= 0) toggle(event.shiftKey ? turned : flipped, axes[k].field);
    } else if (axisAt(x) < 0) {
      const item = nearest(x, y);
      if (item) onOpen(item);
    }
  });
  element.addEventListener("dblclick", () => {
    brushes.clear();
    tell();
  });
  element.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    if (event.key !== "Escape") return;
    brushes.clear();
    tell();
  });

  /** @param {Set<string>} set @param {string} field */
  function toggle(set, field) {
    if (!set.delete(field)) set.add(field);
    arrange();
  }

  function arrange() {
    axes = fields.map((each) => axisOf(each, items.map((item) => item.values[each]), flipped.has(each)));
    element.dataset.axes = JSON.stringify(axes.map(({ field, kind }) => ({ field, kind, turned: turned.has(field) }))); // for tests, and whoever reads the page by a program
    later();
  }

  /** Choose a stretch by its ends, as dragging does. @param {string} field @param {string} text  two values, apart by a space; nothing: all */
  function stretch(field, text) {
    const k = fields.indexOf(field);
    const [from, to] = ends(field);
    const at = text.split(/\s+/).filter(Boolean).map((word) => axes[k].place(axes[k].kind === "words" ? word : Number(word), from, to)).filter((y) => y !== null && Number.isFinite(y)).map((y) => share(/** @type {number} */ (y)));
    if (at.length === 2) brushes.set(field, [Math.min(...at), Math.max(...at)]);
    else brushes.delete(field);
    tell();
  }

  /**
   * What can be done with an axis, for a menu: all that the pointer does on it.
   * @param {string} field
   * @returns {import("../core/notice.js").Item[]}
   */
  function axisItems(field) {
    const kind = axes[fields.indexOf(field)]?.kind;
    return [
      { label: "Logarithmic", checked: kind === "log", disabled: kind === "words", run: () => toggle(flipped, field) },
      { label: "Upside down", checked: turned.has(field), run: () => toggle(turned, field) },
      { label: "Only from … to …", icon: "filter", checked: brushes.has(field), run: () => void prompt(`Stretch of ${titleOf(field)}`, { label: "Two values, apart by a space; nothing: all", verb: "Filter" }).then((text) => text !== null && stretch(field, text)) },
    ];
  }

  function tell() {
    later();
    const inside = items.filter(isInside).map((item) => item.id);
    onBrush(brushes.size ? inside : null);
    tip.textContent = hint();
  }

  const hint = () => (brushes.size ? `${items.filter(isInside).length} of ${items.length} inside; double click to let go` : "Drag along an axis to filter. Click its name for a logarithmic scale, Shift+click to turn it.");
  tip.textContent = hint();

  const whole = h("div", null, element, tip);
  const tools = takeTools({
    title: "Parallel coordinates", large: () => enlarge("Parallel coordinates", element), picture: () => canvasPicture(canvas, "Parallel coordinates"),
    numbers: () => ({ heads: ["name", ...fields], rows: items.filter(isInside).map((item) => [item.label, ...fields.map((field) => item.values[field])]) }),
    python: python ?? (() => parallelPython(items.filter(isInside).map((item) => item.id), axes.map(({ field, kind }) => ({ field, isLog: kind === "log" })))),
  });

  return {
    element: whole,
    tools,
    axisItems,
    /** Let all stretches go. */
    clear() {
      brushes.clear();
      tell();
    },
    /** @param {Item[]} next @param {string[]} nextFields */
    set(next, nextFields) {
      items = next;
      fields = nextFields;
      for (const field of [...brushes.keys()]) if (!fields.includes(field)) brushes.delete(field);
      arrange();
      element.setAttribute("aria-label", `Parallel coordinates of ${items.length} runs over ${fields.map(titleOf).join(", ")}`);
    },
  };
}

/** As much of a text as there is room for. @param {CanvasRenderingContext2D} g @param {string} text @param {number} room  pixels */
function fitting(g, text, room) {
  let cut = text;
  while (cut.length > 2 && g.measureText(cut).width > room) cut = `${cut.slice(0, -2)}…`;
  return cut;
}
