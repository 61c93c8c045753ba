/** What is taken along from a page: rows as a CSV file, and the ground of a picture with its title. */

import { csvCell } from "./format.js";
import { h } from "./h.js";
import { saveFile } from "./notice.js";

export const HEAD = 34; // pixels of a picture that its title takes

/** @param {string} name  of the file, without its ending @param {any[][]} rows  the first has the heads */
export function saveRows(name, rows) {
  saveFile(new Blob([rows.map((row) => row.map(csvCell).join(",")).join("\r\n"), "\r\n"], { type: "text/csv" }), `${name}.csv`);
}

/**
 * A canvas as large as a picture is to be, with the colour of the page and the title in it.
 * @param {number} width
 * @param {number} height
 * @param {number} ratio  pixels of it for one of the page
 * @param {Element} styled  where the colours of the theme are read
 * @param {string} title
 */
export function ground(width, height, ratio, styled, title) {
  const style = getComputedStyle(styled);
  const sheet = h("canvas", { width: Math.round(width * ratio), height: Math.round(height * ratio) });
  const g = sheet.getContext("2d");
  g.scale(ratio, ratio);
  g.fillStyle = style.getPropertyValue("--surface");
  g.fillRect(0, 0, width, height);
  g.fillStyle = style.getPropertyValue("--text");
  g.font = "600 14px system-ui, sans-serif";
  g.fillText(title, 10, 22, width - 20);
  return { sheet, g };
}
