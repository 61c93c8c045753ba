/** How far a sweep is, as a bar. */

import { h } from "../core/h.js";

/** Of trials, in the order of the bar. */
export const STATES = ["complete", "running", "waiting", "pruned", "failed"];

/** @param {any} trials  counts by state, and `expected` */
export function progress(trials) {
  const done = STATES.reduce((sum, state) => sum + (trials[state] ?? 0), 0);
  const whole = Math.max(trials.expected ?? 0, done, 1);
  const told = STATES.filter((state) => trials[state]).map((state) => `${trials[state]} ${state}`).join(", ");
  return h("span.progress", { role: "img", "aria-label": `${told || "no trial"} of ${trials.expected ?? "any number"}`, title: told },
    STATES.filter((state) => trials[state]).map((state) => h("i", { data: { state }, style: { width: `${(trials[state] / whole) * 100}%` } })));
}
