/**
 * The state of the page and its URL, each made from the other. What is in the store can be linked to, and Back undoes it.
 */

/**
 * How one field stands in the URL.
 * @template T
 * @typedef {object} Field
 * @property {T} fallback  its value when the URL does not name it
 * @property {(text: string) => T} parse
 * @property {(value: T) => string} format
 * @property {boolean} [remembered]  the browser keeps it over visits
 */

/** @param {string} [fallback] @param {{remembered?: boolean}} [how] @returns {Field<string>} */
export const text = (fallback = "", how = {}) => ({ fallback, parse: String, format: String, ...how });

/** @param {boolean} [fallback] @param {{remembered?: boolean}} [how] @returns {Field<boolean>} */
export const flag = (fallback = false, how = {}) => ({ fallback, parse: (t) => t === "1", format: (v) => (v ? "1" : "0"), ...how });

/** @param {number} [fallback] @param {{remembered?: boolean}} [how] @returns {Field<number>} */
export const number = (fallback = 0, how = {}) => ({
  fallback,
  parse: (t) => (Number.isFinite(Number(t)) ? Number(t) : fallback),
  format: String,
  ...how,
});

/**
 * Texts joined by commas; a comma inside one follows a backslash.
 * @param {string[]} [fallback]
 * @param {{remembered?: boolean}} [how]
 * @returns {Field<string[]>}
 */
export const list = (fallback = [], how = {}) => ({
  fallback,
  parse: (t) => (t === "" ? [] : (t.match(/(?:\\.|[^,\\])+/g) ?? []).map((part) => part.replace(/\\(.)/g, "$1"))),
  format: (v) => v.map((part) => part.replace(/[\\,]/g, "\\$&")).join(","),
  ...how,
});

/** Two numbers, or nothing: a range of an axis. @returns {Field<[number, number] | null>} */
export const range = () => ({
  fallback: null,
  parse: (t) => {
    const [a, b] = t.split("~").map(Number);
    return Number.isFinite(a) && Number.isFinite(b) && a < b ? [a, b] : null;
  },
  format: (v) => (v ? `${v[0]}~${v[1]}` : ""),
});

/**
 * @param {Record<string, Field<any>>} fields
 * @param {{location: Location, history: History, addEventListener: Window["addEventListener"], localStorage?: Storage}} [host]
 */
export function createStore(fields, host = window) {
  /** @type {Set<{keys: Set<string>, react: (state: any, changed: Set<string>) => void}>} */
  const watchers = new Set();
  const kept = remembered();
  let state = read(host.location.search);

  host.addEventListener("popstate", () => become(read(host.location.search)));

  /** @returns {Record<string, any>} */
  function remembered() {
    try {
      return JSON.parse(host.localStorage?.getItem("runstone") ?? "{}");
    } catch {
      return {}; // storage may be forbidden, or hold what an older page wrote
    }
  }

  /** @param {string} search */
  function read(search) {
    const params = new URLSearchParams(search);
    return Object.fromEntries(Object.entries(fields).map(([key, field]) => {
      const given = params.get(key);
      if (given !== null) return [key, field.parse(given)];
      return [key, field.remembered && key in kept ? field.parse(kept[key]) : field.fallback];
    }));
  }

  /** @param {Record<string, any>} next */
  function search(next) {
    const params = new URLSearchParams();
    for (const [key, field] of Object.entries(fields)) {
      const value = field.format(next[key]);
      if (value !== field.format(field.fallback)) params.set(key, value);
    }
    const query = params.toString();
    return query ? `?${query.replaceAll("%2C", ",").replaceAll("%2F", "/")}` : "?";
  }

  /** @param {Record<string, any>} next */
  function become(next) {
    const changed = new Set(Object.keys(fields).filter((key) => fields[key].format(next[key]) !== fields[key].format(state[key])));
    state = next;
    if (!changed.size) return;
    for (const watcher of [...watchers]) {
      if (watchers.has(watcher) && [...changed].some((key) => watcher.keys.has(key))) watcher.react(state, changed);
    }
  }

  return {
    /** @returns {any} the values as they are; not to be changed in place */
    get state() {
      return state;
    },

    /**
     * Change fields. Each change is a step of Back, unless it replaces (what changes many times a second, such as typing).
     * @param {Record<string, any>} patch
     * @param {{replace?: boolean}} [how]
     */
    set(patch, { replace = false } = {}) {
      const next = { ...state, ...patch };
      const query = search(next);
      if (query !== search(state)) host.history[replace ? "replaceState" : "pushState"](null, "", query);
      const keep = Object.keys(patch).filter((key) => fields[key]?.remembered);
      if (keep.length) {
        for (const key of keep) kept[key] = fields[key].format(next[key]);
        try {
          host.localStorage?.setItem("runstone", JSON.stringify(kept));
        } catch {
          // full or forbidden: the page works without being remembered
        }
      }
      become(next);
    },

    /**
     * The URL of another state: the state of now with a change, or with `fresh` only what is remembered and the change.
     * @param {Record<string, any>} patch
     * @param {{fresh?: boolean}} [how]
     */
    href(patch, { fresh = false } = {}) {
      return search({ ...(fresh ? read("") : state), ...patch });
    },

    /** Take over a whole query, such as that of a saved view. @param {string} query */
    open(query) {
      host.history.pushState(null, "", query || "?");
      become(read(query));
    },

    /**
     * Call `react` when one of the fields changes, until the signal says stop.
     * @param {string[]} keys
     * @param {(state: any, changed: Set<string>) => void} react
     * @param {AbortSignal} [signal]
     */
    watch(keys, react, signal) {
      const watcher = { keys: new Set(keys), react };
      watchers.add(watcher);
      signal?.addEventListener("abort", () => watchers.delete(watcher));
    },
  };
}
