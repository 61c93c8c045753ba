/** Rows of the run table, fetched in windows as they come into view. The server filters and sorts. */

import { get } from "../core/api.js";
import { pattern } from "../core/pattern.js";
import { among, every } from "./columns.js";

const WINDOW = 200;
const FOUND_WINDOW = 100; // of those whose names fit: each is named in the question
const WHOLE = 20_000; // names a question

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
  /** @type {string[] | null} ids of the runs whose names fit, where names are searched */
  let found = null;
  /** @type {Map<string, Row>} of those, what is held */
  let foundRows = new Map();
  /** @type {Promise<[string, string][]> | null} id and name of every run of the question, whatever its name */
  let names = null;
  let leave = new AbortController(); // the names
  let total = 0;
  let isLoaded = false;
  let stop = new AbortController();

  /** @param {Record<string, any>} more @param {AbortSignal} [signal] */
  const ask = (more, signal = stop.signal) => {
    const { order_by, columns, deleted, archived } = /** @type {Question} */ (question);
    return get("runs", { order_by, columns, deleted, archived, ...more }, { signal });
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

  /** Asked for once, and not again with every letter that is typed. */
  function allNames() {
    names ??= fetchNames().catch((error) => {
      names = null;
      throw error;
    });
    return names;
  }

  /** @returns {Promise<[string, string][]>} */
  async function fetchNames() {
    const { signal } = leave;
    /** @type {[string, string][]} */
    const known = [];
    for (;;) {
      const answer = await ask({ filter: rest(), columns: ["name"], offset: known.length, limit: WHOLE }, signal);
      answer.ids.forEach((/** @type {string} */ id, /** @type {number} */ i) => known.push([id, answer.columns.name[i] ?? id]));
      if (known.length >= answer.total || answer.ids.length === 0) return known;
    }
  }

  /** Rows of the found ones around a place. @param {string[]} ids @param {number} place */
  async function fetchFoundRows(ids, place) {
    const from = Math.floor(place / FOUND_WINDOW) * FOUND_WINDOW;
    const wanted = ids.slice(from, from + FOUND_WINDOW).filter((id) => !foundRows.has(id));
    if (!wanted.length || asked.has(-1 - from)) return;
    asked.add(-1 - from);
    const into = foundRows;
    for (const row of rowsOf(await ask({ filter: among("id", wanted), limit: wanted.length }))) into.set(row.id, row);
  }

  async function fetchFound() {
    const { search } = /** @type {Question} */ (question);
    const { test } = pattern(search);
    const signal = stop.signal;
    const ids = (await allNames()).filter(([, name]) => test(name)).map(([id]) => id);
    if (signal.aborted) return;
    for (const rows of windows.values()) for (const row of rows) foundRows.set(row.id, row);
    await fetchFoundRows(ids, 0);
    if (signal.aborted) return;
    found = ids;
    total = ids.length;
    isLoaded = true;
    onChange(null);
  }

  return {
    /** @param {Question} next */
    async open(next) {
      stop.abort();
      stop = new AbortController();
      // what is held serves another search for names; asked the same again, something has changed
      const isSearchOnly = !!question && question.search !== next.search && JSON.stringify({ ...question, search: "" }) === JSON.stringify({ ...next, search: "" });
      question = next;
      asked = new Set();
      if (!isSearchOnly) {
        leave.abort();
        leave = new AbortController();
        names = null;
        foundRows = new Map();
      }
      const { signal } = stop;
      const isSearch = !!next.search && !pattern(next.search).error;
      try {
        // what is shown stays until the answer is here
        const pins = fetchPinned();
        if (isSearch) {
          if (!isSearchOnly) windows = new Map();
          await Promise.all([pins, fetchFound()]);
        } else {
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
      if (found) {
        const id = found[place];
        if (id && !foundRows.has(id)) void fetchFoundRows(found, place).then(() => onChange(null), onChange);
        return foundRows.get(id);
      }
      const rows = windows.get(Math.floor(place / WINDOW));
      if (!rows && place < total) void fetchWindow(Math.floor(place / WINDOW));
      return rows?.[place % WINDOW];
    },
    /** A row that is held. @param {string} id @returns {Row | undefined} */
    byId(id) {
      for (const rows of [pinned, ...windows.values()]) {
        const row = rows.find((each) => each.id === id);
        if (row) return row;
      }
      return foundRows.get(id);
    },
    /** Names are about to be searched. */
    prepare() {
      if (question) allNames().catch(() => {}); // the search itself tells of it
    },
    close() {
      stop.abort();
      leave.abort();
    },
  };
}
