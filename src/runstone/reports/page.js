// Draws the figures of a page: each `.rs-figure` holds what plotly takes as JSON, with colours by the names of CSS variables.
"use strict";
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const NAME = /^(--[a-z]+(?:-\d+)?)(?:\/(0?\.\d+|0|1))?$/;
  const styles = getComputedStyle(document.documentElement);

  function color(text) {
    const match = NAME.exec(text);
    const found = match && styles.getPropertyValue(match[1]).trim();
    if (!found) return text;
    if (match[2] === undefined) return found;
    const part = (place) => parseInt(found.slice(place, place + 2), 16);
    return `rgba(${part(1)},${part(3)},${part(5)},${match[2]})`;
  }

  function resolved(value) {
    if (typeof value === "string") return value.startsWith("--") ? color(value) : value;
    if (Array.isArray(value)) return value.map(resolved);
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, resolved(item)]));
    }
    return value;
  }

  const config = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["select2d", "lasso2d"] };

  function draw(place) {
    place.dataset.state = "drawing";
    const told = resolved(JSON.parse(place.querySelector("script").textContent));
    const drawn = place.querySelector(".rs-drawn");
    window.Plotly.react(drawn, told.data, told.layout, config).then(() => { place.dataset.state = "ready"; });
  }

  function drawAll() {
    if (!window.Plotly) return;
    document.querySelectorAll(".rs-figure").forEach(draw);
  }

  dark.addEventListener("change", drawAll);
  drawAll();
})();
