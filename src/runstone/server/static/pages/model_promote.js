/** Promote a version: which gates hold is asked first, and shown. */

import { send } from "../core/api.js";
import { fill, h, icon } from "../core/h.js";
import { dialog, toast } from "../core/notice.js";
import { choice } from "./areas.js";
import { trouble } from "./parts.js";

/**
 * @param {object} how
 * @param {string} how.path  of the version
 * @param {any} how.model
 * @param {any} how.chosen  the version
 * @param {() => void} how.done
 */
export function askPromotion({ path, model, chosen, done }) {
  const stages = model.stages.filter((/** @type {string} */ stage) => stage !== chosen.stage);
  let stage = stages.includes("production") ? "production" : stages[0];
  const gates = h("div", { "aria-live": "polite" });
  const reason = h("input", { type: "text", "aria-label": "Reason, for the history", placeholder: "Why" });
  const others = h("input", { type: "checkbox" });
  const go = h("button.primary", { type: "submit", disabled: true }, "Promote");
  dialog(`Promote ${model.name}@${chosen.version}`, (close) => [h("form", { method: "dialog", onsubmit: (/** @type {Event} */ event) => { event.preventDefault(); void promote(close); } },
    h("label.stack", null, "Stage", choice("Stage", stages.map((/** @type {string} */ value) => ({ value })), stage, (value) => { stage = value; void ask(); })),
    gates,
    h("label.stack", null, "Reason, for the history", reason),
    h("label.row-of", null, others, "Versions that are there stay beside it"),
    h("div.actions", null, h("button", { type: "button", onclick: close }, "Cancel"), go)),
  ]);
  void ask();

  async function ask() {
    const wanted = stage;
    go.disabled = true;
    fill(gates, h("p.faint", null, "Asking the gates…"));
    try {
      const answer = await send("PUT", `${path}/stage`, { stage, dry_run: true });
      if (wanted === stage) tell(answer);
    } catch (error) {
      if (wanted === stage) fill(gates, trouble(/** @type {Error} */ (error).message));
    }
  }

  /** @param {any} answer  what the gates found */
  function tell(answer) {
    const there = answer.stage === "archived" ? [] : (model.in_stage[answer.stage] ?? []).filter((/** @type {string} */ version) => version !== chosen.version);
    go.disabled = !answer.allowed;
    fill(gates, h("p", { class: answer.allowed ? "good" : "bad" }, icon(answer.allowed ? "check" : "alert"), " ", answer.headline),
      h("div.gates", { role: "list", "aria-label": "Gates" }, answer.checks.map((/** @type {any} */ check) => h("div.gate", { role: "listitem", data: { passed: check.passed } },
        h("span", { class: check.passed ? "good" : "bad" }, icon(check.passed ? "check" : "close")), h("b", null, check.gate), h("span.faint", null, check.detail)))),
      there.length > 0 && h("p.faint", null, `${there.join(", ")} leaves ${answer.stage}, unless it stays beside it.`));
  }

  /** @param {() => void} close */
  async function promote(close) {
    go.disabled = true;
    try {
      const answer = await send("PUT", `${path}/stage`, { stage, reason: reason.value || null, keep_others: others.checked });
      tell(answer);
      if (!answer.promoted) return;
      close();
      toast(answer.headline);
      done();
    } catch (error) {
      fill(gates, trouble(/** @type {Error} */ (error).message));
    }
  }
}
