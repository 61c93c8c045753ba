/** A lineage as a drawing that is walked with the pointer or with arrows. */

import { h, iconButton } from "../core/h.js";
import { svg } from "../core/svg.js";
import { arrangeLineage, kin, NODE_HEIGHT, NODE_WIDTH } from "./lineage_layout.js";

const MARGIN = 24;
const LETTERS = 25;
const LEAST_ZOOM = 0.05;
const MOST_ZOOM = 3;
const READABLE = 0.6; // what it begins with at least; the rest is out of view then

/**
 * @param {object} how
 * @param {AbortSignal} how.signal
 * @param {any[]} how.nodes
 * @param {any[][]} how.edges  from, to, role, relation
 * @param {string} how.root
 * @param {(id: string) => void} how.onChoose
 * @param {(id: string) => void} how.onOpen
 */
export function graph({ signal, nodes, edges, root, onChoose, onOpen }) {
  const pairs = /** @type {[string, string][]} */ (edges.map(([from, to]) => [from, to]));
  const { spots, width, height } = arrangeLineage(nodes.map((node) => node.id), pairs);
  const spot = (/** @type {string} */ id) => /** @type {import("./lineage_layout.js").Spot} */ (spots.get(id));
  /** The view: place and scale of the drawing. */
  let [left, top, zoom] = [0, 0, 1];
  let chosen = root;
  /** @type {Map<string, SVGElement>} */
  const drawn = new Map();
  const lines = edges.filter(([from, to]) => spots.has(from) && spots.has(to)).map(([from, to, role, relation]) => {
    const [a, b] = [spot(from), spot(to)];
    const [x0, y0, x1, y1] = [a.x + NODE_WIDTH, a.y + NODE_HEIGHT / 2, b.x, b.y + NODE_HEIGHT / 2];
    const bend = Math.max(30, (x1 - x0) / 2);
    return { from, to, element: svg("path.edge", { d: `M${x0} ${y0}C${x0 + bend} ${y0} ${x1 - bend} ${y1} ${x1} ${y1}` }, svg("title", null, `${relation}${role ? ` as ${role}` : ""}`)) };
  });
  const world = svg("g", null, lines.map((line) => line.element), nodes.map(box));
  const picture = svg("svg", { role: "group", "aria-label": `Lineage: ${nodes.length} things` }, world);
  const element = h("div.lineage", { data: { state: "waiting" } }, picture, h("div.lineage-tools", null,
    iconButton("plus", "Closer", () => scale(1.3)), iconButton("minus", "Farther", () => scale(1 / 1.3)), iconButton("full", "All of it", () => fit())));

  const observer = new ResizeObserver(() => { if (element.dataset.state === "waiting" && element.clientWidth) { fit(READABLE); choose(root, false); element.dataset.state = "ready"; } });
  observer.observe(element);
  signal.addEventListener("abort", () => observer.disconnect());

  /** @param {any} node */
  function box(node) {
    const { x, y } = spot(node.id);
    const label = node.label.length > LETTERS ? `${node.label.slice(0, LETTERS - 1)}…` : node.label;
    const classes = `node${node.id === root ? ".root" : ""}${node.revoked ? ".revoked" : ""}${node.revoked || node.descends_from_revoked?.length ? ".tainted" : ""}`;
    const made = svg(`g.${classes}`, {
      "data-kind": node.kind, "data-id": node.id, transform: `translate(${x} ${y})`, tabindex: node.id === root ? 0 : -1, role: "button", "aria-label": `${node.kind} ${node.label}${node.revoked ? ", revoked" : ""}`,
      onclick: () => { if (!moved) choose(node.id); }, ondblclick: () => onOpen(node.id), onfocus: () => { if (chosen !== node.id) choose(node.id, false); },
    }, svg("rect", { width: NODE_WIDTH, height: NODE_HEIGHT }), svg("rect.band", { width: 4, height: NODE_HEIGHT - 12, x: 6, y: 6, rx: 2 }),
    svg("text.kind", { x: 18, y: 15 }, node.status ? `${node.kind} · ${node.status}` : node.kind), svg("text", { x: 18, y: 31 }, label), svg("title", null, node.label));
    drawn.set(node.id, made);
    return made;
  }

  /** @param {string} id @param {boolean} [focus] */
  function choose(id, focus = true) {
    drawn.get(chosen)?.setAttribute("tabindex", "-1");
    chosen = id;
    const made = drawn.get(id);
    made?.setAttribute("tabindex", "0");
    const family = kin(id, pairs);
    element.classList.toggle("dimmed", family.size < nodes.length);
    for (const [each, node] of drawn) node.classList.toggle("lit", family.has(each));
    for (const line of lines) line.element.classList.toggle("lit", family.has(line.from) && family.has(line.to));
    reveal(id);
    if (focus) made?.focus({ preventScroll: true });
    onChoose(id);
  }

  const paint = () => world.setAttribute("transform", `translate(${left} ${top}) scale(${zoom})`);

  /** @param {number} [least]  of the scale */
  function fit(least = LEAST_ZOOM) {
    const { clientWidth, clientHeight } = element;
    zoom = Math.min(1, (clientWidth - 2 * MARGIN) / Math.max(1, width), (clientHeight - 2 * MARGIN) / Math.max(1, height));
    zoom = Math.max(least, zoom);
    left = (clientWidth - width * zoom) / 2;
    top = (clientHeight - height * zoom) / 2;
    paint();
  }

  /** Move the view until a node lies in it. @param {string} id */
  function reveal(id) {
    const { x, y } = spot(id);
    const [x0, y0, x1, y1] = [left + x * zoom, top + y * zoom, left + (x + NODE_WIDTH) * zoom, top + (y + NODE_HEIGHT) * zoom];
    const { clientWidth, clientHeight } = element;
    if (!clientWidth) return;
    if (x0 < MARGIN) left += MARGIN - x0;
    else if (x1 > clientWidth - MARGIN) left -= x1 - clientWidth + MARGIN;
    if (y0 < MARGIN) top += MARGIN - y0;
    else if (y1 > clientHeight - MARGIN) top -= y1 - clientHeight + MARGIN;
    paint();
  }

  /** @param {number} by @param {number} [x] @param {number} [y]  what stays where it is */
  function scale(by, x = element.clientWidth / 2, y = element.clientHeight / 2) {
    const next = Math.max(LEAST_ZOOM, Math.min(MOST_ZOOM, zoom * by));
    left = x - ((x - left) * next) / zoom;
    top = y - ((y - top) * next) / zoom;
    zoom = next;
    paint();
  }

  /** @type {{x: number, y: number, left: number, top: number} | null} */
  let drag = null;
  let moved = false;
  picture.addEventListener("pointerdown", (/** @type {PointerEvent} */ event) => { drag = { x: event.clientX, y: event.clientY, left, top }; moved = false; });
  picture.addEventListener("pointermove", (/** @type {PointerEvent} */ event) => {
    if (!drag || !event.buttons) return;
    const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
    if (!moved && Math.hypot(dx, dy) < 4) return;
    if (!moved) picture.setPointerCapture(event.pointerId);
    moved = true;
    [left, top] = [drag.left + dx, drag.top + dy];
    paint();
  });
  picture.addEventListener("pointerup", () => { drag = null; });
  picture.addEventListener("wheel", (/** @type {WheelEvent} */ event) => {
    if (!event.ctrlKey) return;
    event.preventDefault();
    const box = element.getBoundingClientRect();
    scale(Math.exp(-event.deltaY / 300), event.clientX - box.left, event.clientY - box.top);
  }, { passive: false });
  picture.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    const next = step(event.key);
    if (event.key === "Enter" || event.key === " ") onOpen(chosen);
    else if (event.key === "+") scale(1.3);
    else if (event.key === "-") scale(1 / 1.3);
    else if (event.key === "Home") fit();
    else if (next) choose(next);
    else return;
    event.preventDefault();
    event.stopPropagation();
  });

  /** Where an arrow leads: along a step, or to the next in the layer. @param {string} key */
  function step(key) {
    const here = spot(chosen);
    const near = (/** @type {string[]} */ ids) => ids.map(spot).sort((a, b) => Math.abs(a.y - here.y) - Math.abs(b.y - here.y))[0]?.id;
    if (key === "ArrowRight") return near(pairs.filter(([from, to]) => from === chosen && spots.has(to)).map(([, to]) => to));
    if (key === "ArrowLeft") return near(pairs.filter(([from, to]) => to === chosen && spots.has(from)).map(([from]) => from));
    const same = [...spots.values()].filter((each) => each.layer === here.layer);
    if (key === "ArrowDown") return near(same.filter((each) => each.y > here.y).map((each) => each.id));
    if (key === "ArrowUp") return near(same.filter((each) => each.y < here.y).map((each) => each.id));
    return "";
  }

  return { element };
}
