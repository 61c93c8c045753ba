/** Who may use this server: users and their roles, tokens, and who did what. */

import { get, part, send } from "../core/api.js";
import { moment } from "../core/format.js";
import { fill, h, icon } from "../core/h.js";
import { confirm, copyText, dialog } from "../core/notice.js";
import { store } from "../core/state.js";
import { attempt, badge, choice, head, searched, since, table, tabsOf } from "./areas.js";
import { show } from "./parts.js";

const TABS = [{ name: "", title: "Users" }, { name: "tokens", title: "Tokens" }, { name: "audit", title: "Audit log" }];
const ROLES = ["viewer", "contributor", "maintainer", "admin"];
const LINES = 500;

/** @param {import("./index.js").Frame} frame */
export function open({ main, signal }) {
  const tabs = h("div");
  const body = h("div.page-body");
  fill(main, h("div.run-page", null, head(h("h1", null, "Server")), tabs, body));
  store.watch(["tab"], draw, signal);
  return draw();

  function draw() {
    fill(body);
    fill(tabs, tabsOf("Parts of the server", TABS));
    return store.state.tab === "tokens" ? tokens() : store.state.tab === "audit" ? audit() : users();
  }

  function users() {
    return show(body, signal, () => get("users", {}, { signal }), (answer) => [
      h("div.part", null, h("span.faint", null, "A role holds in a project, or in all of them (*)."), h("span.spacer"), h("button.primary", { type: "button", onclick: addUser }, icon("plus"), "Add user")),
      answer.users.length ? h("div.tile", null, table(["User", "Roles", { title: "Tokens", number: true }, "Since", ""], answer.users.map((/** @type {any} */ each) => [
        each.name, h("span.row-of", null, Object.entries(each.roles).map(([project, role]) => h("span.badge", null, `${project}: ${role}`, h("button.link", { type: "button", "aria-label": `Take ${role} in ${project} from ${each.name}`, onclick: () => void setRole(each.name, project, null) }, "×")))), each.tokens, since(each.created_at),
        h("span.row-of", null, h("button", { type: "button", onclick: () => giveRole(each.name) }, "Role…"), h("button", { type: "button", onclick: () => addToken(each.name) }, "Token…"), h("button.danger", { type: "button", onclick: () => void removeUser(each.name) }, "Remove")),
      ]), { label: "Users" })) : h("div.empty", null, h("h2", null, "No user yet"), h("p", null, "Whoever is on this machine uses the page by a key. A server for others needs users and their tokens.")),
    ]);
  }

  /** @param {string} title @param {string} verb @param {import("../core/h.js").Child} fields @param {() => Promise<any>} doing */
  function form(title, verb, fields, doing) {
    dialog(title, (close) => h("form", { method: "dialog", onsubmit: async (/** @type {Event} */ event) => {
      event.preventDefault();
      const done = await attempt(doing);
      if (done) { close(); draw(); }
    } }, fields, h("div.actions", null, h("button", { type: "button", onclick: close }, "Cancel"), h("button.primary", { type: "submit" }, verb))));
  }

  function roles() {
    return choice("Role", ROLES.map((value) => ({ value })), "viewer", () => {});
  }

  function addUser() {
    const name = h("input", { type: "text", required: true, autofocus: true });
    const role = roles();
    const project = h("input", { type: "text", value: "*" });
    form("Add user", "Add", [h("label.stack", null, "Name", name), h("label.stack", null, "Role", role), h("label.stack", null, "Project; * is all of them", project)], () => send("POST", "users", { name: name.value, role: role.value, project: project.value }));
  }

  /** @param {string} user */
  function giveRole(user) {
    const role = roles();
    const project = h("input", { type: "text", value: "*" });
    form(`Role of ${user}`, "Give", [h("label.stack", null, "Role", role), h("label.stack", null, "Project; * is all of them", project)], () => send("PUT", `users/${part(user)}/role`, { role: role.value, project: project.value }));
  }

  /** @param {string} user @param {string} project @param {string | null} role */
  async function setRole(user, project, role) {
    if (await attempt(() => send("PUT", `users/${part(user)}/role`, { role, project }), `${user} has no role in ${project} any more`)) draw();
  }

  /** @param {string} user */
  async function removeUser(user) {
    if (await confirm(`Remove ${user}?`, "Their tokens and sessions end at once. What they did stays in the histories.", "Remove") && await attempt(() => send("DELETE", `users/${part(user)}`), `${user} was removed`)) draw();
  }

  /** @param {string} user */
  function addToken(user) {
    const label = h("input", { type: "text", autofocus: true, placeholder: "What it is for" });
    const days = h("input", { type: "number", min: "1", placeholder: "until it is revoked" });
    form(`Token for ${user}`, "Make", [h("label.stack", null, "Label", label), h("label.stack", null, "Days until it ends", days)], async () => {
      const made = await send("POST", "tokens", { user, label: label.value, days: days.value ? Number(days.value) : null });
      setTimeout(() => dialog("A new token", () => [h("p", null, "This is the only time that it is shown."), h("code.token", null, made.token), h("div.actions", null, h("button.primary", { type: "button", onclick: () => void copyText(made.token, "Token") }, icon("copy"), "Copy"))]));
      return made;
    });
  }

  function tokens() {
    return show(body, signal, () => get("tokens", {}, { signal }), (answer) => (answer.tokens.length ? h("div.tile", { style: { "margin-top": "12px" } }, table([{ title: "Id", number: true }, "User", "Label", "Made", "Used", "Ends", ""], answer.tokens.map((/** @type {any} */ each) => [
      each.id, each.user, each.label, since(each.created_at), since(each.used_at) || h("span.faint", null, "never"), each.revoked_at ? badge("revoked", "bad") : each.expires_at ? moment(each.expires_at) : "",
      !each.revoked_at && h("button.danger", { type: "button", onclick: () => void revoke(each) }, "Revoke"),
    ]), { label: "Tokens" })) : h("div.empty", null, h("h2", null, "No token yet"), h("p", null, "Tokens are made for users: on the tab Users."))));
  }

  /** @param {any} token */
  async function revoke(token) {
    if (await confirm(`Revoke token ${token.id} of ${token.user}?`, "Whoever uses it is refused from now on.", "Revoke") && await attempt(() => send("DELETE", `tokens/${token.id}`), "The token works no more")) draw();
  }

  function audit() {
    return show(body, signal, () => get("audit", { limit: LINES }, { signal }), (answer) => (answer.lines.length ? searched({
      items: answer.lines, label: "Search the audit log", words: (each) => `${each.user} ${each.action} ${each.target}`,
      make: (found) => table(["When", "Who", "What", "On", { title: "Status", number: true }, "From"], found.map((each) => [moment(each.at), each.user, each.action, each.target, h("span", { class: each.status >= 400 ? "bad" : "" }, each.status), each.address]), { label: "Audit log" }),
    }) : h("p.faint.part", null, "Nothing was changed yet.")));
  }
}
