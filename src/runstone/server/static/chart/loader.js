/** Fetching the points of a chart: whole at first, only the tail while runs grow, exact again at every zoom. */

import { bytes } from "../core/api.js";
import { decode, nothing, pointsOf } from "./series.js";

/** @typedef {import("./series.js").Points} Points */

/**
 * @typedef {object} Wish
 * @property {string} metric
 * @property {string[]} runs  ids
 * @property {string} x       as the API names it
 * @property {string} smooth  `kind:amount`
 * @property {[number, number] | null} range  of x; `null`: the whole
 * @property {number} buckets
 */

/** Points of one chart. */
export function loader() {
  /** @type {Map<string, Points>} */
  let whole = new Map();
  /** @type {Map<string, Points>} */
  let part = new Map();
  let wholeKey = "";
  let partKey = "";
  let wholeBuckets = 0;
  /** @type {Set<string>} */
  let stale = new Set();

  /**
   * @param {Wish} wish
   * @param {AbortSignal} signal
   * @returns {Promise<Map<string, Points>>}
   */
  async function load(wish, signal) {
    const key = `${wish.metric}\n${wish.x}\n${wish.smooth}`;
    if (key !== wholeKey || wish.buckets > wholeBuckets * 1.5) {
      whole = new Map();
      stale = new Set();
      wholeKey = key;
      wholeBuckets = wish.buckets;
    }
    if (!wish.range) {
      part = new Map();
      const wanted = wish.runs.filter((run) => !whole.has(run) || stale.has(run));
      await ask(wish, wanted, whole, signal);
      wanted.forEach((run) => stale.delete(run));
      return whole;
    }
    const zoomKey = `${key}\n${wish.range}\n${wish.buckets}`;
    if (zoomKey !== partKey) part = new Map();
    partKey = zoomKey;
    // what is held to the point needs no question
    const isExact = (/** @type {string} */ run) => whole.get(run)?.level === "raw" && !stale.has(run);
    const wanted = wish.runs.filter((run) => !isExact(run) && (!part.has(run) || stale.has(run)));
    await ask(wish, wanted, part, signal);
    wanted.forEach((run) => stale.delete(run));
    return new Map(wish.runs.map((run) => [run, isExact(run) ? /** @type {Points} */ (whole.get(run)) : part.get(run) ?? nothing()]));
  }

  /** @param {Wish} wish @param {string[]} runs @param {Map<string, Points>} into @param {AbortSignal} signal */
  async function ask(wish, runs, into, signal) {
    if (!runs.length) return;
    const [kind, amount] = wish.smooth.split(":");
    const body = {
      series: runs.map((run) => {
        const held = into.get(run);
        return {
          run, metric: wish.metric, x: wish.x,
          ...(wish.range && { from: wish.range[0], to: wish.range[1] }),
          ...(held?.token && { have: held.token }),
        };
      }),
      buckets: Math.max(1, Math.min(10_000, Math.round(wish.buckets))),
      ...(kind !== "none" && Number(amount) > 0 && { smoothing: { kind, amount: Number(amount) } }),
    };
    const heads = decode(await bytes("series", body, signal));
    heads.forEach((head, i) => into.set(runs[i], pointsOf(head, into.get(runs[i]) ?? null)));
  }

  return {
    load,
    /** These runs have grown or changed. @param {Iterable<string>} runs */
    outdate(runs) {
      for (const run of runs) if (whole.has(run) || part.has(run)) stale.add(run);
    },
    /** What is held now, without asking: for drawing at once. @param {string[]} runs */
    held: (runs) => new Map(runs.flatMap((run) => {
      const points = whole.get(run);
      return points ? [[run, points]] : [];
    })),
    forget() {
      whole = new Map();
      part = new Map();
    },
  };
}
