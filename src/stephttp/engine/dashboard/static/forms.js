// Confirmation before what cannot be undone, choosing many rows, copying, and small helpers.
const dialog = () => document.querySelector("[data-confirm-dialog]");

function ask(form, button) {
  const box = dialog();
  box.querySelector("#confirm-text").textContent = button.dataset.confirm;
  box.querySelector("[data-confirm-yes]").textContent = button.textContent.trim();
  box.showModal();
  box.addEventListener("close", () => {
    if (box.returnValue !== "yes") return;
    button.dataset.confirmed = "yes";
    form.requestSubmit(button);
  }, { once: true });
}

async function copy(button) {
  const text = button.dataset.copyText
    ?? button.closest("section, .snippet")?.querySelector("pre")?.innerText ?? "";
  await navigator.clipboard.writeText(text);
  const label = button.querySelector("span");
  if (!label) return;
  const before = label.textContent;
  label.textContent = "Copied";
  setTimeout(() => { label.textContent = before; }, 1500);
}

function complaint(text) {
  if (!text.trim()) return "";
  try { JSON.parse(text); } catch (error) { return `data: not valid JSON: ${error.message}`; }
  return "";
}

// The server looks as well; here the editor keeps what was written, and the place in it.
function checked(area) {
  const message = complaint(area.value);
  const shown = document.getElementById(area.getAttribute("aria-describedby"));
  shown.textContent = message;
  shown.hidden = !message;
  area.toggleAttribute("aria-invalid", false);
  if (message) area.setAttribute("aria-invalid", "true");
  return !message;
}

const boxes = () => [...document.querySelectorAll('[data-bulk] input[name="run"]')];

export function refresh() {
  const chosen = document.querySelector("[data-chosen]");
  if (!chosen) return;
  const all = document.querySelector('[name="scope"]')?.checked;
  const count = boxes().filter((box) => box.checked).length;
  chosen.textContent = all ? "All chosen" : count ? `${count} chosen` : "None chosen";
  const every = document.querySelector("[data-choose-all]");
  every.checked = count > 0 && count === boxes().length;
  every.indeterminate = count > 0 && count < boxes().length;
  for (const button of document.querySelectorAll("[data-bulk] button[name]")) {
    button.disabled = !all && !count;
  }
}

export function start() {
  document.addEventListener("submit", (event) => {
    const area = event.target.matches("[data-checks-json]") && event.target.querySelector("textarea");
    if (area && !checked(area)) {
      event.preventDefault();
      area.focus();
    }
    const button = event.submitter;
    if (!button?.dataset.confirm) return;
    if (button.dataset.confirmed) delete button.dataset.confirmed;
    else {
      event.preventDefault();
      ask(event.target, button);
    }
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-copy], [data-copy-text]");
    if (button) copy(button);
    if (event.target.closest("[data-help]")) document.querySelector("[data-help-dialog]").showModal();
    if (event.target.closest("[data-theme-toggle]")) turnTheme();
  });
  document.addEventListener("change", (event) => {
    const { target } = event;
    if (target.matches("[data-choose-all]")) {
      for (const box of boxes()) box.checked = target.checked;
    }
    if (target.matches("[data-span]")) {
      document.querySelector("[data-custom]").hidden = target.value !== "custom";
    }
    if (target.closest(".choices") && target.value === "again") return;
    refresh();
  });
  // Typing a value chooses to use it.
  document.addEventListener("input", (event) => {
    if (event.target.matches('[data-checks-json] [aria-invalid="true"]')) checked(event.target);
    const form = event.target.matches('textarea[name="value"]') && event.target.form;
    const again = form && form.querySelector('[name="use"][value="again"]');
    if (again?.checked) (form.querySelector('[value="input"]') ?? form.querySelector('[value="output"]')).checked = true;
  });
  const zone = document.querySelector("[data-zone-offset]");
  if (zone) zone.value = new Date().getTimezoneOffset();
  refresh();
}

export function turnTheme() {
  const root = document.documentElement;
  const theme = root.dataset.theme === "dark" ? "light" : "dark";
  root.dataset.theme = theme;
  try { localStorage.setItem("stephttp-theme", theme); } catch { /* then it is for this page only */ }
  document.dispatchEvent(new CustomEvent("theme"));
}
