/** What the pointer is on, shared by all charts and the table: a place on x, a run, and whether a click keeps them. */

/** @typedef {{x: number | null, run: string, kept: boolean, source: any}} Hover */

/** @type {Hover} */
let now = { x: null, run: "", kept: false, source: null };
/** @type {Set<(hover: Hover) => void>} */
const listeners = new Set();
let frame = 0;

export const hover = {
  /** @returns {Hover} */
  get now() {
    return now;
  },
  /** Listeners hear of it with the next frame. @param {Partial<Hover>} patch */
  set(patch) {
    if (Object.entries(patch).every(([key, value]) => /** @type {any} */ (now)[key] === value)) return;
    now = { ...now, ...patch };
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      for (const react of [...listeners]) react(now);
    });
  },
  /** @param {(hover: Hover) => void} react @param {AbortSignal} signal */
  watch(react, signal) {
    listeners.add(react);
    signal.addEventListener("abort", () => listeners.delete(react));
  },
};
