/** Python that makes the figures of the page again. Pure. */

/** A text, list or number as Python has it: JSON is Python but for three words. @param {any} value */
export const py = (value) => (value === null || value === undefined ? "None" : value === true ? "True" : value === false ? "False" : JSON.stringify(value));

const HEAD = "import runstone\n\nworkspace = runstone.open_workspace()\n";
const PLOTLY = "import plotly.graph_objects as go\nimport runstone\n\nworkspace = runstone.open_workspace()\n";

/** @param {string[]} ids */
const among = (ids) => `id in (${ids.map((id) => `'${id}'`).join(", ")})`;

/**
 * A figure of a sweep.
 * @param {string} id @param {string} kind @param {{metric?: string, x?: string, y?: string}} how
 */
export function sweepPython(id, kind, how) {
  const more = Object.entries(how).filter(([, value]) => value).map(([key, value]) => `, ${key}=${py(value)}`).join("");
  return `from runstone_sweeps import plot_sweep\n\nfigure = plot_sweep(${py(id)}, ${py(kind)}${more})\nfigure.show()\n`;
}

/** Two values of runs against each other. @param {string[]} ids @param {string} x @param {string} y */
export function scatterPython(ids, x, y) {
  return `${PLOTLY}rows = workspace.runs(${py(among(ids))}).to_dicts()
figure = go.Figure(go.Scatter(
    x=[row.get(${py(x)}) for row in rows], y=[row.get(${py(y)}) for row in rows],
    text=[row["name"] for row in rows], mode="markers",
))
figure.update_layout(xaxis_title=${py(x)}, yaxis_title=${py(y)})
figure.show()
`;
}

/**
 * Parallel coordinates of runs.
 * @param {string[]} ids @param {{field: string, isLog: boolean}[]} axes
 */
export function parallelPython(ids, axes) {
  return `import math

${PLOTLY}rows = workspace.runs(${py(among(ids))}).to_dicts()


def axis(field, is_log):
    values = [row.get(field) for row in rows]
    if all(value is None or isinstance(value, (int, float)) for value in values):
        scaled = [math.log10(value) if is_log and value else value for value in values]
        return {"label": f"log10 {field}" if is_log else field, "values": scaled}
    words = sorted({str(value) for value in values})
    return {"label": field, "values": [words.index(str(value)) for value in values],
            "tickvals": list(range(len(words))), "ticktext": words}


axes = [${axes.map(({ field, isLog }) => `(${py(field)}, ${py(isLog)})`).join(", ")}]
figure = go.Figure(go.Parcoords(dimensions=[axis(*each) for each in axes]))
figure.show()
`;
}

/** Bars of counts over edges, before and after. @param {string} source  lines that set \`edges\`, \`after\` and \`before\` @param {string} title */
export const barsPython = (source, title) => `${PLOTLY}${source}
figure = go.Figure()
for name, counts in (("before", before), ("after", after)):
    if counts:
        whole = sum(counts) or 1
        figure.add_bar(x=list(edges)[:len(counts)], y=[count / whole for count in counts], name=name, opacity=0.7, offset=0)
figure.update_layout(title=${py(title)}, barmode="overlay")
figure.show()
`;

/** A column of a check. @param {string} model @param {string} check @param {string} column */
export const driftPython = (model, check, column) => barsPython(`from runstone.monitoring import read_report

report = read_report(workspace.path, ${py(model)}, ${py(check)})
bars = next(one for one in report["features"] if one["name"] == ${py(column)})["bars"]
edges, before, after = bars.get("edges") or bars.get("labels"), bars["before"], bars["after"]`, column);

/** A column of a version of data. @param {string} ref @param {string} column */
export const profilePython = (ref, column) => barsPython(`histogram = workspace.datasets.find(${py(ref)}).profile[${py(column)}]["histogram"]
edges, before, after = histogram["edges"], None, histogram["counts"]`, column);

/** A histogram that a run logged. @param {string} run @param {string} name @param {number} step @param {number} index */
export const histogramPython = (run, name, step, index) => barsPython(`records = [one for one in workspace.run(${py(run)}).records(${py(name)}) if one.step == ${step}]
histogram = records[${index}].metadata
edges, before, after = histogram["edges"], None, histogram["counts"]`, name);

/** A figure that a run logged. @param {string} run @param {string} name @param {number} step @param {number} index */
export const figurePython = (run, name, step, index) => `import plotly.io
${HEAD}records = [one for one in workspace.run(${py(run)}).records(${py(name)}) if one.step == ${step}]
figure = plotly.io.from_json(records[${index}].path.read_text())
figure.show()
`;
