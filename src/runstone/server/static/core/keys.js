/** Keys of the whole page. A page adds its own while it is open; `?` lists all that work now. */

import { h } from "./h.js";
import { dialog, undoLast } from "./notice.js";

/** @typedef {{keys: string, label: string, run: (event: KeyboardEvent) => void}} Binding */
/** @type {Set<Binding>} */
const bindings = new Set();

/**
 * @param {Binding[]} added  `keys` such as `"/"`, `"Ctrl+k"`, `"ArrowDown"`; several apart by spaces
 * @param {AbortSignal} [signal]
 */
export function bind(added, signal) {
  for (const each of added) bindings.add(each);
  signal?.addEventListener("abort", () => added.forEach((each) => bindings.delete(each)));
}

/** @param {KeyboardEvent} event */
const named = (event) => `${event.ctrlKey || event.metaKey ? "Ctrl+" : ""}${event.altKey ? "Alt+" : ""}${event.key === " " ? "Space" : event.key.length === 1 ? event.key.toLowerCase() : event.key}`;

/** @param {EventTarget | null} target */
const isTyping = (target) => target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName))
  && !/^(checkbox|radio|range|button)$/.test(/** @type {any} */ (target).type);

/** Begin to listen. */
export function listenToKeys() {
  bind([
    { keys: "?", label: "This help", run: showHelp },
    { keys: "Ctrl+z", label: "Undo", run: (event) => { if (undoLast()) event.preventDefault(); } },
  ]);
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.isComposing) return;
    const key = named(event);
    if (isTyping(event.target) && !(key.startsWith("Ctrl+") && key !== "Ctrl+z")) {
      if (event.key === "Escape") /** @type {HTMLElement} */ (event.target).blur();
      return;
    }
    if (document.querySelector("dialog[open]") && key !== "Ctrl+z") return;
    // the newest binding wins: a page over the whole
    const hit = [...bindings].reverse().find((each) => each.keys.split(" ").includes(key));
    if (!hit) return;
    if (!key.startsWith("Ctrl+z")) event.preventDefault();
    hit.run(event);
  });
}

function showHelp() {
  dialog("Keys", () => [
    h("dl.keys", null, [...bindings].map(({ keys, label }) => [
      h("dt", null, keys.split(" ").map((key, i) => [i ? " or " : "", h("kbd", null, key)])), h("dd", null, label)])),
    h("h3", null, "On a chart"),
    h("dl.keys", null, [
      ["drag", "zoom along x"], ["Alt + drag", "zoom a box"], ["Shift + drag", "move"], ["Ctrl + wheel", "zoom at the pointer"],
      ["double click", "whole range"], ["Backspace", "the zoom before"], ["click", "keep the tooltip"], ["arrows", "move the crosshair by a pixel (with focus)"],
    ].map(([what, does]) => [h("dt", null, h("kbd", null, what)), h("dd", null, does)])),
  ]);
}
