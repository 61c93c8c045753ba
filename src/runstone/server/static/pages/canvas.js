/** A canvas as large as its element, painted again when that or the theme changes. */

import { h } from "../core/h.js";
import { theme } from "../core/theme.js";

/**
 * @param {string} tag  of the element around it
 * @param {string} label  accessible name
 * @param {(g: CanvasRenderingContext2D, size: {width: number, height: number}, ink: (name: string) => string) => void} paint
 * @param {AbortSignal} signal
 */
export function sheet(tag, label, paint, signal) {
  const canvas = h("canvas");
  const element = h(tag, { role: "img", "aria-label": label, tabIndex: 0, data: { state: "waiting" } }, canvas);
  let frame = 0;
  const later = () => { frame ||= requestAnimationFrame(draw); };
  const observer = new ResizeObserver(later);
  observer.observe(element);
  theme.watch(later, signal);
  signal.addEventListener("abort", () => { observer.disconnect(); cancelAnimationFrame(frame); });

  function draw() {
    frame = 0;
    const { clientWidth: width, clientHeight: height } = element;
    if (!width || !height) return;
    const ratio = devicePixelRatio || 1;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const g = canvas.getContext("2d");
    g.setTransform(ratio, 0, 0, ratio, 0, 0);
    const style = getComputedStyle(element);
    paint(g, { width, height }, (name) => style.getPropertyValue(name).trim());
    element.dataset.state = "ready";
  }
  return { element, later, canvas };
}
