// Charts of the overview.
const HEIGHT = 176, LOW_HEIGHT = 140;
const DAY = 86_400;
const plots = new Map();

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function short(ms) {
  if (ms == null) return "";
  if (ms < 1000) return `${ms < 10 ? +ms.toFixed(1) : Math.round(ms)} ms`;
  if (ms < 60_000) return `${+(ms / 1000).toFixed(1)} s`;
  if (ms < 3_600_000) return `${Math.round(ms / 60_000)} min`;
  return ms < 86_400_000 ? `${+(ms / 3_600_000).toFixed(1)} h` : `${+(ms / 86_400_000).toFixed(1)} d`;
}

function when(at, ticks) {
  const date = new Date(at * 1000);
  const whole = ticks.length > 1 && ticks[1] - ticks[0] >= DAY;
  return whole
    ? date.toLocaleDateString(undefined, { month: "short", day: "numeric" })
    : date.toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
}

function axes(format) {
  const shared = {
    stroke: colour("--ink-3"), font: `11px ${colour("--mono")}`,
    grid: { stroke: colour("--grid"), width: 1 }, ticks: { show: false },
  };
  return [
    { ...shared, grid: { show: false }, space: 64, size: 24, gap: 6, values: (_, ticks) => ticks.map((at) => when(at, ticks)) },
    { ...shared, size: (plot, values) => values ? 14 + 7 * Math.max(...values.map((value) => value.length)) : 40, gap: 6, space: 32, values: (_, ticks) => ticks.map(format) },
  ];
}

function bars(points) {
  const paths = uPlot.paths.bars({ size: [0.72, 14], radius: 0.15 });
  const total = points.completed.map((value, index) => value + points.failed[index]);
  const series = [
    { paths, fill: colour("--failed"), width: 0, points: { show: false } },
    { paths, fill: colour("--p50"), width: 0, points: { show: false } },
  ];
  // The failed ones stand on top of the completed ones, so the sum is painted first.
  return { data: [points.at, total, points.completed], series, format: (value) => value % 1 ? "" : String(value), zero: true };
}

function lines(points, name) {
  const line = (token) => ({
    stroke: colour(token), width: 1.75, spanGaps: true, points: { show: (plot, index) => plot.data[index].filter((v) => v != null).length < 12, size: 5, fill: colour(token) },
  });
  return {
    data: [points.at, points[`${name}_p95`], points[`${name}_p50`]],
    series: [line("--p95"), line("--p50")], format: short, zero: true,
  };
}

function draw(host) {
  const points = JSON.parse(host.dataset.points);
  const made = host.dataset.plot === "runs" ? bars(points) : lines(points, host.dataset.plot);
  plots.get(host)?.destroy();
  const nothing = made.data.slice(1).every((column) => column.every((value) => !value));
  plots.set(host, new uPlot({
    width: host.clientWidth, height: innerWidth > 1100 ? HEIGHT : LOW_HEIGHT,
    legend: { show: false }, cursor: { show: false }, padding: [8, 4, 0, 0],
    scales: { y: { range: (_, low, high) => [0, nothing || !high ? 1 : high * 1.08] } },
    axes: axes(made.format), series: [{}, ...made.series],
  }, made.data, host));
}

export function refresh() {
  for (const host of plots.keys()) {
    if (!host.isConnected) {
      plots.get(host).destroy();
      plots.delete(host);
    }
  }
  document.querySelectorAll("[data-plot]").forEach(draw);
}

export function start() {
  if (!document.querySelector("[data-plot]")) return;
  refresh();
  document.addEventListener("theme", refresh);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", refresh);
  let waiting = 0;
  addEventListener("resize", () => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(refresh);
  });
  document.fonts.ready.then(refresh);
}
