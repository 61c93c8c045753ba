/** Where the nodes of a lineage lie: layers from left to right, each node behind all that it came of. Pure. */

export const NODE_WIDTH = 190;
export const NODE_HEIGHT = 40;
const ACROSS = 70; // between layers
const DOWN = 14; // between nodes
const ROUNDS = 6;

/**
 * @typedef {{id: string, layer: number, x: number, y: number}} Spot  its upper left corner
 * @param {string[]} ids
 * @param {[string, string][]} edges  from, to
 * @returns {{spots: Map<string, Spot>, width: number, height: number}}
 */
export function arrangeLineage(ids, edges) {
  const known = new Set(ids);
  const forward = withoutCycles(ids, edges.filter(([a, b]) => a !== b && known.has(a) && known.has(b)));
  const layer = layersOf(ids, forward);
  const count = ids.length ? Math.max(...layer.values()) + 1 : 0;
  /** @type {string[][]} */
  const layers = Array.from({ length: count }, () => []);
  for (const id of ids) layers[/** @type {number} */ (layer.get(id))].push(id);
  const before = neighbours(ids, forward.map(([a, b]) => [b, a]));
  const after = neighbours(ids, forward);
  /** @type {Map<string, number>} */
  const place = new Map();
  const number = () => layers.forEach((all) => all.forEach((id, i) => place.set(id, i - (all.length - 1) / 2)));
  number();
  for (let round = 0; round < ROUNDS; round++) {
    const [near, order] = round % 2 ? [after, [...layers].reverse()] : [before, layers];
    for (const all of order) {
      const middle = new Map(all.map((id) => {
        const those = /** @type {string[]} */ (near.get(id));
        return [id, those.length ? those.reduce((sum, each) => sum + /** @type {number} */ (place.get(each)), 0) / those.length : /** @type {number} */ (place.get(id))];
      }));
      all.sort((a, b) => /** @type {number} */ (middle.get(a)) - /** @type {number} */ (middle.get(b)));
      all.forEach((id, i) => place.set(id, i - (all.length - 1) / 2));
    }
  }
  const most = Math.max(0, ...layers.map((all) => all.length));
  const height = most * (NODE_HEIGHT + DOWN) - DOWN;
  const spots = new Map();
  layers.forEach((all, k) => all.forEach((id) => spots.set(id, {
    id, layer: k, x: k * (NODE_WIDTH + ACROSS), y: height / 2 - NODE_HEIGHT / 2 + /** @type {number} */ (place.get(id)) * (NODE_HEIGHT + DOWN),
  })));
  return { spots, width: Math.max(0, count * (NODE_WIDTH + ACROSS) - ACROSS), height: Math.max(0, height) };
}

/** @param {string[]} ids @param {[string, string][]} edges @returns {Map<string, string[]>} */
function neighbours(ids, edges) {
  /** @type {Map<string, string[]>} */
  const found = new Map(ids.map((id) => [id, []]));
  for (const [a, b] of edges) /** @type {string[]} */ (found.get(a)).push(b);
  return found;
}

/** Edges without those that lead back: a lineage has none, but what somebody wrote may. @param {string[]} ids @param {[string, string][]} edges */
function withoutCycles(ids, edges) {
  const after = neighbours(ids, edges);
  const state = new Map(); // 1: on the way, 2: done
  /** @type {Set<string>} */
  const back = new Set();
  for (const start of ids) {
    /** @type {[string, number][]} */
    const way = state.has(start) ? [] : [[start, 0]];
    if (way.length) state.set(start, 1);
    while (way.length) {
      const top = way[way.length - 1];
      const next = /** @type {string[]} */ (after.get(top[0]))[top[1]++];
      if (next === undefined) {
        state.set(top[0], 2);
        way.pop();
      } else if (state.get(next) === 1) back.add(`${top[0]}\n${next}`);
      else if (!state.has(next)) {
        state.set(next, 1);
        way.push([next, 0]);
      }
    }
  }
  return edges.filter(([a, b]) => !back.has(`${a}\n${b}`));
}

/** The longest way to each node from any that came of nothing. @param {string[]} ids @param {[string, string][]} edges */
function layersOf(ids, edges) {
  const after = neighbours(ids, edges);
  const open = new Map(ids.map((id) => [id, 0]));
  for (const [, b] of edges) open.set(b, /** @type {number} */ (open.get(b)) + 1);
  const layer = new Map(ids.map((id) => [id, 0]));
  const ready = ids.filter((id) => !open.get(id));
  for (let at = 0; at < ready.length; at++) {
    const id = ready[at];
    for (const next of /** @type {string[]} */ (after.get(id))) {
      layer.set(next, Math.max(/** @type {number} */ (layer.get(next)), /** @type {number} */ (layer.get(id)) + 1));
      open.set(next, /** @type {number} */ (open.get(next)) - 1);
      if (!open.get(next)) ready.push(next);
    }
  }
  // what came of nothing lies just before what came of it, not at the far left
  for (const id of [...ready].reverse()) {
    const next = /** @type {string[]} */ (after.get(id));
    if (next.length) layer.set(id, Math.max(/** @type {number} */ (layer.get(id)), Math.min(...next.map((each) => /** @type {number} */ (layer.get(each)))) - 1));
  }
  return layer;
}

/** All that lies before and behind a node, itself too. @param {string} id @param {[string, string][]} edges */
export function kin(id, edges) {
  const found = new Set([id]);
  for (const [from, to] of [[0, 1], [1, 0]]) {
    const seen = new Set([id]);
    const waiting = [id];
    /** @type {Map<string, string[]>} */
    const steps = new Map();
    for (const edge of edges) steps.set(edge[from], [...(steps.get(edge[from]) ?? []), edge[to]]);
    for (let at = 0; at < waiting.length; at++) {
      for (const next of steps.get(waiting[at]) ?? []) if (!seen.has(next)) { seen.add(next); waiting.push(next); }
    }
    for (const each of seen) found.add(each);
  }
  return found;
}
