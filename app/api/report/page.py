"""The report's HTML. Everything that isn't written here goes through `html.escape`, or into JSON without `<`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from importlib.resources import files
from typing import Any

from app import __version__
from app.api.docs_page import hash_of
from app.api.report.content import SHOWN_TRIALS, Content, Figure
from app.store.log import rfc3339

STATE_LOOKS = {"COMPLETED": "good", "FAILED": "bad", "CANCELLED": "bad", "STOPPED": "dim"}


def page_of(content: Content) -> str:
    """The whole page."""
    title = escape(f"{content.name} · Fettle report")
    assets = _assets()
    body = "\n".join(
        [_header(content), _best(content), *map(_figure, content.figures), _tables(content), _end(content)]
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{assets.policy}">
<title>{title}</title>
<style>{assets.style}</style>
</head>
<body>
<main>
{body}
</main>
<script>{assets.plotly}</script>
<script>{assets.script}</script>
</body>
</html>
"""


@dataclass(frozen=True, slots=True)
class _Assets:
    """The page's script and style, plotly.js as the installed library brings it, and the policy that allows these."""

    script: str
    style: str
    plotly: str
    policy: str


@lru_cache(maxsize=1)
def _assets() -> _Assets:
    from plotly.offline import get_plotlyjs

    folder = files("app.api.report")
    script, style = (folder.joinpath(name).read_text(encoding="utf-8") for name in ("page.js", "page.css"))
    plotly = get_plotlyjs().replace("</script", "<\\/script")
    # plotly.js makes style elements and attributes of its own; the scripts are these two and no other.
    policy = (
        f"default-src 'none'; script-src {hash_of(plotly)} {hash_of(script)}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    return _Assets(script, style, plotly, policy)


def page_policy() -> str:
    """The page's policy as a header has it: also framed by nobody, and of no origin, so that it can call nothing."""
    return f"{_assets().policy}; frame-ancestors 'none'; sandbox allow-scripts allow-downloads allow-modals"


def _header(content: Content) -> str:
    study, definition = content.study, content.study["definition"]
    look = STATE_LOOKS.get(study["state"], "busy")
    labels = "".join(f'<span class="label">{escape(k)}: {escape(v)}</span>' for k, v in definition["labels"].items())
    words = f"<p>{escape(definition['description'])}</p>" if definition["description"] else ""
    reason = f"<p class='dim'>{escape(study['state_reason'])}</p>" if study["state_reason"] else ""
    return f"""<header>
<h1>{escape(content.name)} <span class="state {look}">{escape(study["state"])}</span></h1>
{words}{reason}<div class="labels">{labels}</div>
</header>
<section class="facts">{"".join(_fact(name, value) for name, value in _facts(content))}</section>"""


def _facts(content: Content) -> list[tuple[str, str]]:
    study, definition = content.study, content.study["definition"]
    progress = study["progress"]
    ended = progress["complete"] + progress["pruned"] + progress["fail"]
    counts = f"{progress['complete']:,} complete, {progress['pruned']:,} pruned, {progress['fail']:,} failed"
    objectives = ", ".join(f"{o['direction']} {o['metric']}" for o in definition["objectives"])
    facts = [
        ("Objective" if len(definition["objectives"]) == 1 else "Objectives", objectives),
        ("Trials", f"{ended:,} ({counts})"),
        ("Model", definition["model"]["family"]),
        ("Data", definition["dataset"]["name"] if definition["dataset"] else "none"),
        ("Sampler", definition["sampler"]["name"]),
        ("Pruner", definition["pruner"]["name"]),
        ("Device seconds", f"{progress['device_seconds']:,.1f}"),
        ("Created", study["created_at"][:16].replace("T", " ")),
    ]
    if study["best"]:
        name, value = next(iter(study["best"]["values"].items()))
        facts.insert(0, (f"Best {name}", f"{_value(value)} (trial {study['best']['number']})"))
    elif len(definition["objectives"]) > 1:
        more = " or more" if len(content.best) == SHOWN_TRIALS else ""
        facts.insert(0, ("Pareto front", f"{len(content.best)} trials{more}"))
    return facts


def _fact(name: str, value: str) -> str:
    return f'<div class="fact"><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>'


def _best(content: Content) -> str:
    if not content.best:
        return "<section><h2>Best trial</h2><p>No feasible trial has finished yet.</p></section>"
    if len(content.study["definition"]["objectives"]) > 1:
        return f"<section><h2>Pareto front</h2>{_trials(content.best)}</section>"
    (trial,) = content.best
    searched = [(name, _value(value)) for name, value in trial["sampled"].items()]
    fixed = [(n, _value(v)) for n, v in trial["hyperparameters"].items() if n not in trial["sampled"]]
    metrics = [(name, _value(value)) for name, value in (trial["metrics"] or {}).items()]
    of = f", epoch {trial['selected_epoch']} of {trial['epochs']}" if trial["selected_epoch"] is not None else ""
    return f"""<section><h2>Best trial <span class="dim">number {trial["number"]}{of}</span></h2>
<div class="columns">
{_pairs("Searched hyperparameters", searched)}
{_pairs("Metrics", metrics)}
<details><summary>{len(fixed)} fixed hyperparameters</summary>{_pairs("", fixed)}</details>
</div></section>"""


def _pairs(heading: str, pairs: Sequence[tuple[str, str]]) -> str:
    head = f"<h3>{escape(heading)}</h3>" if heading else ""
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in pairs)
    return f"<div>{head}<table class='pairs'>{rows or '<tr><td>none</td></tr>'}</table></div>"


