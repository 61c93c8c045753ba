/** What Plotly JSON holds: numbers in columns, and which trial a point is of. Pure. */

const KINDS = /** @type {Record<string, any>} */ ({ f8: Float64Array, f4: Float32Array, i4: Int32Array, u4: Uint32Array, i2: Int16Array, u2: Uint16Array, i1: Int8Array, u1: Uint8Array });

/** A column of a trace; numbers may be packed as base64. @param {any} value @returns {any[] | null} */
export function columnOf(value) {
  if (Array.isArray(value)) return value;
  if (value === null || typeof value !== "object" || typeof value.bdata !== "string" || !(value.dtype in KINDS) || value.shape) return null;
  const raw = atob(value.bdata);
  const bytes = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) bytes[i] = raw.charCodeAt(i);
  return [...new KINDS[value.dtype](bytes.buffer)];
}

/** A trace whose columns are lists. @param {any} trace */
export const decoded = (trace) => ({ ...trace, ...Object.fromEntries(["x", "y", "text"].flatMap((key) => {
  const column = columnOf(trace[key]);
  return column ? [[key, column]] : [];
})) });

/** Which trial a point is of, as its text begins. @param {any} text */
const trialOf = (text) => {
  const found = typeof text === "string" ? /^trial (\d+)\b/.exec(text) : null;
  return found ? Number(found[1]) : null;
};

/**
 * A trace with the points of some trials only; the gaps between lines stay.
 * @param {any} trace
 * @param {Set<number> | null} trials  `null`: all
 */
export function kept(trace, trials) {
  if (!trials || !Array.isArray(trace.text) || !trace.text.some((/** @type {any} */ text) => trialOf(text) !== null)) return trace;
  const size = trace.text.length;
  let isShown = false; // a gap belongs to the line before it
  const stays = trace.text.map((/** @type {any} */ text) => {
    const trial = trialOf(text);
    if (trial !== null) isShown = trials.has(trial);
    return isShown;
  });
  /** @param {any} value @returns {any} */
  const cut = (value) => {
    if (Array.isArray(value)) return value.length === size ? value.filter((_, i) => stays[i]) : value;
    if (value !== null && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, key === "colorscale" ? each : cut(each)]));
    return value;
  };
  return cut(trace);
}

/** What the address of a picture holds; a page may not fetch such an address. @param {string} address  `data:TYPE[;base64],…` */
export function blobOf(address) {
  const [head, body] = [address.slice(5, address.indexOf(",")), address.slice(address.indexOf(",") + 1)];
  const isPacked = head.endsWith(";base64");
  const text = isPacked ? atob(body) : decodeURIComponent(body);
  const type = head.split(";")[0];
  return new Blob([isPacked ? Uint8Array.from(text, (letter) => letter.charCodeAt(0)) : text], { type });
}

/** A figure as a table. @param {any[]} traces @returns {{heads: string[], rows: any[][]}} */
export function rowsOf(traces) {
  const rows = traces.flatMap((trace, k) => {
    const name = trace.name ?? String(k + 1);
    const [x, y] = [columnOf(trace.x), columnOf(trace.y)];
    if (trace.type === "contour" || trace.type === "heatmap") {
      return (trace.z ?? []).flatMap((/** @type {any[]} */ line, /** @type {number} */ j) => line.map((z, i) => [name, x?.[i] ?? i, y?.[j] ?? j, z, ""]));
    }
    const text = Array.isArray(trace.text) ? trace.text : [];
    return (y ?? x ?? []).map((_, i) => [name, x?.[i] ?? i, y?.[i] ?? null, "", text[i] ?? ""]).filter((row) => row[2] !== null);
  });
  const hasZ = rows.some((row) => row[3] !== "");
  const hasText = rows.some((row) => row[4] !== "");
  const columns = [0, 1, 2, ...(hasZ ? [3] : []), ...(hasText ? [4] : [])];
  return { heads: columns.map((i) => ["series", "x", "y", "z", "text"][i]), rows: rows.map((row) => columns.map((i) => row[i])) };
}
