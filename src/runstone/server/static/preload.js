// What the page of runs needs beside the frame: asked for at once there, and not at all elsewhere.
(() => {
  if ((new URLSearchParams(location.search).get("page") ?? "runs") !== "runs") return;
  const modules = [
    "chart/asking.js",
    "chart/card.js",
    "chart/chart.js",
    "chart/draw.js",
    "chart/export.js",
    "chart/grid.js",
    "chart/groups.js",
    "chart/hover.js",
    "chart/interact.js",
    "chart/layout.js",
    "chart/loader.js",
    "chart/reduce.js",
    "chart/scale.js",
    "chart/series.js",
    "chart/ticks.js",
    "chart/toolbar.js",
    "chart/tooltip.js",
    "chart/zoom.js",
    "core/taking.js",
    "pages/runs.js",
    "pages/runs_table.js",
    "table/actions.js",
    "table/filter.js",
    "table/picker.js",
    "table/rows.js",
    "table/table.js",
    "table/views.js",
  ];
  const here = /** @type {HTMLScriptElement} */ (document.currentScript).src;
  for (const name of modules) {
    const link = document.createElement("link");
    link.rel = "modulepreload";
    link.href = here.replace("preload.js", name);
    document.head.append(link);
  }
})();
