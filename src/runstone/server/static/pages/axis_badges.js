/** The axes of parallel coordinates as badges: each with a menu of what can be done with it, and one to add more. */

import { fill, h, icon } from "../core/h.js";
import { menu } from "../core/notice.js";
import { store } from "../core/state.js";
import { titleOf } from "../table/columns.js";
import { choice } from "./areas.js";

const MOST = 500; // offered

/**
 * @param {HTMLElement} place
 * @param {object} how
 * @param {string[]} how.shown  fields
 * @param {string[]} how.others  fields that can be added
 * @param {(field: string) => import("../core/notice.js").Item[]} how.items
 */
export function axisBadges(place, { shown, others, items }) {
  fill(place,
    shown.map((field) => h("span.badge", null,
      h("button.link", { type: "button", "aria-label": `Axis ${titleOf(field)}`, "aria-haspopup": "menu", onclick: (/** @type {MouseEvent} */ event) => menu(/** @type {Element} */ (event.currentTarget), items(field)) }, titleOf(field), icon("down")),
      h("button.link", { type: "button", "aria-label": `Leave out the axis ${titleOf(field)}`, onclick: () => store.set({ axes: shown.filter((each) => each !== field) }) }, "×"))),
    others.length > 0 && choice("Add an axis", [{ value: "", text: "Add an axis…" }, ...others.slice(0, MOST).map((field) => ({ value: field, text: titleOf(field) }))], "", (field) => store.set({ axes: [...shown, field] })));
}
