/**
 * Asking for series: what several charts ask for at once goes in few questions. A browser sends six at a time, and the heads of twenty
 * answers a second would be most of what comes.
 */

import { bytes } from "../core/api.js";
import { decode } from "./series.js";

const MOST_SERIES = 500; // that the server takes in one question
const MOST_ASKERS = 10; // the first charts need not wait for the last

/** @typedef {{series: any[], signal: AbortSignal, done: (heads: any[]) => void, fail: (error: any) => void}} Asker */

/** @type {Map<string, Asker[]>} by what all series of a question share */
const waiting = new Map();
let timer = 0;

/**
 * @param {any[]} series  as `api/series` takes them, at most `MOST_SERIES`
 * @param {{buckets: number, smoothing?: any}} how
 * @param {AbortSignal} signal
 * @returns {Promise<any[]>}  heads, in the order asked for
 */
export function ask(series, how, signal) {
  return new Promise((done, fail) => {
    const key = JSON.stringify(how);
    waiting.set(key, [...(waiting.get(key) ?? []), { series, signal, done, fail }]);
    timer ||= window.setTimeout(send, 0);
  });
}

function send() {
  timer = 0;
  for (const [key, askers] of waiting) {
    /** @type {Asker[]} */
    let some = [];
    for (const asker of askers.filter(({ signal }) => !signal.aborted)) {
      if (some.length === MOST_ASKERS || some.reduce((sum, each) => sum + each.series.length, asker.series.length) > MOST_SERIES) {
        void sendSome(key, some);
        some = [];
      }
      some.push(asker);
    }
    if (some.length) void sendSome(key, some);
    for (const { signal, fail } of askers) if (signal.aborted) fail(signal.reason);
  }
  waiting.clear();
}

/** @param {string} key @param {Asker[]} askers */
async function sendSome(key, askers) {
  const stop = new AbortController();
  const leave = () => askers.every(({ signal }) => signal.aborted) && stop.abort();
  for (const { signal } of askers) signal.addEventListener("abort", leave, { signal: stop.signal });
  try {
    const heads = decode(await bytes("series", { ...JSON.parse(key), series: askers.flatMap(({ series }) => series) }, stop.signal));
    let from = 0;
    for (const { series, signal, done, fail } of askers) {
      const own = heads.slice(from, (from += series.length));
      signal.aborted ? fail(signal.reason) : done(own);
    }
  } catch (error) {
    for (const { fail } of askers) fail(error);
  } finally {
    stop.abort(); // the listeners
  }
}
