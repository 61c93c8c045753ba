/** Saved views: the whole state of the page below a name, kept by the server. */

import { get, part, send } from "../core/api.js";
import { fill, h, iconButton } from "../core/h.js";
import { popover, prompt, toast } from "../core/notice.js";
import { store } from "../core/state.js";
import { every, orderBy, quoted, readColumns } from "./columns.js";

/**
 * A view as the server keeps it: what the command line understands of it, and the whole address.
 * @param {string} query
 */
const written = (query) => ({
  filter: every(store.state.project && `project = ${quoted(store.state.project)}`, store.state.filter), order_by: orderBy(store.state.sort), columns: readColumns(store.state.columns).map((column) => column.field),
  group_by: store.state.group, charts: { query },
});

/** The address of a view; one that was saved elsewhere has none, only what the table shows. @param {any} view */
const queryOf = (view) => view.charts?.query ?? store.href({
  page: "runs", filter: view.filter, columns: view.columns.length ? view.columns : store.state.columns, group: view.group_by,
  sort: view.order_by.split(",").filter(Boolean).map((/** @type {string} */ each) => each.trim().replace(/^(.*?)\s+desc$/i, "-$1").replace(/\s+asc$/i, "")),
}, { fresh: true });

/** @param {Element} anchor */
export async function openViews(anchor) {
  const list = h("div.picker-list", null, h("p.faint", null, "Loading…"));
  const panel = popover(anchor, h("div.picker", null, h("button", { type: "button", onclick: save }, "Save this view…"), list));

  async function save() {
    panel.hidePopover();
    const name = await prompt("Save this view", { label: "Name" });
    if (!name) return;
    try {
      await send("PUT", `views/${part(name)}`, written(location.search));
      toast(`View ${name} saved`);
    } catch (error) {
      toast(/** @type {Error} */ (error).message, { error: true });
    }
  }

  /** @param {any} view */
  async function drop(view) {
    await send("DELETE", `views/${part(view.name)}`);
    toast(`View ${view.name} deleted`, { undo: () => send("PUT", `views/${part(view.name)}`, view) });
    await draw();
  }

  async function draw() {
    try {
      const { views } = await get("views");
      fill(list, views.length ? views.map((/** @type {any} */ view) => h("div.picker-item", null,
        h("button.link", { type: "button", onclick: () => { panel.hidePopover(); store.open(queryOf(view)); } }, view.name), h("span.spacer"),
        iconButton("trash", `Delete the view ${view.name}`, () => void drop(view)))) : h("p.faint", null, "No views yet"));
    } catch (error) {
      fill(list, h("p.bad", null, /** @type {Error} */ (error).message));
    }
  }

  await draw();
}
