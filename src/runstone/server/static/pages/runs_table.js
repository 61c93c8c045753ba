/** The left of the runs page: which runs there are, which are chosen, and what the charts are to show of them. */

import { get } from "../core/api.js";
import { count } from "../core/format.js";
import { fill, h, icon, iconButton } from "../core/h.js";
import { bind } from "../core/keys.js";
import { onChanges } from "../core/live.js";
import { menu, prompt } from "../core/notice.js";
import { pattern } from "../core/pattern.js";
import { store } from "../core/state.js";
import { colourOf, theme } from "../core/theme.js";
import { hover } from "../chart/hover.js";
import * as actions from "../table/actions.js";
import { among, clicked, equals, every, orderBy, readColumns, writeColumns } from "../table/columns.js";
import { filterBox } from "../table/filter.js";
import { openPicker } from "../table/picker.js";
import { rowSource } from "../table/rows.js";
import { runTable } from "../table/table.js";
import { openViews } from "../table/views.js";

const ALWAYS = ["tags.colour", "parent"];
const WIDE = 148; // of a number with its spread or difference
const RENEW_MS = 900; // running runs change each second; a table need not

/** @typedef {import("../table/rows.js").Row} Row */

/**
 * @param {object} how
 * @param {AbortSignal} how.signal
 * @param {() => string} how.scope  the filter of the project
 * @param {boolean} how.isReadOnly
 * @param {(scene: import("../chart/card.js").Scene) => void} how.onScene
 */
