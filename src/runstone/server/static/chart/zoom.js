/** Ranges of x that charts go through together, or each alone. */

import { store } from "../core/state.js";

/**
 * @typedef {object} Zoom
 * @property {(change: {x: [number, number] | null, keep: boolean, owner: any}) => void} set
 * @property {(owner: any) => void} back
 * @property {number} wait_ms  how long to wait before fetching what a change of the shared range asks for
 */

const FETCH_AFTER_MS = 90; // a wheel turns many times before it rests

/** @returns {Zoom} */
export function zooming() {
  /** @type {{owner: any, x: [number, number] | null}[]} */
  const past = [];

  /** @param {any} owner @param {[number, number] | null} x @param {number} wait_ms */
  function go(owner, x, wait_ms) {
    if (store.state.sync) {
      api.wait_ms = wait_ms;
      store.set({ zoom: x, tail: false }, { replace: true }); // whose watchers draw the charts again
      api.wait_ms = 0;
    } else {
      owner.setOwnX(x);
      owner.refresh(wait_ms);
    }
  }

  const api = {
    wait_ms: 0,
    /** @param {{x: [number, number] | null, keep: boolean, owner: any}} change */
    set({ x, keep, owner }) {
      const before = store.state.sync ? store.state.zoom : owner.ownX;
      if (x && !(x[1] > x[0])) return;
      if (keep && String(before) !== String(x)) past.push({ owner, x: before });
      go(owner, x, keep ? 0 : FETCH_AFTER_MS);
    },
    /** @param {any} owner */
    back(owner) {
      const index = store.state.sync ? past.length - 1 : past.findLastIndex((each) => each.owner === owner);
      if (index < 0) return go(owner, null, 0);
      const [{ x }] = past.splice(index, 1);
      go(owner, x, 0);
    },
  };
  return api;
}
