"""What a page is made of: sections of sentences, tables, charts and pictures. No HTML here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        header: titles of the columns.
        rows: as many cells each.
        title: above it; empty where a chart is.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""


@dataclass(frozen=True)
class Chart:
    """A chart, with the table that it draws.

    Attributes:
        title: above it.
        traces: as Plotly takes them. A trace whose name is that of a member is switched with it.
        axes: titles of the x and the y axis.
        table: the same figures.
        layout: more of Plotly's layout.
    """

    title: str
    traces: tuple[Mapping[str, Any], ...]
    axes: tuple[str, str]
    table: Table
    layout: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Picture:
    """A picture.

    Attributes:
        title: below it.
        webp: its file.
        size: width and height, in pixels.
    """

    title: str
    webp: bytes
    size: tuple[int, int]


@dataclass(frozen=True)
class Gallery:
    """Pictures side by side, under a title."""

    title: str
    pictures: tuple[Picture, ...]


Item = Table | Chart | Picture | Gallery


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        title: its heading.
        lead: sentences below it.
        items: in order.
        members: names of the members that its charts can be switched by.
        commands: that made what it is about.
        facts: a figure and what it is, each, for the top of the page.
    """

    title: str
    lead: tuple[str, ...] = ()
    items: tuple[Item, ...] = ()
    members: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Page:
    """A whole page."""

    title: str
    sections: tuple[Section, ...]


def bars(title: str, axes: tuple[str, str], names: Sequence[str], series: Mapping[str, Sequence[float]]) -> Chart:
    """Return a chart of bars, grouped by name.

    Args:
        title: of the chart.
        axes: titles of both.
        names: one a group.
        series: heights by what they are.
    """
    traces = tuple(
        {"type": "bar", "name": name, "x": list(names), "y": list(values)} for name, values in series.items()
    )
    rows = tuple((name, *(_figure(values[i]) for values in series.values())) for i, name in enumerate(names))
    table = Table((axes[0], *(series if len(series) > 1 else (axes[1],))), rows)
    layout = {"showlegend": len(series) > 1, "xaxis": {"type": "category"}}
    return Chart(title, traces, axes, table, layout)


def lines(
    title: str,
    axes: tuple[str, str],
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    layout: Mapping[str, Any] | None = None,
) -> Chart:
    """Return a chart of lines.

    Args:
        title: of the chart.
        axes: titles of both.
        series: x and y by the name of the line.
        layout: more of Plotly's layout.
    """
    traces = tuple(
        {
            "type": "scatter",
            "mode": "lines" if len(x) > 2 else "lines+markers",
            "name": name,
            "x": list(x),
            "y": list(y),
        }
        for name, (x, y) in series.items()
    )
    rows = tuple((name, _figure(a), _figure(b)) for name, (x, y) in series.items() for a, b in zip(x, y, strict=True))
    return Chart(title, traces, axes, Table(("", *axes), rows), layout or {})


def _figure(value: float) -> str:
    """Return a number with as many digits as a reader wants."""
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.4g}"
