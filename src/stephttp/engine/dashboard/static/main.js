// Pages work without scripts; scripts make them live and quick.
import { start as startTimes, refresh as refreshTimes } from "./times.js";
import { start as startLive } from "./live.js";
import { start as startPlots, refresh as refreshPlots } from "./plots.js";
import { start as startKeys } from "./keys.js";
import { start as startForms, refresh as refreshForms } from "./forms.js";

// What the viewer has opened, chosen or typed stays when the server's version replaces the page.
const kept = {
  open: (element) => element instanceof HTMLDetailsElement,
  checked: (element) => element instanceof HTMLInputElement,
  class: (element) => element.matches("[data-row]"),
};
Object.assign(Idiomorph.defaults.callbacks, {
  beforeAttributeUpdated: (name, element) => !kept[name]?.(element),
  beforeNodeMorphed: (old, fresh) => {
    if (!(old instanceof Element)) return true;
    if (old instanceof HTMLTextAreaElement || old.matches("[data-checks-json] .field-error")) return false;
    if (old instanceof HTMLTimeElement && fresh.dateTime === old.dateTime) return false;
    if (old.matches("[data-plot]")) {
      old.dataset.points = fresh.dataset.points;
      return false;
    }
    return true;
  },
  afterNodeAdded: (node) => {
    if (node instanceof Element && node.matches("tr[data-row]")) node.classList.add("arrived");
  },
});

startTimes();
startForms();
startKeys();
startPlots();
startLive();
document.addEventListener("htmx:afterSwap", () => {
  refreshTimes();
  refreshPlots();
  refreshForms();
});
