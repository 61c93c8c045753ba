/** Elements of SVG, as `h()` makes those of HTML. */

/**
 * @param {string} tag  classes after dots
 * @param {Record<string, any> | null} props  `on…` are listeners, the rest attributes; `null` and `false` leave one out
 * @param {...(Node | string | false | null | undefined | (Node | string | false | null | undefined)[])} children
 * @returns {any}
 */
export function svg(tag, props, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  if (classes.length) element.setAttribute("class", classes.join(" "));
  for (const [key, value] of Object.entries(props ?? {})) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(key, String(value));
  }
  for (const child of children.flat()) if (child) element.append(child);
  return element;
}
