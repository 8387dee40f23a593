"""Render the page of `dstack report --html`: one file that asks no network for anything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from typing import Any

from reconciler.text.format import stamp


def render_page(data: Mapping[str, Any]) -> str:
    """Give the HTML of what `page_data` collected. Style and script are in it, and its security policy forbids more."""
    parts = {
        "title": escape(f"dstack report: {data['project']}"),
        "period": f"From {stamp(data['since'])} to {stamp(data['until'])}",
        "style": _packaged("page.css"),
        "data": _embedded(data),
        "script": _packaged("page.js"),
    }
    before, *rest = _packaged("page.html").split("{{")
    page = [before]
    for piece in rest:
        name, _, text = piece.partition("}}")
        page += [parts[name], text]
    return "".join(page)


def _packaged(name: str) -> str:
    return files("reconciler.report.html").joinpath(name).read_text("utf-8")


def _embedded(data: Mapping[str, Any]) -> str:
    """JSON that cannot end the script element that holds it, whatever a name says."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
