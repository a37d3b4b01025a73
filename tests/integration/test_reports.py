"""A report is one page that loads nothing, tells the study, and lets nobody's text become markup."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

from tests.integration.past import past
from tests.integration.test_insights import TWO, weighted

EVIL = '</script><script>document.title="owned"</script><img src=x onerror=alert(1)>&"\'`'


class Page(HTMLParser):
    """Tags with attributes, visible text, and the JSON of the figures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.figures: dict[str, Any] = {}
        self._kind: str | None = None
        self._in: str = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in = "json" if dict(attrs).get("type") == "application/json" else tag
        self._kind = dict(attrs).get("data-kind") or self._kind

    def handle_endtag(self, tag: str) -> None:
        self._in = ""

    def handle_data(self, data: str) -> None:
        if self._in == "json":
            self.figures[str(self._kind)] = json.loads(data)
        elif self._in not in {"script", "style"}:
            self.words.append(data)


def report(service: Any, study: dict[str, Any]) -> tuple[str, Page]:
    response = service.client.get(f"/v1/studies/{study['id']}/report")
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    return response.text, Page(response.text)


def bowl(service: Any, **changes: Any) -> dict[str, Any]:
    axis = {"type": "float", "low": -1.0, "high": 1.0}
    study: dict[str, Any] = service.create(hyperparameters={f"x{i}": axis for i in range(3)}, **changes)
    failed = {"sampled": {"x0": 0.5}, "state": "FAIL", "reason": "EXCEPTION", "error": ("ValueError", EVIL)}
    past(service.database, study["id"], [*weighted(40), failed, failed])
    return study


def test_a_report_tells_what_was_asked_and_what_came_out(service: Any) -> None:
    study = bowl(service, labels={"team": "vision"})
    text, page = report(service, study)
    assert {"history", "importances", "parallel", "slice", "intermediate"} <= set(page.figures)
    words = " ".join(page.words)
    best = min(t["values"][0] for t in weighted(40))
    assert f"{best:.6g}" in words
    for expected in ("sphere", "team: vision", "40 complete, 0 pruned, 2 failed", "Best 20 trials", "ValueError"):
        assert expected in words
    history = {t["name"]: t for t in page.figures["history"]["data"]}
    assert min(history["best so far"]["y"]) == best
    assert "Plotly" in text


def test_a_report_loads_nothing(service: Any) -> None:
    _, page = report(service, bowl(service))
    for tag, attributes in page.tags:
        assert tag not in {"link", "iframe", "img", "object", "embed", "base", "form"}
        assert not {"src", "href", "action", "srcset"} & set(attributes), (tag, attributes)
        assert not any(name.startswith("on") for name in attributes)
    (policy,) = [a["content"] for t, a in page.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"]
    assert str(policy).startswith("default-src 'none';")
    assert "http" not in str(policy)


def test_nobodys_text_becomes_markup(service: Any) -> None:
    study = bowl(service, description=EVIL, labels={"team": EVIL})
    text, page = report(service, study)
    assert [tag for tag, _ in page.tags].count("script") == 2 + len(page.figures)
    assert 'document.title="owned"' not in re.sub(r"&quot;|&#x27;", "", text)
    words = " ".join(page.words)
    assert words.count(EVIL) >= 4  # description, label, the failures, the definition


def test_a_study_of_several_objectives_reports_its_front(service: Any) -> None:
    study = service.create(**TWO)
    values = [[1.0, 1.0], [2.0, 3.0], [3.0, 2.0]]
    past(service.database, study["id"], [{"sampled": {"l2": i / 10}, "values": v} for i, v in enumerate(values)])
    _, page = report(service, study)
    assert "pareto" in page.figures
    assert "history" not in page.figures
    assert "Pareto front" in " ".join(page.words)


def test_a_study_without_trials_has_a_report(service: Any) -> None:
    _, page = report(service, service.create())
    assert "No feasible trial has finished yet." in " ".join(page.words)
