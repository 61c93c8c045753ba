/** What the page's state consists of. Every field is a part of the URL. */

import { createStore, flag, list, number, range, text } from "./store.js";

const fields = {
  page: text("runs"),
  project: text(),
  theme: text("system", { remembered: true }), // system, light, dark

  // the table of runs
  filter: text(),
  search: text(), // regular expression over names
  sort: list(), // fields, each with "-" before it when descending
  columns: list(["status", "started_at", "duration"]), // a width may follow: name~120
  frozen: number(0), // how many columns stay beside the name
  group: list(), // fields
  deleted: flag(),
  archived: flag(),
  view: text("both", { remembered: true }), // table, both, charts

  // which runs the charts show
  runs: list(), // chosen ones; none chosen: the first of the table
  first: number(10, { remembered: true }),
  pins: list(), // runs that stay on top
  baseline: text(),

  // charts
  metrics: text(), // regular expression
  pinned: list(), // metrics in the first section
  x: text("step"),
  smooth: text("none:0", { remembered: true }), // kind:amount
  log: list(), // metrics whose y axis is the other kind than `logy` says
  logx: flag(),
  logy: flag(),
  robust: flag(),
  shared: flag(), // one y range for a section
  y: range(),
  zoom: range(),
  tail: flag(), // the zoom moves along with the newest points
  sync: flag(true, { remembered: true }),
  band: text("minmax", { remembered: true }), // of groups: minmax, std, ci
  size: text("m", { remembered: true }),

  // one run, and comparing
  run: text(),
  tab: text(),
  beside: list(["…"]), // metrics of training above those of the machine; "…": those that tell most
  item: text(), // what is open inside a tab: an artifact, a file, a medium
  differences: flag(true),
  axes: list(), // of parallel coordinates and scatter
  other: text(), // the run or version that something is compared with

  // sweeps, data, models, lineage
  metric: text(), // of a sweep with several
  pair: list(), // the two parameters of a contour
  version: text(), // of a dataset or model
  ref: text(), // what the lineage is of
  way: text("both"), // both, up, down
  depth: number(0), // steps of lineage; 0: all
};

/** The one store. */
export const store = createStore(fields);
