"""The page that a browser shows until a run has ended, and then its answer; `waiting_page=`. Pure.

It needs no script: it comes again by itself, and each time the address of the result holds it for a
while. With a script it follows the events of the same address.
"""

from __future__ import annotations

import base64
from functools import cache
from hashlib import sha256
from html import escape

from stephttp._wire.http import Headers
from stephttp._wire.progress import WaitingRun
from stephttp._wire.result_address import FOLLOWED, MARK


def html(run: WaitingRun) -> str:
    """Return the page."""
    steps = "".join(
        f'<li data-number="{step.number}" class="{escape(step.state)}">{escape(step.id)}</li>'
        for step in run.steps
    )
    name = escape(run.endpoint or "Your request")
    waiting = ", ".join(map(escape, run.waiting))
    return _PAGE.format(
        title=name, url=escape(run.result_url), style=_STYLE, script=_SCRIPT, steps=steps,
        waiting=waiting, hidden="" if waiting else " hidden",
    )  # fmt: skip


@cache
def policy() -> str:
    """Return the content policy under which the page works, and nothing else."""
    style, script = (
        base64.b64encode(sha256(text.encode()).digest()).decode() for text in (_STYLE, _SCRIPT)
    )
    return (
        f"default-src 'none'; style-src 'sha256-{style}'; script-src 'sha256-{script}'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'"
    )


def headers() -> Headers:
    """Return the headers of the page."""
    return [
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-security-policy", policy().encode()),
        (b"x-content-type-options", b"nosniff"),
    ]


_STYLE = """
:root { --bg: #f4f6f3; --surface: #fff; --line: #dfe4dd; --ink: #14201a; --ink-2: #46534b;
  --brand: #0e6b4f; --failed: #b3261e; --waiting: #855700; color-scheme: light; }
@media (prefers-color-scheme: dark) {
  :root { --bg: #0e1311; --surface: #151c19; --line: #25302b; --ink: #e9efeb; --ink-2: #b4c0b9;
    --brand: #5ccb9f; --failed: #ff8f85; --waiting: #e2b04a; color-scheme: dark; } }
* { box-sizing: border-box; }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; background: var(--bg);
  color: var(--ink);
  font: 400 0.875rem/1.5 "Instrument Sans", system-ui, -apple-system, "Segoe UI", sans-serif; }
main { width: min(34rem, calc(100% - 2rem)); margin: 2rem 0; padding: 1.5rem;
  background: var(--surface); border: 1px solid var(--line); border-radius: 12px; }
h1 { margin: 0 0 0.5rem; font-size: 1.375rem; line-height: 1.25; font-weight: 600;
  letter-spacing: -0.015em; overflow-wrap: anywhere; }
p { margin: 0; color: var(--ink-2); }
ol { list-style: none; margin: 1rem 0 0; padding: 0; }
ol:empty { display: none; }
li { padding: 0.25rem 0; border-top: 1px solid var(--line); overflow-wrap: anywhere;
  font-family: "Geist Mono", ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
li::before { content: "\\2713"; display: inline-block; width: 1.5rem; color: var(--brand); }
li.failed::before { content: "\\2715"; color: var(--failed); }
#waiting { margin-top: 1rem; color: var(--waiting); }
[hidden] { display: none; }
.bar { height: 3px; margin: 1rem 0 0; border-radius: 2px; overflow: hidden;
  background: var(--line); }
.bar::after { content: ""; display: block; width: 30%; height: 100%; background: var(--brand);
  animation: run 1.6s ease-in-out infinite alternate; }
@keyframes run { to { transform: translateX(233%); } }
@media (prefers-reduced-motion: reduce) { .bar::after { animation: none; width: 100%; } }
"""

_SCRIPT = """
(() => {
  const steps = document.getElementById("steps");
  const waiting = document.getElementById("waiting");
  const again = () => location.replace(location.href);
  const soon = () => setTimeout(look, 2000);
  const follow = () => {
    const source = new EventSource(location.href);
    source.addEventListener("step", (event) => {
      const step = JSON.parse(event.data);
      let item = steps.querySelector(`[data-number="${step.number}"]`);
      if (!item) {
        item = document.createElement("li");
        item.dataset.number = step.number;
        steps.append(item);
      }
      item.className = step.state;
      item.textContent = step.id;
    });
    source.addEventListener("waiting", (event) => {
      const names = JSON.parse(event.data).steps;
      waiting.hidden = !names.length;
      waiting.querySelector("span").textContent = names.join(", ");
    });
    source.addEventListener("response", () => { source.close(); again(); });
    source.onerror = () => { if (source.readyState === EventSource.CLOSED) soon(); };
  };
  // A proxy whose server is away answers in its own words. The page stays until there are ours.
  const look = async () => {
    const gone = new AbortController();
    try {
      const asked = { headers: { accept: "text/event-stream" }, signal: gone.signal };
      const mark = (await fetch(location.href, asked)).headers.get("MARK");
      gone.abort();
      if (!mark) soon();
      else if (mark === "FOLLOWED") follow();
      else again();
    } catch {
      soon();
    }
  };
  follow();
})();
""".replace("MARK", MARK).replace("FOLLOWED", FOLLOWED)

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>{title}</title>
<noscript><meta http-equiv="refresh" content="1; url={url}"></noscript>
<style>{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p>In progress. The answer appears here as soon as it is there; you may also come back later.</p>
<div class="bar"></div>
<ol id="steps">{steps}</ol>
<p id="waiting"{hidden}>Waiting for <span>{waiting}</span></p>
</main>
<script>{script}</script>
</body>
</html>
"""
