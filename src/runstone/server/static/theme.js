// Before anything is painted, so that the page does not flash in the other theme.
(() => {
  let chosen = new URLSearchParams(location.search).get("theme");
  try {
    chosen ??= JSON.parse(localStorage.getItem("runstone") ?? "{}").theme;
  } catch {
    // nothing is remembered
  }
  const dark = chosen === "dark" || (chosen !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.dataset.theme = dark ? "dark" : "light";
})();
