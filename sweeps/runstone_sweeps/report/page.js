"use strict";
// Colours come from the page, so that a figure follows it when the reader's system turns dark.
const read = (id) => JSON.parse(document.getElementById(id).textContent);
const figures = read("figures");
const dark = window.matchMedia("(prefers-color-scheme: dark)");

function colored(value, style) {
  if (typeof value === "string") return /^--[a-z]+$/.test(value) ? style.getPropertyValue(value).trim() : value;
  if (Array.isArray(value)) return value.map((item) => colored(item, style));
  if (value !== null && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, PLAIN.has(key) ? item : colored(item, style)]));
  }
  return value;
}
// What users wrote, or long lists of numbers: no colour is in there.
const PLAIN = new Set(["x", "y", "z", "text", "name", "values", "ticktext", "tickvals", "categoryarray", "label", "title"]);

function draw(id) {
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(name).trim();
  const figure = figures[id];
  const data = colored(figure.data, style);
  const layout = colored(figure.layout, style);
  const font = { family: getComputedStyle(document.body).fontFamily, size: 13, color: color("--ink") };
  Object.assign(layout, {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", autosize: true, font, hovermode: "closest",
    margin: Object.assign({ l: 60, r: 24, t: 16, b: 48 }, layout.margin),
    hoverlabel: { font: { family: font.family, size: 12 } },
    legend: { bgcolor: "rgba(0,0,0,0)", orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: color("--soft"), activecolor: color("--accent") },
  });
  if (data.filter((trace) => trace.name && trace.showlegend !== false).length > 1) layout.margin.t = 40;
  for (const key of new Set([...Object.keys(layout), "xaxis", "yaxis"])) {
    if (!/^[xy]axis[0-9]*$/.test(key)) continue;
    layout[key] = Object.assign({
      exponentformat: "power", minexponent: 6, gridcolor: color("--line"), zeroline: false, linecolor: color("--line"), automargin: true,
    }, layout[key]);
    if (layout[key].type === "log") layout[key].minexponent = 3;
  }
  for (const trace of data) {
    if (trace.type === "parcoords") {
      Object.assign(trace, { labelfont: font, tickfont: { ...font, size: 11 }, rangefont: { ...font, size: 1, color: "rgba(0,0,0,0)" } });
      trace.unselected = { line: { color: color("--soft"), opacity: 0.06 } };
    }
  }
  Plotly.react(id, data, layout, { responsive: true, displaylogo: false, displayModeBar: "hover",
    // Nothing on this page sends anything anywhere.
    showSendToCloud: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] });
}

// A figure is drawn when it comes into sight: a page of many opens at once.
const drawn = new Set();
const watch = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting && !drawn.has(entry.target.id)) {
      drawn.add(entry.target.id);
      draw(entry.target.id);
    }
  }
}, { rootMargin: "600px" });
for (const id of Object.keys(figures)) watch.observe(document.getElementById(id));
function drawAll() {
  for (const id of Object.keys(figures)) {
    drawn.add(id);
    draw(id);
  }
}
dark.addEventListener("change", () => drawn.forEach(draw));
window.addEventListener("beforeprint", drawAll);

// The table of trials: sorted by a click on its head, a hundred rows at a time, filtered by words.
const table = document.getElementById("trials");
if (table !== null) {
  const { kinds, rows } = read("rows");
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const count = document.getElementById("count");
  const search = document.getElementById("search");
  const STEP = 100;
  let [sorted, direction, shown, found] = [-1, 1, STEP, rows];

  const key = (cell) => (Array.isArray(cell) ? cell[1] : cell);
  const text = (cell) => String(Array.isArray(cell) ? cell[0] : cell);
  function compare(a, b) {
    const [x, y] = [key(a[sorted]), key(b[sorted])];
    // What is empty comes last, whatever the direction.
    if ((x === null || x === "") !== (y === null || y === "")) return x === null || x === "" ? 1 : -1;
    if (typeof x === "number" && typeof y === "number") return direction * (x - y);
    return direction * String(x).localeCompare(String(y), undefined, { numeric: true });
  }
  function show() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    found = rows.filter((row) => words.every((word) => row.some((cell) => text(cell).toLowerCase().includes(word))));
    if (sorted >= 0) found = [...found].sort(compare);
    body.replaceChildren(...found.slice(0, shown).map((row) => {
      const line = document.createElement("tr");
      row.forEach((cell, place) => {
        const made = line.insertCell();
        made.className = kinds[place] === "state" ? `state ${key(cell)}` : kinds[place];
        made.textContent = text(cell);
      });
      return line;
    }));
    const left = found.length - Math.min(shown, found.length);
    count.textContent = left ? `${found.length - left} of ${found.length} shown` : `${found.length} of ${rows.length}`;
    document.getElementById("more").hidden = left === 0;
  }
  heads.forEach((head, place) => {
    const sort = () => {
      direction = sorted === place ? -direction : 1;
      sorted = place;
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
      show();
    };
    head.addEventListener("click", sort);
    head.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        sort();
      }
    });
  });
  search.addEventListener("input", () => { shown = STEP; show(); });
  document.getElementById("more").addEventListener("click", () => { shown += 10 * STEP; show(); });
  show();
}
for (const button of document.querySelectorAll("button.copy")) {
  button.addEventListener("click", async () => {
    const code = button.parentElement.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "copied";
    } catch {
      // A page that was opened from a file may not write there: select it instead.
      getSelection().selectAllChildren(code);
    }
  });
}
