/** Two values of many runs against each other. */

import { h } from "../core/h.js";
import { hover } from "../chart/hover.js";
import { titleOf } from "../table/columns.js";
import { axisOf } from "./axes.js";
import { sheet } from "./canvas.js";
import { scatterPython } from "./python.js";
import { canvasPicture, enlarge, takeTools } from "./take.js";

const LEFT = 64;
const RIGHT = 14;
const TOP = 12;
const BOTTOM = 40;
const NEAR_PX = 12;

/**
 * @param {object} how
 * @param {AbortSignal} how.signal
 * @param {(item: import("./parallel.js").Item) => void} how.onOpen
 */
export function scatter({ signal, onOpen }) {
  /** @type {import("./parallel.js").Item[]} */
  let items = [];
  let fields = ["", ""];
  /** @type {{item: import("./parallel.js").Item, x: number, y: number}[]} */
  let places = [];
  const { element, later, canvas } = sheet("div.scatter", "Scatter plot", paint, signal);
  const tip = h("p.faint", { "aria-live": "polite" });
  hover.watch(later, signal);

  /** @param {CanvasRenderingContext2D} g @param {{width: number, height: number}} size @param {(name: string) => string} ink */
  function paint(g, { width, height }, ink) {
    const [across, up] = fields.map((field) => axisOf(field, items.map((item) => item.values[field])));
    const right = width - RIGHT;
    const floor = height - BOTTOM;
    g.font = "11px system-ui, sans-serif";
    g.strokeStyle = ink("--grid");
    g.fillStyle = ink("--faint");
    g.textAlign = "center";
    g.textBaseline = "top";
    for (const { at, label } of across.marks(LEFT, right)) {
      line(g, at, TOP, at, floor);
      g.fillText(label, at, floor + 6);
    }
    g.textAlign = "right";
    g.textBaseline = "middle";
    for (const { at, label } of up.marks(floor, TOP)) {
      line(g, LEFT, at, right, at);
      g.fillText(label, LEFT - 6, at);
    }
    g.fillStyle = ink("--text");
    g.textAlign = "right";
    g.fillText(titleOf(fields[0]), right, floor + 28);
    g.textAlign = "left";
    g.fillText(titleOf(fields[1]), LEFT + 6, TOP + 8);
    places = items.flatMap((item) => {
      const x = across.place(item.values[fields[0]], LEFT, right);
      const y = up.place(item.values[fields[1]], floor, TOP);
      return x === null || y === null ? [] : [{ item, x, y }];
    });
    for (const { item, x, y } of places) {
      const isFocus = hover.now.run === item.id;
      g.globalAlpha = hover.now.run && !isFocus ? 0.4 : 0.9;
      g.fillStyle = item.colour;
      g.beginPath();
      g.arc(x, y, isFocus ? 7 : 4.5, 0, 7);
      g.fill();
    }
    g.globalAlpha = 1;
  }

  /** @param {CanvasRenderingContext2D} g @param {number} x0 @param {number} y0 @param {number} x1 @param {number} y1 */
  function line(g, x0, y0, x1, y1) {
    g.beginPath();
    g.moveTo(Math.round(x0) + 0.5, Math.round(y0) + 0.5);
    g.lineTo(Math.round(x1) + 0.5, Math.round(y1) + 0.5);
    g.stroke();
  }

  /** @param {MouseEvent} event */
  function under(event) {
    const box = element.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    return places.reduce((/** @type {any} */ best, place) => {
      const distance = Math.hypot(place.x - x, place.y - y);
      return distance < best.distance ? { distance, item: place.item } : best;
    }, { distance: NEAR_PX, item: null }).item;
  }

  element.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => {
    const item = under(event);
    hover.set({ run: item?.id ?? "" });
    element.style.cursor = item ? "pointer" : "default";
    tip.textContent = item ? `${item.label}: ${fields.map((field) => `${titleOf(field)} ${item.values[field]}`).join(", ")}` : "";
  });
  element.addEventListener("pointerleave", () => hover.set({ run: "" }));
  element.addEventListener("click", (/** @type {MouseEvent} */ event) => {
    const item = under(event);
    if (item) onOpen(item);
  });

  return {
    element: h("div", null, element, tip),
    tools: takeTools({
      title: "Scatter plot", large: () => enlarge("Scatter plot", element), picture: () => canvasPicture(canvas, "Scatter plot"),
      numbers: () => ({ heads: ["name", ...fields], rows: places.map(({ item }) => [item.label, ...fields.map((field) => item.values[field])]) }),
      python: () => scatterPython(places.map(({ item }) => item.id), fields[0], fields[1]),
    }),
    /** @param {import("./parallel.js").Item[]} next @param {string} x @param {string} y */
    set(next, x, y) {
      items = next;
      fields = [x, y];
      element.setAttribute("aria-label", `Scatter plot of ${titleOf(y)} over ${titleOf(x)} of ${items.length} runs`);
      later();
    },
  };
}
