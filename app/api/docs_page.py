"""The API's documentation as one page made from the OpenAPI document: no script, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cache
from html import escape
from typing import Any

from anyio import to_thread
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse

STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 2.5rem; text-transform: capitalize; }
article, details { border-top: 1px solid #8884; padding: .5rem 0; }
code, pre { font-family: ui-monospace, monospace; font-size: .9em; }
pre { overflow-x: auto; padding: .8rem; background: #8881; }
.method { display: inline-block; min-width: 4.5rem; font-weight: 700; }
table { border-collapse: collapse; } td { padding: .1rem 1rem .1rem 0; vertical-align: top; }
.dim { opacity: .75; }
"""


def hash_of(text: str) -> str:
    """What a Content-Security-Policy calls an inline script or style with this text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


POLICY = f"default-src 'none'; style-src {hash_of(STYLE)}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def install(app: FastAPI) -> None:
    """Serve the page at `/docs`, made at the first request for it."""

    @cache
    def text() -> str:
        return page_of(app.openapi())

    async def docs(request: Request) -> HTMLResponse:  # noqa: ARG001
        return HTMLResponse(await to_thread.run_sync(text), headers={"Content-Security-Policy": POLICY})

    app.add_api_route("/docs", docs, include_in_schema=False)


def page_of(document: Mapping[str, Any]) -> str:
    """The page about an OpenAPI document."""
    info = document["info"]
    tags = dict.fromkeys(tag for _, _, operation in _operations(document) for tag in operation.get("tags", ["other"]))
    groups = "".join(_group(document, tag) for tag in tags)
    schemas = "".join(
        f'<details id="{escape(name)}"><summary><code>{escape(name)}</code> {_words(schema.get("description"))}'
        f"</summary><pre>{_json(schema)}</pre></details>"
        for name, schema in document["components"]["schemas"].items()
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(info["title"])} API</title><style>{STYLE}</style></head><body>
<h1>{escape(info["title"])} API <span class="dim">{escape(info["version"])}</span></h1>
<p>{escape(info.get("summary", ""))} The same for machines: <a href="/openapi.json">/openapi.json</a>.</p>
{groups}<h2>Schemas</h2>{schemas}</body></html>
"""


def _operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method.upper(), operation


def _group(document: Mapping[str, Any], tag: str) -> str:
    found = "".join(_operation(*o) for o in _operations(document) if tag in o[2].get("tags", ["other"]))
    return f"<h2>{escape(tag)}</h2>{found}"


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(p['name'])}</code></td><td class='dim'>{escape(p['in'])}"
        f"{', required' if p.get('required') else ''}</td><td>{_words(p.get('description'))}</td></tr>"
        for p in operation.get("parameters", ())
    )
    body = operation.get("requestBody", {}).get("content", {})
    bodies = "".join(f"<p>Body: {escape(kind)} {_link(content['schema'])}</p>" for kind, content in body.items())
    answers = ", ".join(
        f"{escape(status)} {' or '.join(_link(c.get('schema', {})) for c in answer.get('content', {}).values())}"
        for status, answer in sorted(operation["responses"].items())
        if status != "default"
    )
    return (
        f"<article><p><span class='method'>{escape(method)}</span> <code>{escape(path)}</code></p>"
        f"<p>{_words(operation.get('description'))}</p><table>{rows}</table>{bodies}"
        f"<p class='dim'>Answers: {answers}</p></article>"
    )


def _link(schema: Mapping[str, Any]) -> str:
    name = str(schema.get("$ref", "")).rpartition("/")[2] or schema.get("title", "")
    return f'<a href="#{escape(name)}">{escape(name)}</a>' if "$ref" in schema else escape(str(name))


def _words(text: str | None) -> str:
    return escape(" ".join((text or "").split()))


def _json(schema: Mapping[str, Any]) -> str:
    return escape(json.dumps(schema, indent=2, ensure_ascii=False))
