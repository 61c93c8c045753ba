/**
 * Elements. `h()` is the only way in which the page makes them: text always becomes text, never markup.
 */

/** @typedef {Node | string | number | null | undefined | false | any[]} Child  lists may hold lists */

/**
 * @param {string} tag  an element's name, with classes after dots: `"div.card.wide"`
 * @param {Record<string, any> | null} [props]  `on…` functions are listeners, `data` and `style` objects; `aria-…`, `role`
 *   and other names with a dash are attributes, the rest properties; `null`, `undefined` and `false` leave an attribute out
 * @param {...Child} children
 * @returns {any}  the element
 */
export function h(tag, props, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElement(name);
  if (classes.length) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(props ?? {})) set(element, key, value);
  add(element, children);
  return element;
}

/** @param {any} element @param {string} key @param {any} value */
function set(element, key, value) {
  // not as a property: what such a function returns would decide whether the browser goes on
  if (key.startsWith("on") && typeof value === "function") element.addEventListener(key.slice(2), value);
  else if (key === "class") element.classList.add(...String(value).split(" ").filter(Boolean));
  else if (key === "data") Object.assign(element.dataset, value);
  else if (key === "style") for (const [k, v] of Object.entries(value)) element.style.setProperty(k, String(v));
  else if (key.includes("-") || key === "role" || key === "for" || key === "list" || !(key in element)) {
    if (value === false && !key.startsWith("aria-")) return;
    if (value !== null && value !== undefined) element.setAttribute(key, String(value));
  } else if (value !== undefined && value !== null) element[key] = value;
}

/** @param {Node} element @param {Child[]} children */
function add(element, children) {
  for (const child of children) {
    if (Array.isArray(child)) add(element, child);
    else if (child instanceof Node) element.appendChild(child);
    else if (child !== null && child !== undefined && child !== false) element.appendChild(document.createTextNode(String(child)));
  }
}

/**
 * Put other children into an element.
 * @param {Element} element
 * @param {...Child} children
 */
export function fill(element, ...children) {
  element.replaceChildren();
  add(element, children);
  return element;
}

/** Shapes of 16 × 16, drawn as lines. */
const ICONS = {
  alert: "M8 2 14.5 13.5h-13zM8 6.5v3.2M8 11.6v.2",
  artifact: "M2.5 5 8 2l5.5 3v6L8 14l-5.5-3zM2.5 5 8 8l5.5-3M8 8v6",
  baseline: "M2 8h12M5 5v6M11 5v6",
  chart: "M2 2v12h12M4.5 10l3-3.5 2.5 2L14 4",
  check: "M3 8.5l3.2 3.2L13 5",
  close: "M4 4l8 8M12 4l-8 8",
  columns: "M2.5 3h11v10h-11zM6.2 3v10M9.8 3v10",
  compare: "M5 2v12M11 2v12M2 5h3M11 5h3M2 11h3M11 11h3",
  copy: "M5.5 5.5h8v8h-8zM3 10.5h-.5v-8h8V3",
  data: "M2.5 4c0-2.4 11-2.4 11 0v8c0 2.4-11 2.4-11 0zM2.5 4c0 2.4 11 2.4 11 0M2.5 8c0 2.4 11 2.4 11 0",
  down: "M4 6l4 4 4-4",
  download: "M8 2v8M4.5 7 8 10.5 11.5 7M2.5 13.5h11",
  eye: "M1.5 8C4 3.4 12 3.4 14.5 8 12 12.6 4 12.6 1.5 8zM8 6.2a1.8 1.8 0 1 1 0 3.6 1.8 1.8 0 0 1 0-3.6z",
  filter: "M2 3h12L9.5 8.5V13l-3-1.5v-3z",
  full: "M2.5 6V2.5H6M10 2.5h3.5V6M13.5 10v3.5H10M6 13.5H2.5V10",
  graph: "M3.5 4.5a1.6 1.6 0 1 0 0-.1zM12.5 4.5a1.6 1.6 0 1 0 0-.1zM8 12.6a1.6 1.6 0 1 0 0-.1zM5 5.5l2.4 5.3M11 5.5l-2.4 5.3",
  group: "M2.5 4h11M5 8h8.5M7.5 12h6",
  help: "M5.8 6a2.2 2.2 0 1 1 3.2 2c-.7.4-1 .8-1 1.6M8 11.8v.2",
  left: "M10 4 6 8l4 4",
  link: "M6.5 9.5l3-3M7 4.5l1.5-1.5a3 3 0 0 1 4.3 4.3L11.5 9M9 11.5 7.5 13a3 3 0 0 1-4.3-4.3L4.5 7",
  menu: "M3 4.5h10M3 8h10M3 11.5h10",
  minus: "M3 8h10",
  model: "M8 1.8 13.5 5v6L8 14.2 2.5 11V5zM8 5.2v5.6M5.2 6.8l5.6 2.6M10.8 6.8 5.2 9.4",
  monitor: "M1.5 8.5h3L6.5 4l3 8 2-3.5h3",
  moon: "M13 9.6A5.6 5.6 0 1 1 6.4 3 4.5 4.5 0 0 0 13 9.6z",
  more: "M3.5 8h.1M8 8h.1M12.5 8h.1",
  pin: "M6 2h4l-.5 5 2 2H4.500l2-2zM8 9v5",
  plus: "M8 3v10M3 8h10",
  redo: "M12.5 5.5A5 5 0 1 0 13 9.500M13 2.500v3.300H9.700",
  report: "M3.500 2h6l3 3v9h-9zM9.500 2v3h3M5.500 8h5M5.500 10.800h5",
  right: "M6 4l4 4-4 4",
  save: "M3 2.500h8l2 2v9H3zM5.500 2.500v3.500h4.500V2.500M5.500 13.500V9.500h5v4",
  search: "M7 2.500a4.500 4.500 0 1 1 0 9 4.500 4.500 0 0 1 0-9zM10.300 10.300 14 14",
  stop: "M4 4h8v8H4z",
  sun: "M8 5a3 3 0 1 1 0 6 3 3 0 0 1 0-6zM8 1v1.500M8 13.500V15M1 8h1.500M13.500 8H15M3 3l1 1M12 12l1 1M3 13l1-1M12 4l1-1",
  sweep: "M2.500 13.500c2-9 4-9 5.500-4s3 3 5.500-6M12.500 3.500h.1",
  table: "M2.500 3h11v10h-11zM2.500 6.300h11M2.500 9.700h11",
  tag: "M2.500 2.500h5l6 6-5 5-6-6zM5.500 5.500h.1",
  trash: "M3 4.500h10M6 4.500V2.500h4v2M4.500 4.500l.5 9h6l.5-9",
  up: "M4 10l4-4 4 4",
  user: "M8 2.500a2.700 2.700 0 1 1 0 5.400 2.700 2.700 0 0 1 0-5.400zM2.800 14c.6-5 9.800-5 10.400 0",
};

/**
 * @param {keyof typeof ICONS} name
 * @returns {SVGElement}  said to nobody: the control around it has the name
 */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/**
 * A button that shows only an icon.
 * @param {keyof typeof ICONS} name
 * @param {string} label  its accessible name, and what hovering shows
 * @param {(event: MouseEvent) => void} onclick
 * @param {Record<string, any>} [props]
 */
export function iconButton(name, label, onclick, props = {}) {
  return h("button.icon-button", { type: "button", "aria-label": label, title: label, onclick, ...props }, icon(name));
}

/** Do something once what is there now has been painted: whoever waits for it sees it before. @param {() => void} action */
export function afterPaint(action) {
  requestAnimationFrame(() => setTimeout(action));
}
