/**
 * LineChart: a canvas of lines, and a second one over it for the crosshair, made when first needed.
 * It is given lines and a view; it does not know where data come from.
 */

import { h } from "../core/h.js";
import { drawAxes, drawLine, drawMarks, drawOver, inside } from "./draw.js";
import { hover } from "./hover.js";
import { interact } from "./interact.js";
import { arrange } from "./layout.js";
import { nearest } from "./series.js";
import { hideTooltip, showTooltip } from "./tooltip.js";

/** @typedef {import("./series.js").Line} Line */
/** @typedef {import("./layout.js").View} View */

const NEAR_PX = 14; // a line this near is the one in focus

/**
 * @param {object} how
 * @param {string} how.name  accessible name
 * @param {AbortSignal} how.signal
 * @param {(x: [number, number] | null, y: [number, number] | null | undefined, keep: boolean) => void} how.onView
 * @param {() => void} how.onBack
 * @param {() => string} how.xName
 * @param {() => boolean} [how.isSynced]
 */
export function lineChart({ name, signal, onView, onBack, xName, isSynced = () => true }) {
  /** @type {Line[]} */
  let lines = [];
  /** @type {View} */
  let view = { x: null, y: null, logX: false, logY: false, robust: false, unit: "number" };
  /** @type {import("./layout.js").Layout | null} */
  let layout = null;
  /** @type {[number, number, number, number] | null} */
  let box = null;
  /** @type {{x: number, y: number} | null} */
  let pointer = null;
  let frame = 0;
  let overFrame = 0;
  let width = 0;
  let height = 0;
  let isAwake = false;
  /** @type {import("./draw.js").Ink | null} read with each painting: asking for styles at every move would cost more than drawing */
  let ink = null;
  let isShown = false; // something lies on the upper canvas
  /** @type {(() => void)[]} */
  let painted = [];
  /** @type {HTMLCanvasElement | null} */
  let under = null;
  /** @type {HTMLCanvasElement | null} */
  let over = null;

  const element = h("div.plot", { tabIndex: 0, role: "img", "aria-label": name, data: { state: "waiting" } });
  const observer = new ResizeObserver(() => isAwake && measure() && paint());
  observer.observe(element);
  signal.addEventListener("abort", () => {
    observer.disconnect();
    sleep();
  });
  hover.watch(showHover, signal);

  /** @returns {boolean} whether the size changed */
  function measure() {
    const w = element.clientWidth;
    const t = element.clientHeight;
    if (w === width && t === height) return false;
    width = w;
    height = t;
    for (const canvas of [under, over]) if (canvas) fit(canvas);
    return true;
  }

  /** @param {HTMLCanvasElement} canvas */
  function fit(canvas) {
    const ratio = devicePixelRatio || 1;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    canvas.getContext("2d")?.setTransform(ratio, 0, 0, ratio, 0, 0);
  }

  /** @returns {HTMLCanvasElement} */
  function canvas() {
    const made = h("canvas", { "aria-hidden": "true" });
    element.append(made);
    fit(made);
    return made;
  }

  function readInk() {
    const style = getComputedStyle(element);
    const of = (/** @type {string} */ key) => style.getPropertyValue(key).trim();
    return { ground: of("--surface"), text: of("--faint"), grid: of("--grid"), axis: of("--axis"), accent: of("--accent") };
  }

  function paint() {
    cancelAnimationFrame(frame);
    frame = 0;
    if (!isAwake) return;
    measure();
    if (!width || !height) return;
    under ??= canvas();
    const g = under.getContext("2d");
    if (!g) return;
    layout = arrange(lines, view, width, height);
    const colours = (ink = readInk());
    if (!layout) {
      g.clearRect(0, 0, width, height);
      element.dataset.state = "empty";
    } else {
      const at = layout;
      drawAxes(g, at, colours, width, height);
      // the baseline last, over the others
      const order = lines.map((_, k) => k).sort((a, b) => Number(lines[a].isBaseline) - Number(lines[b].isBaseline));
      inside(g, at, () => {
        for (const k of order) drawLine(g, at, lines[k], at.spans[k]);
        for (const k of order) drawMarks(g, at, lines[k], at.spans[k]);
      });
      element.dataset.state = "ready";
      const { sx, sy, left, top, width: w, height: t } = at;
      element.dataset.axes = JSON.stringify({ left, top, width: w, height: t, x: [sx.low, sx.high], y: [sy.low, sy.high] }); // for tests, and whoever reads the page by a program
    }
    if (isShown) paintOver(hover.now);
    const done = painted;
    painted = [];
    for (const tell of done) tell();
  }

  /** @param {import("./hover.js").Hover} now */
  function paintOver(now) {
    if (!layout || !isAwake) return;
    const x = now.source === element || isSynced() ? now.x : null;
    if (x === null && !now.run && !box) {
      if (isShown) over?.getContext("2d")?.clearRect(0, 0, width, height);
      isShown = false;
      return;
    }
    over ??= canvas();
    const g = over.getContext("2d");
    if (!g) return;
    const at = x === null ? [] : lines.map(({ points }) => indexAt(points, x));
    drawOver(g, layout, lines, (ink ??= readInk()), { x, focus: now.run, at, box, width, height });
    isShown = true;
  }

  /** @param {import("./hover.js").Hover} now */
  function showHover(now) {
    paintOver(now);
    if (now.source !== element) return;
    if (now.x === null || !pointer || !layout) return hideTooltip();
    const rows = rowsAt(now.x);
    if (!rows.length) return hideTooltip();
    const home = element.getBoundingClientRect();
    const best = rows.reduce((a, b) => (a.distance <= b.distance ? a : b));
    const x = best.line.points.x[best.index];
    showTooltip(rows, {
      x, unit: view.unit, xName: xName(), focus: now.run, kept: now.kept, home: element,
      at: { x: home.left + layout.sx.to(now.x), y: home.top + pointer.y },
      again: () => showHover(hover.now),
    });
  }

  /** The point nearest to x, or -1: also where a line ended long before. @param {import("./series.js").Points} points @param {number} x */
  function indexAt(points, x) {
    const index = nearest(points, x);
    if (index < 0 || !layout || x <= points.x1) return index;
    const { sx, width: wide } = layout;
    return Math.abs(sx.to(points.x[index]) - sx.to(x)) > Math.max(30, wide / 20) ? -1 : index;
  }

  /** @param {number} x @returns {import("./tooltip.js").Row[]} */
  function rowsAt(x) {
    if (!layout || !pointer) return [];
    const { sy } = layout;
    const { y } = pointer;
    return lines.flatMap((line) => {
      const { points } = line;
      const index = indexAt(points, x);
      if (index < 0) return [];
      const value = (points.smooth ?? points.y)[index];
      const py = sy.to(value);
      return [{ line, index, distance: Number.isFinite(py) ? Math.abs(py - y) : Infinity }];
    });
  }

  interact(element, {
    layout: () => layout,
    view: (x, y, { keep }) => onView(x, y, keep),
    back: onBack,
    select: (next) => {
      box = next;
      overFrame ||= requestAnimationFrame(() => {
        overFrame = 0;
        paintOver(hover.now);
      });
    },
    click: () => hover.set({ kept: !hover.now.kept }),
    hover: (at) => {
      if (hover.now.kept) return;
      pointer = at;
      if (!at || !layout) return hover.set({ x: null, run: "", source: element });
      const { left, top, width: w, height: t, sx } = layout;
      if (at.x < left - 2 || at.x > left + w + 2 || at.y < top - 4 || at.y > top + t + 4) return hover.set({ x: null, run: "", source: element });
      const x = sx.from(Math.max(left, Math.min(left + w, at.x)));
      const near = rowsAt(x).reduce((best, row) => (row.distance < best.distance ? row : best), { distance: NEAR_PX, line: { run: "" } });
      hover.set({ x, run: /** @type {any} */ (near).line.run, source: element });
    },
  });

  function sleep() {
    isAwake = false;
    cancelAnimationFrame(frame);
    frame = 0;
    for (const tell of painted.splice(0)) tell(); // nobody is to wait for what is not painted
    under?.remove();
    over?.remove();
    under = over = null;
    isShown = false;
    element.dataset.state = "waiting";
  }

  return {
    element,
    /** @param {Line[]} next @param {View} nextView @returns {Promise<void>} painted */
    set(next, nextView) {
      lines = next;
      view = nextView;
      return this.later();
    },
    later() {
      if (!isAwake) return Promise.resolve();
      frame ||= requestAnimationFrame(paint);
      return new Promise((tell) => painted.push(() => tell(undefined)));
    },
    /** Give the canvases back; the lines stay. */
    sleep,
    wake() {
      if (isAwake) return;
      isAwake = true;
      width = height = 0;
      if (lines.length) void this.later();
    },
    get layout() {
      return layout;
    },
    get lines() {
      return lines;
    },
    get view() {
      return view;
    },
    /** @returns {HTMLCanvasElement | null} */
    get picture() {
      return under;
    },
    /** Size in pixels of the plot's columns: how many buckets are worth asking for. */
    get columns() {
      return Math.max(100, (element.clientWidth || 400) - 50);
    },
  };
}
