/** Media and texts of one run by step. */

import { fill } from "../core/h.js";
import { mediaBoard } from "./media_board.js";

/** @param {import("./run.js").Place} place */
export function media({ run, body, signal }) {
  const board = mediaBoard({ signal, none: "This run logged no media." });
  fill(body, board.element);
  const load = () => void board.load([{ id: run.id, label: run.name }]);
  load();
  return { update: load };
}
