/** The box of the filter language: completion while typing, and what is wrong said below it. */

import { get } from "../core/api.js";
import { fill, h, icon, iconButton } from "../core/h.js";

const WAIT_MS = 90;

/**
 * @param {object} how
 * @param {string} how.value
 * @param {(filter: string) => void} how.onChange
 * @param {AbortSignal} how.signal
 */
export function filterBox({ value, onChange, signal }) {
  let timer = 0;
  let applied = value;
  /** @type {any} */
  let offer = null;
  let at = -1;
  const list = h("div.suggestions", { role: "listbox", id: "filter-options", hidden: true });
  const problem = h("div.field-error", { id: "filter-error", role: "alert", hidden: true });
  const clear = iconButton("close", "Clear the filter", () => {
    input.value = "";
    apply();
    input.focus();
  });
  const input = h("input", {
    type: "search", value, placeholder: "Filter: metrics.loss.min < 0.1 and params.model = 'mlp'", spellcheck: false, autocomplete: "off",
    "aria-label": "Filter of runs", role: "combobox", "aria-expanded": "false", "aria-controls": "filter-options", "aria-autocomplete": "list", "aria-describedby": "filter-error",
    oninput: () => { at = -1; suggestSoon(); }, onkeydown, onfocus: () => suggestSoon(), onblur: () => setTimeout(hide, 120), onchange: apply,
  });
  const element = h("div", { style: { flex: "1 1 100%" } }, h("div.filter", null, icon("filter"), input, clear, list), problem);
  signal.addEventListener("abort", () => clearTimeout(timer));

  function apply() {
    hide();
    clearTimeout(timer);
    if (input.value === applied) return;
    applied = input.value;
    onChange(applied);
  }

  function suggestSoon() {
    clearTimeout(timer);
    timer = window.setTimeout(suggest, WAIT_MS);
  }

  async function suggest() {
    const text = input.value;
    try {
      const answer = await get("complete", { filter: text, at: input.selectionStart ?? text.length }, { signal });
      if (input.value !== text || document.activeElement !== input) return;
      offer = answer;
      at = -1;
      draw();
    } catch {
      hide(); // completion is a help: without it one types on
    }
  }

  function draw() {
    const options = offer?.options ?? [];
    list.hidden = options.length === 0;
    input.setAttribute("aria-expanded", String(!list.hidden));
    input.setAttribute("aria-activedescendant", at >= 0 ? `filter-option-${at}` : "");
    fill(list, options.map((/** @type {any} */ option, /** @type {number} */ i) => h("div", {
      role: "option", id: `filter-option-${i}`, "aria-selected": String(i === at),
      onmousedown: (/** @type {Event} */ event) => { event.preventDefault(); take(i); },
    }, option.text, option.detail && h("span.faint", null, option.detail))));
    list.children[at]?.scrollIntoView({ block: "nearest" });
  }

  /** @param {number} index */
  function take(index) {
    const { start, end, text } = offer.options[index];
    hide();
    input.value = input.value.slice(0, start) + text + input.value.slice(end);
    input.setSelectionRange(start + text.length, start + text.length);
    suggestSoon();
  }

  function hide() {
    offer = null;
    at = -1;
    list.hidden = true;
    input.setAttribute("aria-expanded", "false");
  }

  /** @param {KeyboardEvent} event */
  function onkeydown(event) {
    const count = offer?.options.length ?? 0;
    if ((event.key === "ArrowDown" || event.key === "ArrowUp") && count) {
      at = (at + (event.key === "ArrowDown" ? 1 : -1) + count + (at < 0 && event.key === "ArrowUp" ? 1 : 0)) % count;
      draw();
    } else if ((event.key === "Tab" || event.key === "Enter") && at >= 0) take(at);
    else if (event.key === "Tab" && count === 1 && !event.shiftKey) take(0);
    else if (event.key === "Enter") apply();
    else if (event.key === "Escape" && !list.hidden) {
      hide();
      event.stopPropagation();
    } else return;
    event.preventDefault();
  }

  return {
    element,
    focus: () => input.focus(),
    /** @param {string} next */
    set(next) {
      if (next === applied) return;
      applied = input.value = next;
    },
    /** Say what the server found wrong. @param {any} error  an ApiError, or null @param {number} [shift]  characters that were sent before the filter */
    fail(error, shift = 0) {
      problem.hidden = !error;
      input.setAttribute("aria-invalid", String(!!error));
      if (!error) return;
      const position = error.details?.position;
      const place = typeof position === "number" ? Math.min(applied.length, position - shift) : undefined;
      fill(problem, error.message.split("\n")[0], typeof place === "number" && h("div.mono", null, applied.slice(0, place), h("mark", null, applied.slice(place, place + 1) || " "), applied.slice(place + 1)));
    },
  };
}
