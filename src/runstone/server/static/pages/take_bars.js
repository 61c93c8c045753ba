/** What one may do with bars: as with any figure. */

import { enlarge, svgPicture, svgText, takeTools } from "./take.js";

/**
 * @param {object} how
 * @param {string} how.title
 * @param {SVGSVGElement} how.drawing
 * @param {any[]} how.edges  of numbers one more than bars, of words as many
 * @param {number[]} how.after
 * @param {number[] | null} [how.before]
 * @param {() => string} how.python
 */
export function barTools({ title, drawing, edges, after, before = null, python }) {
  const isWords = edges.length === after.length;
  return takeTools({
    title, python, large: () => enlarge(title, drawing), picture: () => svgPicture(drawing, title), vector: () => svgText(drawing),
    numbers: () => ({
      heads: [...(isWords ? ["value"] : ["from", "to"]), ...(before ? ["before", "now"] : ["count"])],
      rows: after.map((n, i) => [...(isWords ? [edges[i]] : [edges[i], edges[i + 1]]), ...(before ? [before[i]] : []), n]),
    }),
  });
}
