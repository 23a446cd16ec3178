// Keyboard shortcuts; the dialog in base.html lists them.
import { turnTheme } from "./forms.js";

const LEAVES = "input, select, textarea, [contenteditable]";
let went = 0;

function rows() {
  return [...document.querySelectorAll("[data-rows] [data-row]")];
}

function move(by) {
  const all = rows();
  if (!all.length) return;
  const here = all.findIndex((row) => row.contains(document.activeElement));
  const next = all[Math.max(0, Math.min(all.length - 1, here < 0 ? (by > 0 ? 0 : all.length - 1) : here + by))];
  next.querySelector("th a, summary, a")?.focus();
}

const ACTIONS = {
  "/": () => document.querySelector("[data-search]")?.focus(),
  j: () => move(1),
  k: () => move(-1),
  x: () => {
    const box = document.activeElement.closest("[data-row]")?.querySelector('input[name="run"]');
    box?.click();
  },
  t: turnTheme,
  "?": () => document.querySelector("[data-help-dialog]").showModal(),
};

export function start() {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape" && event.target.matches("[data-search]")) event.target.blur();
    const typing = event.target.matches(LEAVES) && !event.target.matches('[type="checkbox"], [type="radio"]');
    if (typing || document.querySelector("dialog[open]")) return;
    if (went && Date.now() - went < 1500) {
      went = 0;
      const link = document.querySelector(`[data-go="${CSS.escape(event.key)}"]`);
      if (link) return link.click();
    }
    if (event.key === "g") went = Date.now();
    else if (ACTIONS[event.key]) {
      event.preventDefault();
      ACTIONS[event.key]();
    }
  });
}
