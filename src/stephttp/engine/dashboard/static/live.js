// Follows the engine's changes and has parts of the page look again when they concern them.
//
// One connection a page, closed while the page is hidden: browsers allow only six to a server. When
// it is lost it is opened again with growing delays; the next look shows what was missed.
const FIRST_DELAY = 500, LONGEST_DELAY = 30_000;
const SHORTEST_PAUSE = { overview: 2000, other: 300 };
const STILL_GROWING = 1000;

let source = null;
let failures = 0;
let retry = 0;
const pending = new Map();
const looked = new WeakMap();

function show(state, text) {
  const element = document.querySelector("[data-live-state]");
  if (!element) return;
  element.dataset.liveState = state;
  element.querySelector("span").textContent = text;
}

function lookAgain(element) {
  if (pending.has(element.id)) return;
  const pause = SHORTEST_PAUSE[element.dataset.live] ?? SHORTEST_PAUSE.other;
  const since = Date.now() - (looked.get(element) ?? 0);
  pending.set(element.id, setTimeout(() => {
    pending.delete(element.id);
    // It may have been replaced meanwhile.
    const present = document.getElementById(element.id);
    if (!present) return;
    looked.set(present, Date.now());
    // A list may have been filtered since it was made: the address says what it shows.
    present.setAttribute("hx-get", location.pathname + location.search);
    htmx.process(present);
    htmx.trigger(present, "look-again");
  }, Math.max(0, pause - since)));
}

function concerns(element, change) {
  const kinds = (element.dataset.live ?? "").split(" ");
  if (change.all || element.dataset.liveRun && change.runs.includes(element.dataset.liveRun)) return true;
  if (change.runs.length && (kinds.includes("runs") || kinds.includes("overview"))) return true;
  return change.events && kinds.includes("events");
}

function tell(change) {
  for (const element of document.querySelectorAll("[data-live], [data-live-run]")) {
    if (concerns(element, change)) lookAgain(element);
  }
}

function open() {
  close();
  if (document.hidden) return;
  source = new EventSource("/live");
  source.addEventListener("hello", (message) => {
    show("on", "Live");
    if (failures || message.data !== document.body.dataset.seen) tell({ all: true, runs: [], events: true });
    failures = 0;
  });
  source.onmessage = (message) => tell(JSON.parse(message.data));
  source.onerror = () => {
    close();
    failures += 1;
    const delay = Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** (failures - 1));
    show("lost", "Reconnecting");
    retry = setTimeout(open, delay * (0.75 + Math.random() / 2));
  };
}

function close() {
  clearTimeout(retry);
  source?.close();
  source = null;
}

export function start() {
  if (!document.querySelector("[data-live-state]")) return;
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      close();
      show("off", "Paused");
      failures ||= 1;
    } else open();
  });
  addEventListener("pagehide", close);
  addEventListener("pageshow", (event) => event.persisted && open());
  // Bars of open spans grow, although nothing changes in the database.
  setInterval(() => {
    const element = document.querySelector('[data-open-run="running"]');
    if (element && source && !document.hidden) lookAgain(element);
  }, STILL_GROWING);
  open();
}