export function runsTable({ signal, scope, isReadOnly, onScene }) {
  const isGrouped = () => store.state.group.length > 0;
  /** @type {Set<string>} */
  const selected = new Set();
  let anchor = 0; // of a selection with Shift
  let nameWidth = 190;
  /** @type {any[]} groups of the server, where runs are grouped */
  let groups = [];
  /** @type {Set<string>} */
  const openGroups = new Set();
  /** @type {Map<string, Row[]>} */
  const groupRows = new Map();
  /** @type {Map<string, import("../chart/card.js").Shown>} runs that were shown, by id */
  const known = new Map();
  let scene = "";
  let renewal = 0;

  const rows = rowSource((error) => {
    filter.fail(error && error.name !== "AbortError" ? error : null, Number(!!scope()) + Number(store.state.pins.length > 0));
    if (!error || !rows.isLoaded) draw();
    if (!error) tellScene();
  });
  const table = runTable({
    count: () => (isGrouped() ? items().length : rows.total),
    item: (index) => {
      if (isGrouped()) return items()[index];
      const row = rows.at(index);
      return row && { kind: "run", row, isPinned: index < rows.pinned };
    },
    columns: () => readColumns(store.state.columns, store.state.baseline || isGrouped() ? WIDE : undefined),
    frozen: () => store.state.frozen,
    sort: () => store.state.sort,
    nameWidth: () => nameWidth,
    look,
    baseline: () => rows.byId(store.state.baseline),
    href: (id) => store.href({ page: "run", run: id, project: store.state.project }, { fresh: true }),
    onColumns: (columns) => store.set({ columns: writeColumns(columns) }),
    onNameWidth: (width) => { nameWidth = width; table.renderAll(); },
    onSort: (field, add) => store.set({ sort: clicked(store.state.sort, field, add) }),
    headMenu,
    rowMenu,
    onShow: (id) => toggleShown([id]),
    onSelect: select,
    onGroup: toggleGroup,
    onHover: (id) => hover.set({ run: id }),
    onOpen: (row) => store.open(store.href({ page: "run", run: row.id, project: store.state.project }, { fresh: true })),
  }, signal);

  const filter = filterBox({ value: store.state.filter, signal, onChange: (text) => store.set({ filter: text }) });
  const nameError = h("span.field-error", { role: "alert" });
  const names = h("input.names", { type: "search", placeholder: "Names (regex)", "aria-label": "Search names of runs", value: store.state.search, onfocus: () => rows.prepare(), oninput: onNames });
  const bulk = h("div.bulk", { role: "group", "aria-label": "Selected runs", hidden: true });
  const foot = h("div.table-foot");
  const empty = h("div", { hidden: true });
  const element = h("section.runs-table", { "aria-label": "Table of runs" },
    h("div.table-bar", null, filter.element, names, nameError, h("span.spacer"),
      tool("columns", "Columns", (event) => void openPicker(/** @type {Element} */ (event.currentTarget), every(scope(), store.state.filter))),
      tool("group", "Group", groupMenu), tool("save", "Views", (event) => void openViews(/** @type {Element} */ (event.currentTarget))),
      iconButton("more", "More", moreMenu),
      h("button.narrow-only", { type: "button", onclick: () => store.set({ view: "charts" }) }, icon("chart"), "Charts")),
    bulk, table.element, empty, foot);

  store.watch(["filter", "search", "sort", "deleted", "archived", "project", "pins", "group"], () => { table.toTop(); void load(); }, signal);
  store.watch(["columns"], () => { void load(); table.renderAll(); }, signal);
  store.watch(["frozen", "baseline"], () => table.renderAll(), signal);
  store.watch(["runs", "first"], () => { table.render(); tellScene(); }, signal);
  store.watch(["filter", "search"], () => {
    filter.set(store.state.filter);
    if (document.activeElement !== names) names.value = store.state.search;
  }, signal);
  theme.watch(() => table.render(), signal);
  hover.watch(() => table.render(), signal);
  actions.onEdited(() => void load(), signal);
  onChanges((changes) => {
    if (!changes.runs.size && !changes.all) return;
    clearTimeout(renewal);
    renewal = window.setTimeout(() => void load(), RENEW_MS);
  }, signal);
  signal.addEventListener("abort", () => { clearTimeout(renewal); rows.close(); });
  const current = () => {
    const item = table.current;
    return item?.kind === "run" ? item.row : null;
  };
  bind([
    { keys: "j", label: "Next row", run: () => table.moveCursor(1) },
    { keys: "k", label: "Row before", run: () => table.moveCursor(-1) },
    { keys: "Space", label: "Select the row", run: () => { const row = current(); if (row) select(row.id, table.cursor, false); } },
    { keys: "x", label: "Show the run in charts, or not", run: () => { const row = current(); if (row) toggleShown([row.id]); } },
    { keys: "p", label: "Pin the chart below the pointer, or the run", run: () => { if (!pinChart()) { const row = current(); if (row) togglePin(row.id); } } },
    { keys: "b", label: "Make the run the baseline", run: () => { const row = current(); if (row) toggleBaseline(row.id); } },
    { keys: "c", label: "Compare the selected runs", run: () => { if (selected.size > 1) compare([...selected]); } },
  ], signal);

  const isShown = (/** @type {string} */ id) => shownIds().includes(id);

  /** @param {any} name @param {string} label @param {(event: MouseEvent) => void} onclick */
  function tool(name, label, onclick) {
    return h("button", { type: "button", onclick }, icon(name), label);
  }

  function pinChart() {
    /** @type {HTMLElement | null} */
    const button = document.querySelector(".card:hover [aria-label^='Pin this chart']");
    button?.click();
    return !!button;
  }

  function onNames() {
    nameError.textContent = pattern(names.value).error;
    if (!nameError.textContent) store.set({ search: names.value }, { replace: true });
  }

  /** Ids of the runs that the charts show: the chosen ones, or the first rows. @returns {string[]} */
  function shownIds() {
    if (store.state.runs.length) return store.state.runs;
    const ids = [];
    for (let i = 0; i < rows.total && ids.length < Math.max(store.state.first, rows.pinned); i++) {
      const row = rows.at(i);
      if (row) ids.push(row.id);
    }
    return ids;
  }

  /** @param {string} id */
  function look(id) {
    const isGroup = isGrouped() && groups.some((group) => group.key === id);
    return {
      colour: colourOf(id, rows.byId(id)?.get("tags.colour") ?? known.get(id)?.colour),
      isShown: isGroup || (!isGrouped() && isShown(id)),
      isSelected: selected.has(id), isBaseline: id === store.state.baseline, isFocus: hover.now.run === id,
    };
  }

  async function load() {
    const question = ask();
    if (isGrouped()) await loadGroups(question);
    else await rows.open(question);
  }

  /** @returns {import("../table/rows.js").Question} */
  function ask() {
    const { state } = store;
    return {
      filter: every(state.filter, scope()), order_by: orderBy(state.sort), search: state.search, deleted: state.deleted, archived: state.archived ? "all" : "0", pins: state.pins,
      columns: [...new Set([...readColumns(state.columns).map((column) => column.field), ...ALWAYS])],
    };
  }

  /** @param {import("../table/rows.js").Question} question */
  async function loadGroups(question) {
    try {
      const answer = await get("runs", { filter: question.filter, order_by: question.order_by, group_by: store.state.group, columns: question.columns, deleted: question.deleted, archived: question.archived }, { signal });
      groups = answer.groups.map((/** @type {any} */ group) => {
        const words = group.key.map((/** @type {any} */ value) => (value === null ? "–" : String(value)));
        return { ...group, key: words.join(" · "), label: words.join(" · "), values: group.key, ids: /** @type {string[]} */ ([]) };
      });
      await findMembers(question);
      filter.fail(null);
      for (const group of groups) if (openGroups.has(group.key)) await loadGroup(group);
      draw();
      tellScene();
    } catch (error) {
      if (!signal.aborted) filter.fail(error, Number(!!scope()));
    }
  }

  /** Which runs every group has: the server tells of a group only what it comes to. @param {import("../table/rows.js").Question} question */
  async function findMembers({ filter: where, order_by, deleted, archived }) {
    const fields = store.state.group;
    const answer = await get("runs", { filter: where, order_by, deleted, archived, columns: fields, limit: 20_000 }, { signal });
    const byKey = new Map(groups.map((group) => [JSON.stringify(group.values), group]));
    answer.ids.forEach((/** @type {string} */ id, /** @type {number} */ i) => byKey.get(JSON.stringify(fields.map((/** @type {string} */ field) => answer.columns[field][i])))?.ids.push(id));
  }

  /** @param {any} group */
  async function loadGroup(group) {
    const question = ask();
    const conditions = store.state.group.map((/** @type {string} */ field, /** @type {number} */ i) => equals(field, group.values[i]));
    const answer = await get("runs", { ...question, search: "", pins: [], filter: every(question.filter, ...conditions), limit: 200 }, { signal });
    groupRows.set(group.key, answer.ids.map((/** @type {string} */ id, /** @type {number} */ i) => ({ id, get: (/** @type {string} */ field) => (field === "id" ? id : answer.columns[field]?.[i]) })));
  }

  /** @returns {import("../table/table.js").Item[]} */
  function items() {
    return groups.flatMap((group) => [
      { kind: /** @type {const} */ ("group"), key: group.key, label: `${group.label}  (${group.runs})`, runs: group.runs, isOpen: openGroups.has(group.key), get: (/** @type {string} */ field) => group.columns?.[field] },
      ...(openGroups.has(group.key) ? (groupRows.get(group.key) ?? []).map((row) => ({ kind: /** @type {const} */ ("run"), row, isInner: true })) : []),
    ]);
  }

  /** @param {string} key */
  async function toggleGroup(key) {
    if (!openGroups.delete(key)) {
      openGroups.add(key);
      await loadGroup(groups.find((group) => group.key === key));
    }
    draw();
  }

  /** Tell the charts what to show, where that has changed. */
  async function tellScene() {
    if (isGrouped()) {
      const key = `groups ${groups.map((group) => `${group.key}:${group.ids?.length}`)}`;
      if (key !== scene) onScene({ runs: [], groups: groups.map((group) => ({ key: group.key, label: group.label, ids: group.ids ?? [], runs: group.runs })) });
      scene = key;
      return;
    }
    const ids = shownIds();
    for (const id of ids) {
      const row = rows.byId(id);
      if (row) known.set(id, { id, label: row.get("name") ?? id, colour: row.get("tags.colour"), parent: row.get("parent") });
    }
    const missing = ids.filter((id) => !known.has(id));
    if (missing.length) {
      const answer = await get("runs", { filter: among("id", missing), columns: ALWAYS, limit: missing.length, archived: "all" }, { signal }).catch(() => null);
      answer?.ids.forEach((/** @type {string} */ id, /** @type {number} */ i) => known.set(id, { id, label: answer.columns.name[i] ?? id, colour: answer.columns["tags.colour"]?.[i], parent: answer.columns.parent?.[i] }));
    }
    const runs = ids.flatMap((id) => known.get(id) ?? []);
    const names = runs.map((run) => run.label);
    const shown = runs.map((run) => ({ ...run, label: names.indexOf(run.label) === names.lastIndexOf(run.label) ? run.label : `${run.label} …${run.id.slice(-4)}` }));
    const key = JSON.stringify(shown);
    if (key === scene) return;
    scene = key;
    onScene({ runs: shown, groups: null });
  }

  function draw() {
    table.renderAll();
    const total = isGrouped() ? groups.length : rows.total;
    const isEmpty = (isGrouped() || rows.isLoaded) && total === 0;
    table.element.hidden = isEmpty;
    empty.hidden = !isEmpty;
    if (isEmpty) fill(empty, store.state.filter || store.state.search ? nothingFits() : firstSteps());
    fill(foot, h("span.figure", { "aria-live": "polite" }, isGrouped() ? count(total, "group") : count(total, "run")),
      store.state.deleted && h("span.badge", null, "deleted ones"), store.state.archived && h("span.badge", null, "archived ones too"), h("span.spacer"),
      store.state.runs.length > 0 && [h("span", null, `${store.state.runs.length} in charts`), h("button.link", { type: "button", onclick: () => store.set({ runs: [] }) }, `The first ${store.state.first} instead`)]);
    drawBulk();
  }

  const nothingFits = () => h("div.empty", null, icon("filter"), h("h2", null, "No run fits"), h("p", null, "Nothing in this project satisfies the filter."),
    h("button", { type: "button", onclick: () => store.set({ filter: "", search: "" }) }, "Clear the filter"));

  const firstSteps = () => h("div.empty", null, icon("chart"), h("h2", null, "No runs yet"), h("p", null, "A run appears here the moment it starts:"),
    h("pre.block", null, 'import runstone\n\nwith runstone.start_run(project="first") as run:\n    for step in range(100):\n        run.log({"loss": 1 / (step + 1)}, step=step)'));

  function drawBulk() {
    bulk.hidden = selected.size === 0;
    if (!selected.size) return;
    const ids = [...selected];
    fill(bulk, h("b", null, `${selected.size} selected`),
      h("button", { type: "button", disabled: selected.size < 2, onclick: () => compare(ids) }, icon("compare"), "Compare"),
      h("button", { type: "button", onclick: () => store.set({ runs: ids }) }, icon("eye"), "Show these"),
      !isReadOnly && [
        h("button", { type: "button", onclick: () => actions.tag(ids) }, icon("tag"), "Tag"),
        h("button", { type: "button", onclick: () => { clear(); void actions.archive(ids, !store.state.archived); } }, store.state.archived ? "Unarchive" : "Archive"),
        store.state.deleted ? h("button", { type: "button", onclick: () => { clear(); void actions.restore(ids); } }, "Restore")
          : h("button.danger", { type: "button", onclick: () => { clear(); void actions.remove(ids); } }, icon("trash"), "Delete"),
      ], h("span.spacer"), iconButton("close", "Select none", clear));
  }

  function clear() {
    selected.clear();
    draw();
  }

  /** @param {string} id @param {number} index @param {boolean} extend */
  function select(id, index, extend) {
    if (extend) {
      for (let i = Math.min(anchor, index); i <= Math.max(anchor, index); i++) {
        const row = rows.at(i);
        if (row) selected.add(row.id);
      }
    } else if (!selected.delete(id)) selected.add(id);
    anchor = index;
    table.render();
    drawBulk();
  }

  /** @param {string[]} ids */
  function toggleShown(ids) {
    const now = shownIds();
    const next = ids.every((id) => now.includes(id)) ? now.filter((id) => !ids.includes(id)) : [...now, ...ids.filter((id) => !now.includes(id))];
    store.set({ runs: next });
  }

  /** @param {"pins"} key @param {string} id */
  const toggled = (key, id) => {
    const now = store.state[key];
    return { [key]: now.includes(id) ? now.filter((/** @type {string} */ each) => each !== id) : [...now, id] };
  };
  const togglePin = (/** @type {string} */ id) => store.set(toggled("pins", id));
  const toggleBaseline = (/** @type {string} */ id) => store.set({
    baseline: store.state.baseline === id ? "" : id,
    ...(store.state.baseline !== id && !store.state.pins.includes(id) && { pins: [...store.state.pins, id] }),
  });
  const compare = (/** @type {string[]} */ ids) => store.open(store.href({ page: "compare", runs: ids, project: store.state.project }, { fresh: true }));

  /** @param {Row} row @returns {import("../core/notice.js").Item[]} */
  function rowMenu(row) {
    const name = row.get("name") ?? row.id;
    const { pins, baseline } = store.state;
    return [
      { label: "Open", icon: "chart", run: () => store.open(store.href({ page: "run", run: row.id, project: store.state.project }, { fresh: true })) },
      { label: "Show only this in charts", icon: "eye", run: () => store.set({ runs: [row.id] }) },
      { label: "Stay on top (p)", icon: "pin", checked: pins.includes(row.id), run: () => togglePin(row.id) },
      { label: "Baseline (b)", icon: "baseline", checked: baseline === row.id, run: () => toggleBaseline(row.id) },
      { label: "Copy id", icon: "copy", run: () => void navigator.clipboard?.writeText(row.id) },
      ...(isReadOnly ? [] : /** @type {import("../core/notice.js").Item[]} */ ([
        "line",
        { label: "Rename…", run: () => void actions.rename(row.id, name) },
        { label: "Colour…", run: () => actions.recolour(row.id, look(row.id).colour) },
        { label: "Tag…", icon: "tag", run: () => actions.tag([row.id]) },
        ...(row.get("status") === "running" ? [{ label: "Stop…", icon: "stop", run: () => void actions.stop(row.id, name) }] : []),
        { label: row.get("archived") ? "Unarchive" : "Archive", run: () => void actions.archive([row.id], !row.get("archived")) },
        store.state.deleted ? { label: "Restore", run: () => void actions.restore([row.id]) } : { label: "Delete", icon: "trash", danger: true, run: () => void actions.remove([row.id]) },
      ])),
    ];
  }

  /** @param {import("../table/columns.js").Column} column @param {number} index @returns {import("../core/notice.js").Item[]} */
  function headMenu(column, index) {
    const { group, columns, frozen } = store.state;
    const move = (/** @type {number} */ by) => {
      const next = readColumns(columns);
      next.splice(index + by, 0, ...next.splice(index, 1));
      store.set({ columns: writeColumns(next) });
    };
    return [
      { label: "Lowest first", icon: "up", run: () => store.set({ sort: [column.field] }) },
      { label: "Highest first", icon: "down", run: () => store.set({ sort: [`-${column.field}`] }) },
      { label: "Filter…", icon: "filter", run: () => void filterColumn(column.field) },
      { label: group.includes(column.field) ? "Do not group by it" : "Group by it", icon: "group", run: () => store.set({ group: group.includes(column.field) ? group.filter((/** @type {string} */ each) => each !== column.field) : [...group, column.field] }) },
      "line",
      { label: "Move left", icon: "left", disabled: index === 0, run: () => move(-1) },
      { label: "Move right", icon: "right", disabled: index === columns.length - 1, run: () => move(1) },
      { label: frozen > index ? "Let it scroll" : "Keep beside the name", icon: "pin", run: () => store.set({ frozen: frozen > index ? index : index + 1 }) },
      { label: "Leave out", icon: "close", run: () => store.set({ columns: columns.filter((/** @type {string} */ _, /** @type {number} */ i) => i !== index) }) },
    ];
  }

  /** @param {string} field */
  async function filterColumn(field) {
    const given = await prompt(`Filter by ${field}`, { label: "Condition, such as > 0.9, = 'adam', is null", verb: "Filter" });
    if (given) store.set({ filter: every(store.state.filter, `${field} ${given}`) });
  }

  /** @param {MouseEvent} event */
  async function groupMenu(event) {
    const at = /** @type {Element} */ (event.currentTarget);
    const { group } = store.state;
    const answer = await get("fields", { kind: "params", filter: every(scope(), store.state.filter) }, { signal });
    const fields = ["status", "group", "project", ...answer.fields.map((/** @type {any} */ field) => field.name)];
    menu(at, [
      { label: "No groups", checked: group.length === 0, run: () => store.set({ group: [] }) }, "line",
      ...fields.slice(0, 60).map((/** @type {string} */ field) => ({ label: field, checked: group.includes(field), run: () => store.set({ group: group.includes(field) ? group.filter((/** @type {string} */ each) => each !== field) : [...group, field] }) })),
    ]);
  }

  /** @param {MouseEvent} event */
  function moreMenu(event) {
    const { deleted, archived, columns, first } = store.state;
    menu(/** @type {Element} */ (event.currentTarget), [
      { label: "Download CSV", icon: "download", run: () => void actions.exportCsv(ask(), readColumns(columns).map((column) => column.field)) },
      { label: "Archived runs too", checked: archived, run: () => store.set({ archived: !archived }) },
      { label: "Deleted runs", checked: deleted, run: () => store.set({ deleted: !deleted }) }, "line",
      ...[5, 10, 20, 50, 100].map((n) => ({ label: `Charts show the first ${n}`, checked: first === n, run: () => store.set({ first: n, runs: [] }) })), "line",
      { label: "Table only", checked: store.state.view === "table", run: () => store.set({ view: store.state.view === "table" ? "both" : "table" }) },
    ]);
  }

  return {
    element,
    start() {
      table.renderAll();
      fill(foot, h("span", null, "Loading…"));
      void load();
    },
    focusFilter: () => filter.focus(),
  };
}
