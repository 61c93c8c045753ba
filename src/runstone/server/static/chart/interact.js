/** What hands do on a chart, told as changes of its view. It knows the layout, not the data. */

import { zoomed } from "./scale.js";

/**
 * @typedef {object} Reactions
 * @property {() => import("./layout.js").Layout | null} layout
 * @property {(x: [number, number] | null, y: [number, number] | null | undefined, how: {keep: boolean}) => void} view
 *   a new range (`null`: the whole; y `undefined`: as it was); `keep` says that Backspace leads back from it
 * @property {() => void} back
 * @property {(at: {x: number, y: number} | null) => void} hover  pixels inside the chart
 * @property {(box: [number, number, number, number] | null) => void} select
 * @property {() => void} click
 */

const CLICK_PX = 4;

/**
 * @param {HTMLElement} element
 * @param {Reactions} on
 */
export function interact(element, on) {
  /** @type {{x: number, y: number, mode: "zoom" | "box" | "pan", sx: any, sy: any, moved: boolean} | null} */
  let drag = null;

  const place = (/** @type {MouseEvent} */ event) => {
    const box = element.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };

  element.addEventListener("pointerdown", (event) => {
    const layout = on.layout();
    if (event.button !== 0 || !layout) return;
    if (event.pointerType === "touch") return; // fingers scroll the page; a tap shows values
    const { x, y } = place(event);
    drag = { x, y, mode: event.shiftKey ? "pan" : event.altKey ? "box" : "zoom", sx: layout.sx, sy: layout.sy, moved: false };
    element.setPointerCapture(event.pointerId);
    event.preventDefault();
    element.focus({ preventScroll: true });
  });

  element.addEventListener("pointermove", (event) => {
    const { x, y } = place(event);
    const layout = on.layout();
    if (!layout) return;
    if (drag && Math.hypot(x - drag.x, y - drag.y) > CLICK_PX) {
      if (!drag.moved && drag.mode === "pan") on.view([drag.sx.low, drag.sx.high], undefined, { keep: true });
      drag.moved = true;
    }
    if (!drag?.moved) on.hover({ x, y });
    else if (drag.mode === "pan") {
      const by = x - drag.x;
      on.view([drag.sx.from(drag.sx.to(drag.sx.low) - by), drag.sx.from(drag.sx.to(drag.sx.high) - by)], undefined, { keep: false });
    } else on.select(boxOf(layout, drag, x, y));
  });

  element.addEventListener("pointerup", (event) => {
    const { x, y } = place(event);
    const layout = on.layout();
    const was = drag;
    drag = null;
    on.select(null);
    if (!was || !layout) return;
    if (!was.moved) return on.click();
    if (was.mode === "pan") return;
    const [left, top, width, height] = boxOf(layout, was, x, y);
    if (width < CLICK_PX) return;
    on.view([was.sx.from(left), was.sx.from(left + width)], was.mode === "box" ? [was.sy.from(top + height), was.sy.from(top)] : undefined, { keep: true });
  });

  element.addEventListener("pointercancel", () => {
    drag = null;
    on.select(null);
  });
  element.addEventListener("pointerleave", () => !drag && on.hover(null));
  element.addEventListener("dblclick", () => on.view(null, null, { keep: true }));

  element.addEventListener("wheel", (event) => {
    const layout = on.layout();
    if (!layout || !(event.ctrlKey || event.metaKey)) return; // a plain wheel scrolls the page
    event.preventDefault();
    const { sx } = layout;
    const centre = sx.from(place(event).x);
    on.view(zoomed(sx.kind, [sx.low, sx.high], centre, Math.exp(Math.max(-100, Math.min(100, event.deltaY)) * 0.003)), undefined, { keep: false });
  }, { passive: false });

  let cursor = 0;
  element.addEventListener("keydown", (event) => {
    const layout = on.layout();
    if (!layout) return;
    const { left, width, top, height } = layout;
    if (event.key === "Backspace") on.back();
    else if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      if (!cursor) cursor = left + width / 2;
      cursor = Math.max(left, Math.min(left + width, cursor + (event.key === "ArrowLeft" ? -1 : 1) * (event.shiftKey ? 20 : 1)));
      on.hover({ x: cursor, y: top + height / 2 });
    } else if (event.key === "+" || event.key === "-") {
      const { sx } = layout;
      on.view(zoomed(sx.kind, [sx.low, sx.high], sx.from(cursor || left + width / 2), event.key === "+" ? 0.7 : 1 / 0.7), undefined, { keep: true });
    } else if (event.key === "Home") on.view(null, null, { keep: true });
    else if (event.key === "Enter") on.click();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
}

/**
 * @param {import("./layout.js").Layout} layout
 * @param {{x: number, y: number, mode: string}} drag
 * @param {number} x
 * @param {number} y
 * @returns {[number, number, number, number]}  left, top, width, height
 */
function boxOf({ left, top, width, height }, drag, x, y) {
  const clampX = (/** @type {number} */ v) => Math.max(left, Math.min(left + width, v));
  const clampY = (/** @type {number} */ v) => Math.max(top, Math.min(top + height, v));
  const [x0, x1] = [clampX(drag.x), clampX(x)].sort((a, b) => a - b);
  if (drag.mode !== "box") return [x0, top, x1 - x0, height];
  const [y0, y1] = [clampY(drag.y), clampY(y)].sort((a, b) => a - b);
  return [x0, y0, x1 - x0, y1 - y0];
}
