/**
 * HTML that the server made of a report, as elements: only what a report consists of, made anew, so that nothing else
 * gets into the page whatever the text says.
 */

import { h } from "../core/h.js";

const TAGS = new Set(["a", "b", "blockquote", "br", "code", "dd", "del", "details", "div", "dl", "dt", "em", "figcaption", "figure", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "i", "img", "li", "ol", "p", "pre", "s", "section", "small", "span", "strong", "sub", "summary", "sup", "table", "tbody", "td", "th", "thead", "tr", "ul"]);
const NOTHING = new Set(["style", "svg", "math", "iframe", "object", "template", "noscript", "textarea", "select"]);
const ATTRIBUTES = new Set(["title", "role", "scope", "colspan", "rowspan", "aria-label", "start", "alt", "open", "id"]);
const COLOUR = /^(?:#[0-9a-f]{3,8}|var\(--[a-z0-9-]+\)|rgba?\([\d., ]+\)|hsl\([\d.,% ]+\))$/i;
const FIGURE = "application/json"; // type of the scripts that hold figures, which no browser runs

/** @param {string} text @returns {Node[]} */
export function fromHtml(text) {
  return children(new DOMParser().parseFromString(text, "text/html").body);
}

/** @param {Element} of @returns {Node[]} */
const children = (of) => [...of.childNodes].flatMap(made);

/** @param {ChildNode} node @returns {Node[]} */
function made(node) {
  if (node instanceof Text) return [document.createTextNode(node.data)];
  if (!(node instanceof Element)) return [];
  const tag = node.tagName.toLowerCase();
  if (tag === "script") return node.getAttribute("type") === FIGURE ? [h("span", { hidden: true, data: { figure: node.textContent ?? "" } })] : [];
  if (NOTHING.has(tag)) return [];
  if (!TAGS.has(tag)) return children(node);
  const element = h(tag, null, children(node));
  for (const { name, value } of [...node.attributes]) if (ATTRIBUTES.has(name)) element.setAttribute(name, value);
  for (const name of node.classList) if (/^(rs-|num$|gone$)/.test(name)) element.classList.add(name);
  const style = /** @type {HTMLElement} */ (node).style;
  const ground = style.getPropertyValue("background") || style.getPropertyValue("background-color");
  if (COLOUR.test(ground)) element.style.background = ground;
  if (/^[\d.]+px$/.test(style.minHeight)) element.style.minHeight = style.minHeight;
  const address = node.getAttribute("href") ?? "";
  if (tag === "a" && /^(https?:|mailto:|#)/i.test(address)) Object.assign(element, { href: address, rel: "noopener noreferrer", ...(address.startsWith("#") ? {} : { target: "_blank" }) });
  const source = node.getAttribute("src") ?? "";
  if (tag === "img" && /^data:image\/(png|jpeg|gif|webp|svg\+xml);/i.test(source)) element.src = source;
  return [element];
}
