/** Rows of the run table, fetched in windows as they come into view. The server filters and sorts. */

import { get } from "../core/api.js";
import { pattern } from "../core/pattern.js";
import { among, every } from "./columns.js";

const WINDOW = 200;
const WHOLE = 5000; // rows a question, where names are searched here

/** @typedef {{id: string, get: (field: string) => any}} Row */
/** @typedef {{filter: string, order_by: string, columns: string[], deleted: boolean, archived: string, search: string, pins: string[]}} Question */

/**
 * @param {(error: Error | null) => void} onChange  rows have come, or could not
 */
export function rowSource(onChange) {
  /** @type {Question | null} */
  let question = null;
  /** @type {Map<number, Row[]>} */
  let windows = new Map();
  /** @type {Set<number>} */
  let asked = new Set();
  /** @type {Row[]} */
  let pinned = [];
  /** @type {Row[] | null} all of them, where names are searched */
  let found = null;
  let total = 0;
  let isLoaded = false;
  let stop = new AbortController();

  /** @param {Record<string, any>} more */
  const ask = (more) => {
    const { order_by, columns, deleted, archived } = /** @type {Question} */ (question);
    return get("runs", { order_by, columns, deleted, archived, ...more }, { signal: stop.signal });
  };

  /** @param {any} answer @returns {Row[]} */
  const rowsOf = (answer) => answer.ids.map((/** @type {string} */ id, /** @type {number} */ i) => ({
    id, get: (/** @type {string} */ field) => (field === "id" ? id : answer.columns[field]?.[i]),
  }));

  /** The question without the runs that stay on top. */
  const rest = () => {
    const { filter, pins } = /** @type {Question} */ (question);
    return every(filter, pins.length ? `not (${among("id", pins)})` : "");
  };

  /** @param {number} index of the window */
  async function fetchWindow(index) {
    if (asked.has(index)) return;
    asked.add(index);
    const signal = stop.signal;
    try {
      const answer = await ask({ filter: rest(), offset: index * WINDOW, limit: WINDOW });
      if (signal.aborted) return;
      windows.set(index, rowsOf(answer));
      total = answer.total;
      isLoaded = true;
      onChange(null);
    } catch (error) {
      if (signal.aborted) return;
      asked.delete(index);
      onChange(/** @type {Error} */ (error));
    }
  }

  async function fetchPinned() {
    const { pins } = /** @type {Question} */ (question);
    const signal = stop.signal;
    if (!pins.length) return void (pinned = []);
    const answer = await ask({ filter: among("id", pins), limit: pins.length, order_by: "", archived: "all", deleted: false });
    if (signal.aborted) return;
    const rows = rowsOf(answer);
    pinned = pins.flatMap((id) => rows.find((row) => row.id === id) ?? []);
  }

  async function fetchFound() {
    const { search } = /** @type {Question} */ (question);
    const { test } = pattern(search);
    const signal = stop.signal;
    /** @type {Row[]} */
    const rows = [];
    for (let offset = 0; ; offset += WHOLE) {
      const answer = await ask({ filter: rest(), offset, limit: WHOLE });
      if (signal.aborted) return;
      rows.push(...rowsOf(answer));
      if (rows.length >= answer.total || answer.ids.length === 0) break;
    }
    found = rows.filter((row) => test(row.get("name") ?? row.id));
    total = found.length;
    isLoaded = true;
    onChange(null);
  }

  return {
    /** @param {Question} next */
    async open(next) {
      stop.abort();
      stop = new AbortController();
      question = next;
      asked = new Set();
      const { signal } = stop;
      const isSearch = !!next.search && !pattern(next.search).error;
      try {
        // what is shown stays until the answer is here
        const pins = fetchPinned();
        if (isSearch) await Promise.all([pins, fetchFound()]);
        else {
          asked.add(0);
          const [answer] = await Promise.all([ask({ filter: rest(), offset: 0, limit: WINDOW }), pins]);
          if (signal.aborted) return;
          found = null;
          windows = new Map([[0, rowsOf(answer)]]);
          total = answer.total;
          isLoaded = true;
          onChange(null);
        }
      } catch (error) {
        if (!signal.aborted) onChange(/** @type {Error} */ (error));
      }
    },
    /** Ask again for what is held, such as after a change. */
    async renew() {
      if (question) await this.open(question);
    },
    get total() {
      return total + pinned.length;
    },
    get pinned() {
      return pinned.length;
    },
    get isLoaded() {
      return isLoaded;
    },
    /** The row at a place; nothing while it is being fetched. @param {number} index @returns {Row | undefined} */
    at(index) {
      if (index < pinned.length) return pinned[index];
      const place = index - pinned.length;
      if (found) return found[place];
      const rows = windows.get(Math.floor(place / WINDOW));
      if (!rows && place < total) void fetchWindow(Math.floor(place / WINDOW));
      return rows?.[place % WINDOW];
    },
    /** A row that is held. @param {string} id @returns {Row | undefined} */
    byId(id) {
      for (const rows of [pinned, found ?? [], ...windows.values()]) {
        const row = rows.find((each) => each.id === id);
        if (row) return row;
      }
      return undefined;
    },
    close: () => stop.abort(),
  };
}
