// Times as people read them: relative, in the viewer's zone, and growing where they still grow.
const SECOND = 1000, MINUTE = 60 * SECOND, HOUR = 60 * MINUTE, DAY = 24 * HOUR;
const UNITS = [[DAY, "d"], [HOUR, "h"], [MINUTE, "min"], [SECOND, "s"]];
const full = new Intl.DateTimeFormat(undefined, {
  year: "numeric", month: "short", day: "2-digit", hour: "2-digit", minute: "2-digit",
  second: "2-digit", fractionalSecondDigits: 3, hourCycle: "h23",
});
const clock = new Intl.DateTimeFormat(undefined, {
  month: "short", day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit",
  hourCycle: "h23",
});

function ago(difference) {
  const size = Math.abs(difference);
  if (size < SECOND) return difference > 0 ? "in a moment" : "just now";
  const place = UNITS.findIndex(([length]) => size >= length);
  const [length, unit] = UNITS[place];
  let text = `${Math.floor(size / length)}\u00a0${unit}`;
  // Times to come are more exact, from an hour on.
  const [part, smaller] = UNITS[place + 1] ?? [];
  const rest = Math.floor((size % length) / part);
  if (difference > 0 && length >= HOUR && rest) text += `\u00a0${rest}\u00a0${smaller}`;
  return difference > 0 ? `in\u00a0${text}` : `${text} ago`;
}

function duration(ms) {
  const seconds = Math.max(0, ms) / 1000;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  const minutes = Math.floor(seconds / 60), hours = Math.floor(minutes / 60);
  if (hours >= 24) return `${Math.floor(hours / 24)} d ${hours % 24} h`;
  return hours ? `${hours} h ${minutes % 60} min` : `${minutes} min ${Math.floor(seconds % 60)} s`;
}

export function refresh() {
  const now = Date.now();
  for (const element of document.querySelectorAll("time[data-when]")) {
    const at = new Date(element.dateTime);
    element.title = `${full.format(at)} · ${element.dateTime}`;
    const text = element.dataset.when === "ago" ? ago(at - now) : clock.format(at);
    if (element.textContent !== text) element.textContent = text;
  }
  for (const element of document.querySelectorAll("[data-since]")) {
    element.textContent = duration(now - new Date(element.dataset.since));
  }
}

export function start() {
  refresh();
  setInterval(refresh, SECOND);
  const { timeZone } = Intl.DateTimeFormat().resolvedOptions();
  document.querySelector("[data-zone]").textContent = `Times in ${timeZone}`;
}
