/** What one may do with any figure: look at it large, take it along as a picture, as numbers, as Python, read it as a table. */

import { h, icon, iconButton } from "../core/h.js";
import { copyText, dialog, menu, saveFile } from "../core/notice.js";
import { ground, HEAD, saveRows } from "../core/taking.js";

const TABLE_ROWS = 2000;
const SCALE = 2; // of pictures: sharp on paper, too
const STYLES = ["fill", "stroke", "stroke-width", "opacity", "font", "text-anchor"];

/**
 * @typedef {object} Takeable
 * @property {string} title
 * @property {() => {heads: string[], rows: any[][]}} numbers
 * @property {() => string} python  code that makes the same figure
 * @property {() => Promise<Blob | null>} picture  PNG
 * @property {() => Promise<string> | string} [vector]  SVG
 * @property {() => void} large
 */

/**
 * The controls of a figure. @param {Takeable} of
 */
export function takeTools(of) {
  const { title } = of;
  return h("span.card-tools.take", null,
    iconButton("table", `${title} as a table`, () => showNumbers(title, of.numbers())),
    iconButton("full", `${title}, full screen`, () => of.large()),
    iconButton("more", `More for ${title}`, (event) => menu(/** @type {Element} */ (event.currentTarget), takeItems(of))));
}

/** @param {Takeable} of @returns {import("../core/notice.js").Item[]} */
export function takeItems({ title, numbers, python, picture, vector }) {
  return [
    { label: "Download PNG", icon: "download", run: () => void picture().then((blob) => blob && saveFile(blob, `${title}.png`)) },
    ...(vector ? [{ label: "Download SVG", icon: "download", run: () => void Promise.resolve(vector()).then((text) => saveFile(new Blob([text], { type: "image/svg+xml" }), `${title}.svg`)) }] : []),
    { label: "Download CSV", icon: "download", run: () => saveNumbers(title, numbers()) },
    { label: "Copy Python", icon: "copy", run: () => void copyText(python(), "Python code") },
    { label: "Show as table", icon: "table", run: () => showNumbers(title, numbers()) },
  ];
}

/** @param {string} title @param {{heads: string[], rows: any[][]}} numbers */
function saveNumbers(title, { heads, rows }) {
  saveRows(title, [heads, ...rows]);
}

/** For whoever cannot see shapes. @param {string} title @param {{heads: string[], rows: any[][]}} numbers */
export function showNumbers(title, { heads, rows }) {
  dialog(title, () => [
    h("div.row-of", null, h("button", { type: "button", onclick: () => saveNumbers(title, { heads, rows }) }, icon("download"), "CSV"),
      h("span.faint", null, `${rows.length.toLocaleString("en-US")} rows${rows.length > TABLE_ROWS ? `, ${TABLE_ROWS} shown` : ""}`)),
    h("div.scroll", null, h("table.plain", { "aria-label": title }, h("thead", null, h("tr", null, heads.map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", null, rows.slice(0, TABLE_ROWS).map((row) => h("tr", null, row.map((value) => h("td", null, value === null || value === undefined ? "" : String(value)))))))),
  ], { wide: true });
}

/**
 * Show an element over the whole page, and put it back where it was.
 * @param {string} title
 * @param {HTMLElement | SVGElement} element
 */
export function enlarge(title, element) {
  const place = h("span", { hidden: true });
  const { height } = element.style;
  element.replaceWith(place);
  element.style.height = "calc(100dvh - 130px)";
  dialog(title, () => element, { full: true, onclose: () => {
    element.style.height = height;
    place.replaceWith(element);
  } });
}

/** A canvas on the ground of the page, below its title. @param {HTMLCanvasElement} canvas @param {string} title @returns {Promise<Blob | null>} */
export function canvasPicture(canvas, title) {
  const ratio = devicePixelRatio || 1;
  const [width, height] = [canvas.width / ratio, canvas.height / ratio];
  const { sheet, g } = ground(width, height + HEAD, ratio, canvas, title);
  g.drawImage(canvas, 0, HEAD, width, height);
  return new Promise((done) => sheet.toBlob(done));
}

/** An SVG with its colours in it. @param {SVGSVGElement} drawing */
export function svgText(drawing) {
  const copy = /** @type {SVGSVGElement} */ (drawing.cloneNode(true));
  const [of, to] = [[drawing, ...drawing.querySelectorAll("*")], [copy, ...copy.querySelectorAll("*")]];
  of.forEach((element, i) => {
    const style = getComputedStyle(element);
    for (const name of STYLES) /** @type {SVGElement} */ (to[i]).style.setProperty(name, style.getPropertyValue(name));
  });
  const { width, height } = drawing.getBoundingClientRect();
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  copy.setAttribute("width", String(Math.round(width)));
  copy.setAttribute("height", String(Math.round(height)));
  return new XMLSerializer().serializeToString(copy);
}

/** @param {SVGSVGElement} drawing @param {string} title @returns {Promise<Blob | null>} */
export async function svgPicture(drawing, title) {
  const { width, height } = drawing.getBoundingClientRect();
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svgText(drawing))}`;
  await image.decode();
  const { sheet, g } = ground(width, height + HEAD, SCALE, drawing, title);
  g.drawImage(image, 0, HEAD, width, height);
  return new Promise((done) => sheet.toBlob(done));
}
