/** Fetching the points of a chart: whole at first, only the tail while runs grow, exact again at every zoom. */

import { ask } from "./asking.js";
import { pointsOf } from "./series.js";

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

const MOST_RUNS = 500; // a question

/** Points of one chart. */
export function loader() {
  /** @type {Map<string, Points>} */
  let whole = new Map();
  /** @type {Map<string, Points>} */
  let part = new Map(); // of the range
  /** @type {Set<string>} */
  let stale = new Set();
  /** @type {Set<string>} */
  let stalePart = new Set();
  let wholeKey = "";
  let partKey = "";
  let wholeBuckets = 0;

  /** What the points depend on, but for the range. @param {Wish} wish */
  const keyOf = (wish) => `${wish.metric}\n${wish.x}\n${wish.smooth}`;

  /** @param {Wish} wish */
  const partKeyOf = (wish) => (wish.range ? `${keyOf(wish)}\n${wish.range}\n${wish.buckets}` : "");

  /** @param {Wish} wish */
  const isOfWhole = (wish) => keyOf(wish) === wholeKey && wish.buckets <= wholeBuckets * 1.5;

  /** Every point is held: a range of it needs no question. @param {string} run */
  const isExact = (run) => whole.get(run)?.level === "raw";

  /** Forget what another wish has made useless. @param {Wish} wish */
  function turnTo(wish) {
    if (!isOfWhole(wish)) {
      whole = new Map();
      stale = new Set();
      wholeKey = keyOf(wish);
      wholeBuckets = wish.buckets;
    }
    if (partKeyOf(wish) === partKey) return;
    part = new Map();
    stalePart = new Set();
    partKey = partKeyOf(wish);
  }

  /** Runs to ask for as a whole. @param {Wish} wish */
  const missing = (wish) => wish.runs.filter((run) => (wish.range ? isExact(run) && stale.has(run) : !whole.has(run) || stale.has(run)));

  /** Runs to ask for in the range. @param {Wish} wish */
  const missingPart = (wish) => (wish.range ? wish.runs.filter((run) => !isExact(run) && (!part.has(run) || stalePart.has(run))) : []);

  /** The best that is held: exact in the range, or for want of that the whole. @param {Wish} wish @returns {Map<string, Points>} */
  function held(wish) {
    if (keyOf(wish) !== wholeKey) return new Map();
    const isPart = partKeyOf(wish) === partKey;
    return new Map(wish.runs.flatMap((run) => {
      const points = (isPart && !isExact(run) && part.get(run)) || whole.get(run);
      return points ? [[run, points]] : [];
    }));
  }

  /**
   * @param {Wish} wish
   * @param {AbortSignal} signal
   * @returns {Promise<Map<string, Points>>}
   */
  async function load(wish, signal) {
    turnTo(wish);
    await fill({ ...wish, range: null }, missing(wish), whole, stale, signal);
    await fill(wish, missingPart(wish), part, stalePart, signal);
    return held(wish);
  }

  /** @param {Wish} wish @param {string[]} runs @param {Map<string, Points>} into @param {Set<string>} waiting @param {AbortSignal} signal */
  async function fill(wish, runs, into, waiting, signal) {
    for (let at = 0; at < runs.length; at += MOST_RUNS) {
      const some = runs.slice(at, at + MOST_RUNS);
      await fetchSome(wish, some, into, signal);
      some.forEach((run) => waiting.delete(run));
    }
  }

  /** @param {Wish} wish @param {string[]} runs @param {Map<string, Points>} into @param {AbortSignal} signal */
  async function fetchSome(wish, runs, into, signal) {
    const [kind, amount] = wish.smooth.split(":");
    const series = runs.map((run) => {
      const before = into.get(run);
      return {
        run, metric: wish.metric, x: wish.x,
        ...(wish.range && { from: wish.range[0], to: wish.range[1] }),
        ...(before?.token && { have: before.token }),
      };
    });
    const heads = await ask(series, {
      buckets: Math.max(1, Math.min(10_000, Math.round(wish.buckets))),
      ...(kind !== "none" && Number(amount) > 0 && { smoothing: { kind, amount: Number(amount) } }),
    }, signal);
    heads.forEach((head, i) => into.set(runs[i], pointsOf(head, into.get(runs[i]) ?? null)));
  }

  return {
    load,
    /** These runs have grown or changed. @param {Iterable<string>} runs */
    outdate(runs) {
      for (const run of runs) {
        if (whole.has(run)) stale.add(run);
        if (part.has(run)) stalePart.add(run);
      }
    },
    held,
    /** Whether all is held to draw a wish as it is meant. @param {Wish} wish */
    isReady: (wish) => isOfWhole(wish) && !missing(wish).length && (partKeyOf(wish) === partKey ? !missingPart(wish).length : wish.runs.every(isExact)),
  };
}
