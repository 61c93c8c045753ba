/** Light and dark: as the system says, or as chosen. And the colours of runs, which depend on it. */

import { runColour } from "./colour.js";
import { store } from "./state.js";

const system = matchMedia("(prefers-color-scheme: dark)");
/** @type {Set<() => void>} */
const listeners = new Set();

export const theme = {
  /** @returns {"light" | "dark"} */
  get now() {
    const chosen = store.state.theme;
    return chosen === "light" || chosen === "dark" ? chosen : system.matches ? "dark" : "light";
  },
  toggle() {
    store.set({ theme: theme.now === "dark" ? "light" : "dark" });
  },
  /** Colours have changed: paint again. @param {() => void} react @param {AbortSignal} signal */
  watch(react, signal) {
    listeners.add(react);
    signal.addEventListener("abort", () => listeners.delete(react));
  },
};

function apply() {
  document.documentElement.dataset.theme = theme.now;
  for (const react of [...listeners]) react();
}

/** Begin. */
export function followTheme() {
  system.addEventListener("change", apply);
  store.watch(["theme"], apply);
  apply();
}

/** @param {string} id @param {string | null} [chosen]  what the run's tag `colour` says */
export const colourOf = (id, chosen) => (chosen && /^#[0-9a-f]{6}$/i.test(chosen) ? chosen : runColour(id, theme.now));
