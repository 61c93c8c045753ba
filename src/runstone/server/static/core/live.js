/**
 * What changed since last asked: one small question a second while the page is visible, none while it is hidden.
 * Polling and not a stream, because a browser opens only six connections to a server, over all its tabs.
 */

import { connection, get } from "./api.js";

const QUICK_S = 1;
const CALM_S = 1.5;
const LOST_S = 2;

/**
 * @typedef {object} Changes
 * @property {Set<string>} runs  ids
 * @property {boolean} all  the page was away: anything may have changed
 * @property {boolean} projects
 * @property {boolean} models
 * @property {boolean} datasets
 * @property {boolean} sweeps
 */

/** @type {Set<(changes: Changes) => void>} */
const listeners = new Set();
let cursor = "";
let timer = 0;
let isAsking = false;
let wasLost = false;
let quiet = 0;

/**
 * @param {(changes: Changes) => void} react
 * @param {AbortSignal} signal
 */
export function onChanges(react, signal) {
  listeners.add(react);
  signal.addEventListener("abort", () => listeners.delete(react));
}

/** Begin. @param {string} from  cursor of `api/changes` */
export function follow(from) {
  cursor = from;
  document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : poll()));
  plan(QUICK_S);
}

/** @param {number} seconds */
function plan(seconds) {
  clearTimeout(timer);
  if (!document.hidden) timer = window.setTimeout(poll, seconds * 1000);
}

async function poll() {
  if (isAsking) return;
  isAsking = true;
  try {
    const answer = await get("changes", { cursor }, { tries: 1 });
    const all = wasLost || answer.is_complete === false;
    wasLost = false;
    cursor = answer.cursor;
    const changes = {
      runs: new Set([...answer.runs ?? [], ...answer.removed ?? []]),
      all,
      projects: all || !!answer.projects_changed,
      models: all || !!answer.models_changed,
      datasets: all || !!answer.datasets_changed,
      sweeps: all || !!answer.sweeps_changed,
    };
    const anything = all || changes.runs.size > 0 || changes.projects || changes.models || changes.datasets || changes.sweeps;
    quiet = anything ? 0 : quiet + 1;
    if (anything) for (const react of [...listeners]) react(changes);
    plan(quiet > 5 ? CALM_S : QUICK_S);
  } catch {
    wasLost = true;
    plan(LOST_S);
  } finally {
    isAsking = false;
  }
}

connection.addEventListener("found", () => plan(0.1));
