/** A chart as something to take along: picture, table, or the Python that makes it again. */

import { exact } from "../core/format.js";
import { h } from "../core/h.js";
import { copyText, dialog, saveFile } from "../core/notice.js";
import { ground, HEAD, saveRows } from "../core/taking.js";

/** @typedef {import("./series.js").Line} Line */

/**
 * The chart with its title and legend.
 * @param {HTMLCanvasElement} picture
 * @param {string} title
 * @param {Line[]} lines
 * @param {Element} styled  where the colours of the theme are read
 */
export function savePng(picture, title, lines, styled) {
  const ratio = devicePixelRatio || 1;
  const [width, tall] = [picture.width / ratio, picture.height / ratio];
  const legend = lines.slice(0, 30);
  const columns = Math.max(1, Math.floor(width / 190));
  const height = tall + HEAD + Math.ceil(legend.length / columns) * 18 + 8;
  const { sheet, g } = ground(width, height, ratio, styled, title);
  const ink = g.fillStyle;
  g.drawImage(picture, 0, HEAD, width, tall);
  g.font = "12px system-ui, sans-serif";
  legend.forEach((line, i) => {
    const x = 12 + (i % columns) * (width / columns);
    const y = tall + HEAD + 14 + Math.floor(i / columns) * 18;
    g.fillStyle = line.colour;
    g.fillRect(x, y - 4, 14, 3);
    g.fillStyle = ink;
    g.fillText(line.label, x + 20, y + 2, width / columns - 30);
  });
  sheet.toBlob((/** @type {Blob | null} */ blob) => blob && saveFile(blob, `${title}.png`));
}

/** Every point held, one row each. @param {string} title @param {string} xName @param {Line[]} lines */
export function saveCsv(title, xName, lines) {
  const isBand = lines.some(({ points }) => points.low);
  const isSmooth = lines.some(({ points }) => points.smooth);
  /** @type {any[][]} */
  const rows = [["run", "name", xName, "value", ...(isBand ? ["min", "max", "points"] : []), ...(isSmooth ? ["smoothed"] : [])]];
  for (const { run, label, points } of lines) {
    for (let i = 0; i < points.x.length; i++) {
      rows.push([run, label, points.x[i], exact(points.y[i]),
        ...(isBand ? [points.low ? exact(points.low[i]) : "", points.high ? exact(points.high[i]) : "", points.n ? points.n[i] : 1] : []),
        ...(isSmooth ? [points.smooth ? exact(points.smooth[i]) : ""] : [])]);
    }
  }
  saveRows(title, rows);
}

/**
 * @param {string} metric
 * @param {{runs: {id: string, label: string, colour: string}[], x: string, logX: boolean, logY: boolean, range: [number, number] | null, smooth: string}} how
 */
export function pythonOf(metric, { runs, x, logX, logY, range, smooth }) {
  const py = (/** @type {string} */ text) => JSON.stringify(text); // a JSON string is a Python string
  const xs = {
    step: "series.step",
    relative: "series.wall_s - series.wall_s[0]",
    process: "series.wall_s - series.wall_s[0]",
    time: "series.wall_s.astype('datetime64[s]')",
  }[x] ?? "series.step";
  const [kind, amount] = smooth.split(":");
  return `import plotly.graph_objects as go
import runstone

workspace = runstone.open_workspace()
colours = {${runs.map((run) => `\n    ${py(run.id)}: ${py(run.colour)},  # ${run.label.replaceAll("\n", " ")}`).join("")}
}
figure = go.Figure()
for run_id, colour in colours.items():
    run = workspace.run(run_id)
    series = run.series(${py(metric)})
    figure.add_scatter(x=${xs}, y=series.value, name=run.name, line_color=colour)
figure.update_layout(title=${py(metric)}, xaxis_title=${py(x)}${logX ? ', xaxis_type="log"' : ""}${logY ? ', yaxis_type="log"' : ""})
${range ? `figure.update_xaxes(range=${logX ? `[${Math.log10(range[0])}, ${Math.log10(range[1])}]` : `[${range[0]}, ${range[1]}]`})\n` : ""}${kind !== "none" && Number(amount) > 0 ? `# the page shows these lines smoothed (${kind}, ${amount}); the figure has them as logged\n` : ""}figure.show()
`;
}

/** @param {string} metric @param {Parameters<typeof pythonOf>[1]} how */
export const copyPython = (metric, how) => copyText(pythonOf(metric, how), "Python code");

/** The same as a table, for whoever cannot see lines. @param {string} title @param {string} xName @param {Line[]} lines */
export function showTable(title, xName, lines) {
  const every = Math.max(1, ...lines.map(({ points }) => Math.ceil(points.x.length / 200)));
  dialog(`${title} as a table`, () => h("div.scroll", null, h("table.plain", null,
    h("caption", null, every > 1 ? `Each ${every}th point shown; zoom in for more` : "Every point"),
    h("thead", null, h("tr", null, ["Run", xName, "Value", "Lowest", "Highest"].map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", null, lines.map(({ label, points }) => Array.from(points.x, (x, i) => i).filter((i) => i % every === 0 || i === points.x.length - 1).map((i) =>
      h("tr", null, h("th", { scope: "row" }, label), h("td", null, points.x[i]), h("td", null, exact(points.y[i])),
        h("td", null, points.low ? exact(points.low[i]) : ""), h("td", null, points.high ? exact(points.high[i]) : ""))))))), { wide: true });
}
