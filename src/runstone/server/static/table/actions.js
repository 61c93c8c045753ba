/** What is done to runs, one or many: each says what it did, and how to undo it. */

import { ApiError, get, part, send } from "../core/api.js";
import { count, numeric } from "../core/format.js";
import { h } from "../core/h.js";
import { confirm, dialog, prompt, toast } from "../core/notice.js";
import { saveRows } from "../core/taking.js";

const CSV_ROWS = 5000; // a question

/** @param {unknown} error */
const tell = (error) => toast(error instanceof ApiError ? error.message : String(error), { error: true });

/**
 * Change runs, say so, and offer to take it back.
 * @param {string[]} ids
 * @param {Record<string, any>} edits  as `api/runs/bulk` takes them
 * @param {string} said
 */
async function change(ids, edits, said) {
  try {
    const { undo } = await send("POST", "runs/bulk", { ids, edits });
    toast(said, { undo: () => takeBack(undo) });
    changed();
  } catch (error) {
    tell(error);
  }
}

/** @param {any[]} undo  as an edit answered */
async function takeBack(undo) {
  try {
    await send("POST", "runs/undo", { undo });
    changed();
  } catch (error) {
    tell(error);
  }
}

/** @type {Set<() => void>} */
const listeners = new Set();
const changed = () => listeners.forEach((react) => react());

/** Runs were changed from here: no need to wait for the next poll. @param {() => void} react @param {AbortSignal} signal */
export function onEdited(react, signal) {
  listeners.add(react);
  signal.addEventListener("abort", () => listeners.delete(react));
}

/** @param {string[]} ids @param {boolean} archived */
export const archive = (ids, archived = true) => change(ids, { archived }, `${count(ids.length, "run")} ${archived ? "archived" : "taken out of the archive"}`);

/** @param {string[]} ids */
export async function remove(ids) {
  const sure = ids.length === 1 || await confirm(`Delete ${count(ids.length, "run")}?`, "Deleted runs can be restored until they are purged.", "Delete");
  if (sure) await change(ids, { deleted: true }, `${count(ids.length, "run")} deleted`);
}

/** @param {string[]} ids */
export const restore = (ids) => change(ids, { deleted: false }, `${count(ids.length, "run")} restored`);

/** @param {string[]} ids */
export function tag(ids) {
  dialog(`Tag ${count(ids.length, "run")}`, (close) => {
    const name = h("input", { type: "text", "aria-label": "Name of the tag", required: true, autofocus: true });
    const value = h("input", { type: "text", "aria-label": "Value of the tag" });
    return h("form", { onsubmit: (/** @type {Event} */ event) => {
      event.preventDefault();
      close();
      void change(ids, { set_tags: { [name.value]: value.value } }, `${count(ids.length, "run")} tagged ${name.value}`);
    } }, h("label.stack", null, "Name", name), h("label.stack", null, "Value", value),
    h("div.actions", null, h("button", { type: "button", onclick: close }, "Cancel"), h("button.primary", { type: "submit" }, "Tag")));
  });
}

/** Change one run. @param {string} id @param {Record<string, any>} edits @param {string} said */
export const edit = (id, edits, said) => change([id], edits, said);

/** @param {string} id @param {string} name */
export async function rename(id, name) {
  const given = await prompt("Rename the run", { label: "Name", value: name, verb: "Rename" });
  if (given && given !== name) await edit(id, { name: given }, "Renamed");
}

/** @param {string} id @param {string} now */
export function recolour(id, now) {
  dialog("Colour of the run", (close) => {
    const input = h("input", { type: "color", value: now, "aria-label": "Colour" });
    return [h("label.row-of", null, input, "Everywhere, for everybody who looks at this run"), h("div.actions", null,
      h("button", { type: "button", onclick: () => { close(); void edit(id, { remove_tags: ["colour"] }, "The colour is that of its id again"); } }, "As before"),
      h("button.primary", { type: "button", onclick: () => { close(); void edit(id, { set_tags: { colour: input.value } }, "Colour changed"); } }, "Use"))];
  });
}

/** @param {string} id @param {string} name */
export async function stop(id, name) {
  if (!await confirm(`Stop ${name}?`, "It ends after its next step, as stopped; what it has recorded stays.", "Stop")) return;
  try {
    await send("POST", `runs/${part(id)}/stop`, {});
    toast(`${name} was asked to stop`);
    changed();
  } catch (error) {
    tell(error);
  }
}

/**
 * All rows of a question as CSV, the values as stored.
 * @param {import("./rows.js").Question} question
 * @param {string[]} fields
 */
export async function exportCsv(question, fields) {
  /** @type {any[][]} */
  const rows = [["id", "name", ...fields]];
  try {
    for (let offset = 0; ; offset += CSV_ROWS) {
      const { filter, order_by, deleted, archived } = question;
      const answer = await get("runs", { filter, order_by, deleted, archived, columns: fields, offset, limit: CSV_ROWS });
      answer.ids.forEach((/** @type {string} */ id, /** @type {number} */ i) => rows.push([id, ...["name", ...fields].map((field) => numeric(answer.columns[field]?.[i]))]));
      if (offset + answer.ids.length >= answer.total || !answer.ids.length) break;
    }
    saveRows("runs", rows);
  } catch (error) {
    tell(error);
  }
}
