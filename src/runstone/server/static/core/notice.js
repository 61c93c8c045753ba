/** Toasts, dialogs, menus: everything that lies over the page for a while. */

import { fill, h, icon, iconButton } from "./h.js";

const TOAST_S = 8;
/** @type {(() => void)[]} */
const undos = [];

/**
 * Say something for a while, with a way back where there is one (also Ctrl+Z).
 * @param {string} message
 * @param {{undo?: () => void | Promise<void>, error?: boolean}} [how]
 */
export function toast(message, { undo, error = false } = {}) {
  const shelf = document.getElementById("toasts") ?? document.body.appendChild(h("div.toasts", { id: "toasts", role: "status", "aria-live": "polite" }));
  const back = undo && (() => {
    drop();
    void undo();
  });
  const element = h(`div.toast${error ? ".bad" : ""}`, null,
    h("span", null, message),
    back && h("button.link", { type: "button", onclick: back }, "Undo"),
    iconButton("close", "Dismiss", drop));
  const timer = setTimeout(drop, (error ? 2 : 1) * TOAST_S * 1000);
  if (back) undos.push(back);
  shelf.append(element);

  function drop() {
    clearTimeout(timer);
    element.remove();
    if (back && undos.includes(back)) undos.splice(undos.indexOf(back), 1);
  }
}

/** Undo what the newest toast offers. @returns {boolean} whether there was something */
export function undoLast() {
  const back = undos.at(-1);
  back?.();
  return back !== undefined;
}

/**
 * A dialog. Escape and a click beside it close it; focus returns to where it was.
 * @param {string} title
 * @param {(close: () => void) => import("./h.js").Child} content
 * @param {{wide?: boolean, full?: boolean, onclose?: () => void, tools?: import("./h.js").Child}} [how]
 * @returns {() => void} closes it
 */
export function dialog(title, content, { wide = false, full = false, onclose, tools } = {}) {
  const close = () => element.close();
  const element = h("dialog", {
    class: full ? "full" : wide ? "wide" : "",
    "aria-label": title,
    onclose: () => {
      element.remove();
      onclose?.();
    },
    onclick: (/** @type {MouseEvent} */ event) => event.target === element && close(),
  }, h("div.dialog-body", null,
    h("header.dialog-head", null, h("h2", null, title), h("span.spacer"), tools, iconButton("close", "Close", close)),
    h("div.dialog-content", null, content(close))));
  document.body.append(element);
  element.showModal();
  return close;
}

/**
 * Ask before something that matters.
 * @param {string} title
 * @param {string} text
 * @param {string} verb  what the button says
 * @returns {Promise<boolean>}
 */
export function confirm(title, text, verb) {
  return new Promise((answer) => {
    let yes = false;
    dialog(title, (close) => [
      h("p", null, text),
      h("div.actions", null,
        h("button", { type: "button", onclick: close }, "Cancel"),
        h("button.primary", { type: "button", autofocus: true, onclick: () => { yes = true; close(); } }, verb)),
    ], { onclose: () => answer(yes) });
  });
}

/**
 * Ask for a line of text.
 * @param {string} title
 * @param {{label: string, value?: string, verb?: string}} how
 * @returns {Promise<string | null>}
 */
export function prompt(title, { label, value = "", verb = "Save" }) {
  return new Promise((answer) => {
    /** @type {string | null} */
    let given = null;
    dialog(title, (close) => {
      const input = h("input", { type: "text", value, "aria-label": label, autofocus: true });
      return h("form", { method: "dialog", onsubmit: (/** @type {Event} */ event) => { event.preventDefault(); given = input.value.trim(); close(); } },
        h("label.stack", null, label, input),
        h("div.actions", null, h("button", { type: "button", onclick: close }, "Cancel"), h("button.primary", { type: "submit" }, verb)));
    }, { onclose: () => answer(given) });
  });
}

/**
 * @typedef {{label: string, icon?: any, checked?: boolean, danger?: boolean, disabled?: boolean, run: () => void} | "line"} Item
 */

/**
 * A menu below a button. Arrows move, Escape closes.
 * @param {Element} anchor
 * @param {Item[]} items
 */
export function menu(anchor, items) {
  const buttons = items.map((item) => item === "line" ? h("hr") : h("button.menu-item", {
    type: "button",
    role: item.checked === undefined ? "menuitem" : "menuitemcheckbox",
    "aria-checked": item.checked,
    disabled: item.disabled,
    class: item.danger ? "danger" : "",
    onclick: () => { panel.hidePopover(); item.run(); },
  }, h("span.menu-icon", null, item.checked ? icon("check") : item.icon && icon(item.icon)), item.label));
  const panel = popover(anchor, h("div.menu", { role: "menu" }, buttons));
  panel.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    const all = [...panel.querySelectorAll("button:not(:disabled)")];
    const at = all.indexOf(/** @type {any} */ (document.activeElement));
    const step = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : 0;
    if (!step) return;
    event.preventDefault();
    /** @type {any} */ (all[(at + step + all.length) % all.length]).focus();
  });
  panel.querySelector("button")?.focus();
}

/**
 * Something that floats at an element until one clicks elsewhere.
 * @param {Element} anchor
 * @param {import("./h.js").Child} content
 * @returns {any} the panel
 */
export function popover(anchor, content) {
  const panel = h("div.popover", { popover: "auto" });
  fill(panel, content);
  panel.addEventListener("toggle", (/** @type {any} */ event) => event.newState === "closed" && panel.remove());
  (anchor.closest("dialog") ?? document.body).append(panel);
  panel.showPopover();
  const at = anchor.getBoundingClientRect();
  const size = panel.getBoundingClientRect();
  panel.style.left = `${Math.max(4, Math.min(at.left, innerWidth - size.width - 8))}px`;
  panel.style.top = `${at.bottom + 4 + size.height > innerHeight ? Math.max(4, at.top - size.height - 4) : at.bottom + 4}px`;
  return panel;
}

/** Put text on the clipboard and say so. @param {string} text @param {string} what */
export async function copyText(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    toast(`${what} copied`);
  } catch {
    dialog(what, () => h("textarea.code", { value: text, readOnly: true, rows: 16, "aria-label": what, autofocus: true }), { wide: true });
  }
}

/** Let the browser save something. @param {Blob} blob @param {string} name */
export function saveFile(blob, name) {
  const link = h("a", { href: URL.createObjectURL(blob), download: name.replace(/[\\/:*?"<>|]+/g, "-") });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
