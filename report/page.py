"""A page as one HTML file that needs no network."""

from __future__ import annotations

import base64
import json
import re
from html import escape
from importlib import resources
from typing import Any

from .content import Chart, Gallery, Item, Page, Picture, Section, Table

ROWS = 1000  # of a table, at most
NUMBER = re.compile(r"[+-]?[\d,]+(\.\d+)?(e[+-]?\d+)?(%| [A-Za-z]+)?")


def render(page: Page) -> str:
    """Return the page as HTML, with its styles, its scripts and Plotly inside."""
    from plotly.offline import get_plotlyjs

    charts: list[dict[str, Any]] = []
    body = "\n".join(_section(section, number, charts) for number, section in enumerate(page.sections))
    contents = "".join(
        f'<li><a href="#section-{number}">{escape(section.title)}</a></li>'
        for number, section in enumerate(page.sections)
    )
    figures = json.dumps(charts, allow_nan=False).replace("<", "\\u003c")
    return (
        "<!doctype html>\n"
        '<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(page.title)}</title>\n<style>\n{_file('style.css')}</style>\n</head>\n<body>\n"
        f"<header><h1>{escape(page.title)}</h1><nav><ul>{contents}</ul></nav>{_facts(page)}</header>\n"
        f"<main>\n{body}\n</main>\n"
        f"<script>{get_plotlyjs()}</script>\n"
        f'<script type="application/json" id="charts">{figures}</script>\n'
        f"<script>\n{_file('script.js')}</script>\n</body>\n</html>\n"
    )


def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _facts(page: Page) -> str:
    facts = [fact for section in reversed(page.sections) for fact in section.facts]  # what came out stands first
    cells = "".join(f"<div><dt>{escape(what)}</dt><dd>{escape(figure)}</dd></div>" for figure, what in facts)
    return f"<dl>{cells}</dl>" if cells else ""


def _section(section: Section, number: int, charts: list[dict[str, Any]]) -> str:
    parts = [f'<section id="section-{number}">', f"<h2>{escape(section.title)}</h2>"]
    parts += [f"<p>{escape(sentence)}</p>" for sentence in section.lead]
    if len(section.members) > 1:
        buttons = "".join(
            f'<button type="button" aria-pressed="true" data-member="{escape(name)}"><i></i>{escape(name)}</button>'
            for name in section.members
        )
        parts.append(f'<div class="members" role="group" aria-label="members that are shown">{buttons}</div>')
    parts += [_item(item, number, charts) for item in section.items]
    if section.commands:
        commands = escape("\n".join(section.commands))
        parts.append(f"<h3>Commands</h3><pre><code>{commands}</code></pre>")
    return "\n".join([*parts, "</section>"])


def _item(item: Item, section: int, charts: list[dict[str, Any]]) -> str:
    if isinstance(item, Table):
        return f"<h3>{escape(item.title)}</h3>{_table(item)}"
    if isinstance(item, Chart):
        return _chart(item, section, charts)
    if isinstance(item, Gallery):
        pictures = "".join(map(_picture, item.pictures))
        return f'<h3>{escape(item.title)}</h3><div class="gallery">{pictures}</div>'
    return _picture(item)


def _chart(chart: Chart, section: int, charts: list[dict[str, Any]]) -> str:
    layout = {**chart.layout}
    for axis, title in zip(("xaxis", "yaxis"), chart.axes, strict=True):
        layout[axis] = {"title": {"text": title}, **layout.get(axis, {})}
    key = f"chart-{len(charts)}"
    charts.append({"id": key, "section": section, "data": list(chart.traces), "layout": layout})
    return (
        f'<figure><h3>{escape(chart.title)}</h3><div class="chart" id="{key}" role="img" '
        f'aria-label="{escape(chart.title)}"></div>'
        f"<details><summary>Table</summary>{_table(chart.table)}</details></figure>"
    )


def _table(table: Table) -> str:
    header = "".join(f"<th>{escape(title)}</th>" for title in table.header)
    rows = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in table.rows[:ROWS])
    more = len(table.rows) - ROWS
    note = f"<p>{more:,} more rows are left out.</p>" if more > 0 else ""
    return f'<div class="table"><table><thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table></div>{note}'


def _cell(text: str) -> str:
    return f'<td class="number">{escape(text)}</td>' if NUMBER.fullmatch(text) else f"<td>{escape(text)}</td>"


def _picture(picture: Picture) -> str:
    kind = "webp" if picture.webp[8:12] == b"WEBP" else "png"
    data = base64.b64encode(picture.webp).decode()
    width, height = picture.size
    return (
        f'<figure class="picture"><img src="data:image/{kind};base64,{data}" width="{width}" height="{height}" '
        f'alt="{escape(picture.title)}"><figcaption>{escape(picture.title)}</figcaption></figure>'
    )