def _figure(figure: Figure) -> str:
    if figure.reason is not None:
        return f"""<section><h2>{escape(figure.heading)}</h2><p class="reason">{escape(figure.reason)}</p></section>"""
    # In JSON text `<` stands in strings alone, where it may be written so: no tag can begin.
    text = figure.text.replace("<", "\\u003c")
    return f"""<section><h2>{escape(figure.heading)}</h2><p class="dim">{escape(figure.words)}</p>
<div class="figure" data-kind="{escape(figure.name)}"></div>
<script type="application/json">{text}</script></section>"""


def _tables(content: Content) -> str:
    found = ""
    if len(content.study["definition"]["objectives"]) == 1 and content.top:
        found += f"<section><h2>Best {len(content.top)} trials</h2>{_trials(content.top)}</section>"
    if content.failures:
        head = ("reason", "code", "trials", "last")
        rows = [(f.reason, f.code, f"{f.count:,}", str(f.last_number)) for f in content.failures]
        last = [(str(t["number"]), _error(t), _values(t["sampled"])) for t in content.failed]
        found += f"<section><h2>Failures</h2>{_table(head, rows)}<h3>The last of them</h3>"
        found += f"{_table(('trial', 'error', 'hyperparameters'), last)}</section>"
    return found


def _error(trial: Mapping[str, Any]) -> str:
    error = trial["error"]
    return trial["reason"] or "" if error is None else f"{error['code']}: {error['message']}"[:500]


def _trials(trials: Sequence[Mapping[str, Any]]) -> str:
    values, names = _keys(t["values"] or {} for t in trials), _keys(t["sampled"] for t in trials)
    head = ("trial", *values, *names, "seconds", "")
    rows = [
        (
            str(trial["number"]),
            *(_value((trial["values"] or {}).get(name)) for name in values),
            *(_value(trial["sampled"].get(name)) for name in names),
            _value(trial["duration_seconds"]),
            "breaks a constraint" if trial["feasible"] is False else "",
        )
        for trial in trials
    ]
    return _table(head, rows)


def _keys(of: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for mapping in of for key in mapping))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class='wide'><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"


def _values(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={_value(value)}" for name, value in values.items())


def _value(value: Any) -> str:
    """A value as people read it: six digits of a float."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _end(content: Content) -> str:
    definition = escape(json.dumps(content.study["definition"], indent=2, ensure_ascii=False))
    made = rfc3339(content.at)[:16].replace("T", " ")
    return f"""<section><h2>Definition</h2><details><summary>As posted, all defaults filled in</summary>
<pre>{definition}</pre></details></section>
<footer>Study {escape(content.study["id"])}. Made by Fettle {escape(__version__)} on {escape(made)} UTC.</footer>"""
