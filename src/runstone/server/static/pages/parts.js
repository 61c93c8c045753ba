/** Pieces that several pages show. */

import { fill, h, icon } from "../core/h.js";
import { plain } from "../core/format.js";

/**
 * Ask for something and show it: waiting, then what was made of the answer, or what was wrong.
 * @template T
 * @param {HTMLElement} place
 * @param {AbortSignal} signal
 * @param {() => Promise<T>} ask
 * @param {(answer: T) => import("../core/h.js").Child} make
 * @param {{none?: string}} [how]  what to say where the server has nothing (404)
 */
export async function show(place, signal, ask, make, { none } = {}) {
  if (!place.hasChildNodes()) fill(place, h("p.loading", null, "Loading…"));
  try {
    const answer = await ask();
    if (!signal.aborted) fill(place, make(answer));
  } catch (error) {
    if (signal.aborted) return;
    const { status, message } = /** @type {any} */ (error);
    fill(place, status === 404 && none ? nothing(none) : trouble(message, () => void show(place, signal, ask, make, { none })));
  }
}

/** @param {string} text @param {any} [name] */
export const nothing = (text, name = "artifact") => h("div.empty", null, icon(name), h("p", null, text));

/** @param {string} message @param {() => void} [again] */
export const trouble = (message, again) => h("div.trouble", { role: "alert" }, icon("alert"), h("span", null, message), again && h("button.link", { type: "button", onclick: again }, "Try again"));

/** Names and values. @param {[string, import("../core/h.js").Child][]} rows  those without a value are left out */
export const facts = (rows) => h("dl.facts", null, rows.filter(([, value]) => value !== null && value !== undefined && value !== "" && value !== false).map(([name, value]) => [h("dt", null, name), h("dd", null, value)]));

/**
 * Nested values, each level to be closed.
 * @param {any} value
 * @param {(path: string) => boolean} [test]  which leaves are shown
 * @param {string} [path]
 * @returns {any[]}
 */
export function tree(value, test = () => true, path = "") {
  const entries = Array.isArray(value) ? value.map((each, i) => [String(i), each]) : Object.entries(value ?? {});
  return entries.flatMap(([name, each]) => {
    const place = path ? `${path}.${name}` : name;
    const isBranch = each !== null && typeof each === "object" && Object.keys(each).length > 0 && !(Array.isArray(each) && each.every((one) => one === null || typeof one !== "object"));
    if (isBranch) {
      const inner = tree(each, test, place);
      return inner.length ? [h("details", { open: true }, h("summary", null, name), inner)] : [];
    }
    const shown = Array.isArray(each) ? `[${each.map(plain).join(", ")}]` : each === null ? "null" : typeof each === "number" ? String(each) : plain(each);
    return test(`${place} ${shown}`) ? [h("div.leaf", null, h("b", null, name), h("span.faint", null, shown))] : [];
  });
}

/**
 * Text with what was searched for marked.
 * @param {string} text
 * @param {string} search  in any letter case
 */
export function marked(text, search) {
  if (!search) return [text];
  const parts = [];
  const low = text.toLowerCase();
  const wanted = search.toLowerCase();
  let from = 0;
  for (let at = low.indexOf(wanted); at >= 0; at = low.indexOf(wanted, from)) {
    parts.push(text.slice(from, at), h("mark", null, text.slice(at, at + wanted.length)));
    from = at + wanted.length;
  }
  parts.push(text.slice(from));
  return parts;
}
