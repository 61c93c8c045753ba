/** One model: its versions and where they stand, what is decided about them, how two differ, and all that ever happened. */

import { get, part, send } from "../core/api.js";
import { bytes, exact, moment, numeric, plain } from "../core/format.js";
import { fill, h, icon, iconButton } from "../core/h.js";
import { onChanges } from "../core/live.js";
import { copyText, menu, prompt } from "../core/notice.js";
import { store } from "../core/state.js";
import { attempt, badge, choice, headOf, may, runLink, since, table, tabsOf } from "./areas.js";
import { historyList, incidentTable } from "./model_history.js";
import { askPromotion } from "./model_promote.js";
import { facts, nothing, show, tree } from "./parts.js";

const TABS = [{ name: "", title: "Versions" }, { name: "compare", title: "Compare" }, { name: "history", title: "History" }, { name: "operation", title: "In use" }];
const TONES = /** @type {Record<string, string>} */ ({ approved: "good", rejected: "bad", pending: "" });

/** @param {import("./index.js").Frame} frame */
export function openModel({ main, signal, info }) {
  const name = store.state.item;
  const base = `models/${part(name)}`;
  const page = h("div");
  fill(main, page);
  /** @type {any} */
  let model;
  const body = h("div.page-body");
  const load = () => show(page, signal, () => get(base, {}, { signal }), (answer) => {
    model = answer;
    return draw();
  }, { none: `There is no model ${name}.` });
  onChanges((changes) => { if (changes.models) void load(); }, signal);
  store.watch(["tab", "version", "other"], () => { if (model) fill(page, draw()); }, signal);
  return load();

  function draw() {
    document.title = `${name} · Runstone`;
    const { tab } = store.state;
    fill(body, tab === "compare" ? compare() : tab === "history" ? historyList(model.history) : tab === "operation" ? operation() : versions());
    return h("div.run-page", null,
      headOf("models", "All models", [h("h1", null, name), Object.entries(model.tags).map(([tag, value]) => badge(value ? `${tag}: ${value}` : tag))], [
        h("a", { href: store.href({ page: "lineage", ref: `model:${name}@${store.state.version || model.latest?.version}` }, { fresh: true }) }, icon("graph"), " Lineage")]),
      tabsOf("Parts of the model", TABS), body);
  }

  function versions() {
    if (!model.versions.length) return nothing("No version is registered.", "model");
    const chosen = model.versions.find((/** @type {any} */ each) => each.version === store.state.version);
    const place = h("div");
    if (chosen) void version(place, chosen);
    return [
      model.notes && h("p.part", null, model.notes),
      h("div.stages", null, model.stages.slice(1).map((/** @type {string} */ stage) => h("section.stage", null, h("h3", null, stage),
        (model.in_stage[stage] ?? []).length ? h("span.row-of", null, model.in_stage[stage].map((/** @type {string} */ each) => h("b", null, link(each))), may(info, "maintainer") && stage !== "archived" && h("button.link", { type: "button", onclick: () => void rollBack(stage) }, "Roll back")) : h("span.faint", null, "nothing")))),
      chosen && place,
      h("div.tile", null, table(["Version", "Stage", "Aliases", "Approval", "Why this number", "Run", "Author", "Registered", ""], model.versions.map((/** @type {any} */ each) => [
        h("b", null, link(each.version)), each.stage === model.stages[0] ? h("span.faint", null, each.stage) : badge(each.stage, each.stage === "production" ? "good" : "accent"),
        h("span.row-of", null, each.aliases.map((/** @type {string} */ alias) => badge(`@${alias}`))), badge(each.approval.state, TONES[each.approval.state] ?? ""),
        each.proposal.reasons?.map((/** @type {any} */ one) => one.what).slice(0, 2).join("; ") ?? each.reason ?? "", each.run && runLink(each.run), each.author, since(each.registered_at),
        h("span.row-of", null, each.withdrawn && badge("withdrawn", "bad"), each.incidents.some((/** @type {any} */ one) => one.closed_at === null) && badge("incident", "bad")),
      ]), { label: "Versions" })),
    ];
  }

  /** @param {string} version */
  function link(version) {
    return h("a", { href: store.href({ tab: "", version }) }, version);
  }

  /** @param {HTMLElement} place @param {any} chosen */
  async function version(place, chosen) {
    const path = `${base}/versions/${part(chosen.version)}`;
    const change = async (/** @type {() => Promise<any>} */ doing, /** @type {string} */ said) => { if (await attempt(doing, said)) void load(); };
    const judge = async (/** @type {"approve" | "reject" | "reopen"} */ word) => {
      const reason = await prompt(`${word === "approve" ? "Approve" : word === "reject" ? "Reject" : "Open again"} ${name}@${chosen.version}`, { label: "Reason, for the history", verb: word === "approve" ? "Approve" : word === "reject" ? "Reject" : "Open again" });
      if (reason !== null) await change(() => send("POST", `${path}/${word}`, { reason: reason || null }), `${chosen.version}: ${word === "approve" ? "approved" : word === "reject" ? "rejected" : "open again"}`);
    };
    const alias = async () => {
      const given = await prompt("Alias", { label: `Name that points to ${chosen.version}`, value: "champion" });
      if (given) await change(() => send("PUT", `${path}/alias`, { alias: given }), `@${given} points to ${chosen.version}`);
    };
    const notes = async () => {
      const given = await prompt("Notes", { label: "Text", value: chosen.notes ?? "" });
      if (given !== null) await change(() => send("PUT", `${path}/tags`, { notes: given || null }), "Notes kept");
    };
    const tag = async () => {
      const given = await prompt("Tag", { label: "name=value" });
      const [key, ...rest] = (given ?? "").split("=");
      if (key) await change(() => send("PUT", `${path}/tags`, { set: { [key.trim()]: rest.join("=").trim() } }), "Tagged");
    };
    const decides = may(info, "maintainer");
    const details = h("div");
    fill(place, h("section.tile", { style: { "margin-bottom": "12px" }, "aria-label": `Version ${chosen.version}` },
      h("div.part", { style: { "margin-top": "0" } }, h("h2", null, `${name}@${chosen.version}`), badge(chosen.approval.state, TONES[chosen.approval.state]), chosen.stage !== model.stages[0] && badge(chosen.stage, "good"),
        chosen.aliases.map((/** @type {string} */ each) => h("span.badge", null, `@${each}`, decides && h("button.link", { type: "button", "aria-label": `Remove the alias ${each}`, onclick: () => void change(() => send("PUT", `${path}/alias`, { alias: each, remove: true }), `@${each} is gone`) }, "×"))),
        h("span.spacer"),
        decides && chosen.approval.state !== "approved" && h("button", { type: "button", onclick: () => void judge("approve") }, icon("check"), "Approve"),
        decides && chosen.approval.state !== "rejected" && h("button", { type: "button", onclick: () => void judge("reject") }, icon("close"), "Reject"),
        decides && h("button.primary", { type: "button", onclick: () => askPromotion({ path, model, chosen, done: () => void load() }) }, icon("up"), "Promote"),
        iconButton("more", "More", (event) => menu(/** @type {Element} */ (event.currentTarget), [
          { label: "Copy reference", icon: "copy", run: () => void copyText(`${name}@${chosen.version}`, "Reference") },
          { label: "Copy Python", run: () => void copyText(`runstone.load_model(${JSON.stringify(`${name}@${chosen.version}`)})`, "Python") },
          ...(may(info, "contributor") ? [{ label: "Notes…", run: () => void notes() }, { label: "Tag…", icon: "tag", run: () => void tag() }] : []),
          ...(decides ? [{ label: "Alias…", run: () => void alias() }, ...(chosen.approval.state === "pending" ? [] : [{ label: "Open the question again…", run: () => void judge("reopen") }])] : []),
        ])), iconButton("close", "Close the version", () => store.set({ version: "" }))), details));
    await show(details, signal, async () => {
      const [whole, card] = await Promise.all([get(path, {}, { signal }), get(`${path}/card`, {}, { signal }).catch(() => null)]);
      return { whole, card };
    }, ({ whole, card }) => {
      const { manifest } = whole;
      return [
        card?.warnings.map((/** @type {string} */ each) => h("div.trouble", { role: "status" }, icon("alert"), each)),
        h("div.tiles", null,
          h("div", null, facts([
            ["Run", whole.run && runLink(whole.run, manifest.run?.name ?? whole.run)], ["Registered", `${moment(whole.registered_at)} by ${whole.author}`], ["Stage since", moment(whole.stage_since)],
            ["Approval", whole.approval.by && `${whole.approval.state} by ${whole.approval.by}${whole.approval.reason ? `: ${whole.approval.reason}` : ""}`],
            ["Why this number", whole.proposal.reasons?.map((/** @type {any} */ one) => one.what).join("; ")], ["Notes", whole.notes], ["Tags", Object.keys(whole.tags).length > 0 && Object.entries(whole.tags).map(([key, value]) => [badge(value ? `${key}: ${value}` : key), " "])],
            ["Flavour", manifest.flavour], ["Hash", h("span.mono", null, whole.hash)],
          ])),
          h("div", null, h("h3", null, "Files"), table(["File", { title: "Size", number: true }, "blake3"], manifest.files.map((/** @type {any} */ file) => [file.path, bytes(file.size_bytes), h("span.mono.faint", { title: file.hash }, `${file.hash.slice(0, 12)}…`)]))),
          Object.keys(manifest.metrics ?? {}).length > 0 && h("div", null, h("h3", null, "Metrics when it was registered"), facts(Object.entries(manifest.metrics).map(([key, value]) => [key, exact(Number(numeric(value)))]))),
          Object.keys(manifest.recipe?.params ?? {}).length > 0 && h("div", null, h("h3", null, "Params"), h("div.tree", null, tree(manifest.recipe.params))),
          manifest.recipe?.data?.length > 0 && h("div", null, h("h3", null, "Data"), facts(manifest.recipe.data.map((/** @type {any} */ each) => [each.role ?? "input", h("a", { href: store.href({ page: "datasets", item: each.name, version: each.version ?? "" }, { fresh: true }) }, `${each.name}${each.version ? `@${each.version}` : ""}`)]))),
          manifest.signature && h("div", null, h("h3", null, "Signature"), h("div.tree", null, tree(manifest.signature)))),
        card && h("details.part", null, h("summary", null, "Card"), cardOf(card)),
      ];
    });
  }

  /** @param {any} card */
  function cardOf(card) {
    return h("div.report", null, card.notes.map((/** @type {string} */ each) => h("p", null, each)), card.tables.map((/** @type {any} */ each) => [h("h3", null, each.title), each.rows.length > 0 && table(each.heads, each.rows.map((/** @type {any[]} */ row) => row.map(plain))), each.note && h("p.faint", null, each.note)]),
      h("button", { type: "button", onclick: () => void copyText(card.markdown, "Card as Markdown") }, icon("copy"), "Copy Markdown"));
  }

  /** @param {string} stage */
  async function rollBack(stage) {
    const reason = await prompt(`Bring back what was in ${stage} before`, { label: "Reason, for the history", verb: "Roll back" });
    if (reason && await attempt(() => send("POST", `${base}/rollback`, { stage, reason }), `${stage} was rolled back`)) void load();
  }

  function compare() {
    const all = model.versions.map((/** @type {any} */ each) => ({ value: each.version, text: `${each.version}${each.stage === model.stages[0] ? "" : `, ${each.stage}`}` }));
    if (all.length < 2) return nothing("Two versions are needed.", "compare");
    const left = store.state.other || all.at(1).value;
    const right = store.state.version || all[0].value;
    const place = h("div");
    void show(place, signal, () => get(`${base}/compare`, { a: left, b: right }, { signal }), (answer) => {
      const section = (/** @type {string} */ title, /** @type {any} */ of) => Object.keys(of).length > 0 && h("section.tile", null, h("h2", null, title), table(["", left, right, ""], Object.entries(of).map(([key, each]) => [key, cell(each.left), cell(each.right), delta(each)])));
      const none = ["metrics", "params", "data", "facts"].every((key) => !Object.keys(answer[key]).length) && !answer.schema.length;
      return none ? nothing("The two do not differ.", "check") : h("div.tiles", null, section("Metrics", answer.metrics), section("Params", answer.params), section("Data", answer.data),
        answer.schema.length > 0 && h("section.tile", null, h("h2", null, "Signature"), h("ul", null, answer.schema.map((/** @type {any} */ each) => h("li", null, each.breaking && badge("breaks", "bad"), " ", each.what)))), section("Other facts", answer.facts));
    });
    return [h("div.part", null, choice("Version on the left", all, left, (value) => store.set({ other: value })), "against", choice("Version on the right", all, right, (value) => store.set({ version: value }))), place];
  }

  /** @param {any} value */
  function cell(value) {
    return (value === null || value === undefined ? h("i.faint", null, "missing") : plain(numeric(value)));
  }

  /** @param {{left: any, right: any}} each */
  function delta({ left, right }) {
    return (typeof left === "number" && typeof right === "number" ? h("span.faint", null, `${right >= left ? "+" : ""}${plain(right - left)}`) : "");
  }

  function operation() {
    const deployed = model.versions.flatMap((/** @type {any} */ each) => each.deployments);
    const incidents = model.versions.flatMap((/** @type {any} */ each) => each.incidents);
    return h("div.tiles", null,
      h("section.tile", null, h("h2", null, "Deployments"), deployed.length ? table(["Place", "Version", { title: "Replicas", number: true }, "Address", "Since", "Until"], deployed.map((/** @type {any} */ each) => [each.target, link(each.version), each.replicas ?? "", each.url ?? "", since(each.at), each.ended_at ? moment(each.ended_at) : badge("now", "good")])) : h("p.faint", null, "It is not deployed anywhere: runstone models deployed NAME@V PLACE")),
      h("section.tile", null, h("h2", null, "Incidents"), incidentTable(incidents)));
  }
}
