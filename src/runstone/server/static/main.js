/** The frame of the page: navigation, which page is open, what holds everywhere. */

import { connection, get, send } from "./core/api.js";
import { moment } from "./core/format.js";
import { fill, h, icon, iconButton } from "./core/h.js";
import { bind, listenToKeys } from "./core/keys.js";
import { follow, onChanges } from "./core/live.js";
import { prompt, toast } from "./core/notice.js";
import { byName } from "./core/pattern.js";
import { store } from "./core/state.js";
import { followTheme, theme } from "./core/theme.js";
import { pages } from "./pages/index.js";
import { openSearch } from "./pages/search.js";

const banner = h("div.banner", { role: "alert", "aria-live": "assertive" });
const nav = h("nav.nav", { "aria-label": "Pages" });
const main = h("main.main", { id: "main", tabIndex: -1 });
const forever = new AbortController().signal;
let info = /** @type {any} */ ({ features: [] });
/** @type {any[]} */
let projects = [];
let closing = new AbortController();

/** @param {MouseEvent} event  links inside the page change the state, they do not load it again */
function onLink(event) {
  const link = event.target instanceof Element ? event.target.closest("a") : null;
  if (!link || event.defaultPrevented || event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  const href = link.getAttribute("href") ?? "";
  if (!href.startsWith("?") || link.target || link.hasAttribute("download")) return;
  event.preventDefault();
  store.open(href);
}

async function openPage() {
  closing.abort();
  closing = new AbortController();
  const { signal } = closing;
  const page = pages.find((each) => each.name === store.state.page) ?? pages[0];
  document.title = `${page.title} · Runstone`;
  drawNav();
  try {
    const { open } = await page.load();
    if (signal.aborted) return;
    fill(main);
    main.scrollTop = 0;
    await open({ main, signal, info });
  } catch (error) {
    if (signal.aborted) return;
    fill(main, h("div.page-body", null, h("div.trouble", { role: "alert" }, icon("alert"), `This page could not be opened: ${/** @type {Error} */ (error).message}`)));
    throw error;
  }
}

function drawNav() {
  const { page, project } = store.state;
  fill(nav,
    h("a.brand", { href: store.href({ page: "runs" }, { fresh: true }) }, h("img", { src: brandIcon, alt: "" }), "Runstone"),
    pages.filter((each) => each.inNav && (!each.feature || info.features?.includes(each.feature)) && (!each.role || info.user?.role === each.role)).map((each) => h("a.nav-link", {
      href: store.href({ page: each.name, project, ...(each.name === "compare" && { runs: store.state.runs }) }, { fresh: true }),
      "aria-current": each.name === page || (page === "run" && each.name === "runs") ? "page" : "false",
      title: each.key ? `${each.title} (${each.key})` : each.title,
    }, icon(each.icon), each.title)),
    projects.length > 0 && h("div.projects", null, h("h2", null, "Projects"),
      [{ name: "", runs: projects.reduce((sum, each) => sum + each.runs, 0), running: 0 }, ...projects].map((each) => h("a.project", {
        href: store.href({ page: "runs", project: each.name }, { fresh: true }), "aria-current": String(project === each.name && page === "runs"), title: each.name || "All projects",
      }, h("span", null, each.name || "All projects"),
      each.running > 0 && h("span.badge", { data: { status: "running" } }, each.running), h("span.faint.figure", null, each.runs)))),
    h("div.nav-foot", null,
      h("span.workspace.faint", { title: `Workspace ${info.workspace ?? ""}, version ${info.version ?? ""}` }, info.workspace ?? ""),
      iconButton("search", "Search (Ctrl+K)", () => openSearch(projects)),
      iconButton(theme.now === "dark" ? "sun" : "moon", "Light or dark (d)", () => theme.toggle()),
      iconButton("help", "Keys (?)", () => document.dispatchEvent(new KeyboardEvent("keydown", { key: "?", bubbles: true })))));
}

async function loadProjects() {
  const answer = await get("projects");
  projects = answer.projects.sort((/** @type {any} */ a, /** @type {any} */ b) => byName(a.name, b.name));
  drawNav();
}

async function login() {
  if (document.querySelector("dialog.login")) return;
  const token = await prompt("Who are you?", { label: "Token of this server", verb: "Sign in" });
  if (!token) return;
  try {
    await send("POST", "login", { token });
    location.reload();
  } catch (error) {
    toast(/** @type {Error} */ (error).message, { error: true });
  }
}

connection.addEventListener("lost", () => fill(banner, h("div.banner-text", null, icon("alert"), `The server does not answer (since ${moment(Date.now() / 1000).slice(11)}). What you see stays; trying again…`)));
connection.addEventListener("found", () => fill(banner));
connection.addEventListener("locked", () => void login());

const brandIcon = new URL("icon.svg", import.meta.url).href;

async function start() {
  fill(document.body, h("div.app", null, banner, nav, main));
  followTheme();
  listenToKeys();
  document.addEventListener("click", onLink);
  theme.watch(drawNav, forever);
  store.watch(["page", "run"], () => void openPage());
  store.watch(["project", "runs"], drawNav);
  onChanges((changes) => changes.projects && void loadProjects(), forever);
  bind([
    ...pages.filter((each) => each.key).map((each) => ({ keys: /** @type {string} */ (each.key), label: each.title, run: () => store.set({ page: each.name }) })),
    { keys: "Ctrl+k", label: "Search projects, runs and pages", run: () => openSearch(projects) },
    { keys: "d Alt+m", label: "Light or dark", run: () => theme.toggle() },
    { keys: "s", label: "Smoothing on or off", run: () => store.set({ smooth: store.state.smooth.endsWith(":0") ? "ema:0.6" : "none:0" }) },
  ]);
  try {
    const [told, now] = await Promise.all([get("info"), get("changes")]);
    info = told;
    follow(now.cursor);
    void loadProjects();
  } catch (error) {
    fill(main, h("div.empty", null, icon("alert"), h("h2", null, "The server cannot be asked"), h("p", null, /** @type {Error} */ (error).message),
      h("button", { type: "button", onclick: () => location.reload() }, "Try again")));
    return;
  }
  await openPage();
}

void start();
