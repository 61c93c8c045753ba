/**
 * The pages. One entry each; a page's module is fetched when it is first opened.
 *
 * A page is `open({main, signal, info})`: it puts its elements into `main` and ends what it began when `signal` aborts.
 *
 * @typedef {{main: HTMLElement, signal: AbortSignal, info: any}} Frame
 * @typedef {{name: string, title: string, icon: any, key?: string, inNav: boolean, feature?: string, role?: string, load: () => Promise<{open: (frame: Frame) => void | Promise<void>}>}} Page
 */

/** @type {Page[]} */
export const pages = [
  { name: "runs", title: "Runs", icon: "table", key: "1", inNav: true, load: () => import("./runs.js") },
  { name: "compare", title: "Compare", icon: "compare", key: "2", inNav: true, load: () => import("./compare.js") },
  { name: "sweeps", title: "Sweeps", icon: "sweep", key: "3", inNav: true, feature: "sweeps", load: () => import("./sweeps.js") },
  { name: "models", title: "Models", icon: "model", key: "4", inNav: true, feature: "models", load: () => import("./models.js") },
  { name: "datasets", title: "Datasets", icon: "data", key: "5", inNav: true, feature: "datasets", load: () => import("./datasets.js") },
  { name: "lineage", title: "Lineage", icon: "graph", key: "6", inNav: true, feature: "lineage", load: () => import("./lineage.js") },
  { name: "monitoring", title: "Monitoring", icon: "monitor", key: "7", inNav: true, feature: "models", load: () => import("./monitoring.js") },
  { name: "reports", title: "Reports", icon: "report", key: "8", inNav: true, feature: "reports", load: () => import("./reports.js") },
  { name: "admin", title: "Server", icon: "user", key: "9", inNav: true, feature: "users", role: "admin", load: () => import("./admin.js") },
  { name: "run", title: "Run", icon: "chart", inNav: false, load: () => import("./run.js") },
];
