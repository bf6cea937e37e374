"""The two charts of the operations report, drawn without a browser. Heavy: imported by the renderer's child only."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import altair as alt
import vl_convert

from reports import wording
from reports.dataset import DAYS, HOURS, add
from reports.palette import COLOURS, FAINT, INK, RULE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from reports.dataset import OperationsData, TimeLine

#: Part of vl-convert and of typst: a chart looks the same on every machine.
SCREEN_FONT, PRINT_FONT = "Liberation Sans", "Libertinus Serif"
_SCALE = 2


class Chart(NamedTuple):
    """One picture, for print and for the screen, and its words."""

    title: str
    text: str
    svg: str
    png: bytes


def draw(data: OperationsData) -> dict[str, Chart]:
    """Runs per hour (`hours`) and per day (`days`), stacked by state; without the one that would be empty."""
    hours = [f"{line.start:%H}" for line in data.hours]
    days = [wording.day(line.start) for line in data.days]
    charts = {}
    if add(data.hours).ended:
        charts["hours"] = _chart(f"Runs per hour, last {HOURS} hours (UTC)", "hour", hours, data.hours)
    if add(data.days).ended:
        charts["days"] = _chart(f"Runs per day, last {DAYS} days (UTC)", "day", days, data.days)
    return charts


def _chart(title: str, unit: str, labels: Sequence[str], lines: Sequence[TimeLine]) -> Chart:
    peak = max(range(len(lines)), key=lambda index: lines[index].ended)
    return Chart(
        title=title,
        text=wording.chart_text(unit, add(lines), labels[peak]),
        svg=vl_convert.vegalite_to_svg(_specification(labels, lines, PRINT_FONT, size=12)),
        png=vl_convert.vegalite_to_png(_specification(labels, lines, SCREEN_FONT, size=11), scale=_SCALE),
    )


def _specification(labels: Sequence[str], lines: Sequence[TimeLine], font: str, size: int) -> dict[str, object]:
    """Vega-Lite for one chart. Labels may repeat (an hour of two days), so bars stand by position."""
    states = [state for state in COLOURS if state != "other" or any(line.other for line in lines)]
    values = [
        {"at": at, "label": label, "state": state.capitalize(), "order": order, "runs": getattr(line, state)}
        for at, (label, line) in enumerate(zip(labels, lines, strict=True))
        for order, state in enumerate(states)
    ]
    highest = max((line.ended for line in lines), default=0)
    named = "[" + ",".join(f"'{label}'" for label in labels) + "][datum.value]"
    bars = (
        alt.Chart(alt.InlineData(values=values))
        .mark_bar()
        .encode(
            x=alt.X("at:O", title=None, axis=alt.Axis(labelExpr=named, labelAngle=0, labelOverlap=False, ticks=False)),
            y=alt.Y(
                "runs:Q",
                title=None,
                scale=alt.Scale(domain=[0, max(highest, 4)], nice=True),
                axis=alt.Axis(tickCount=4, tickMinStep=1, format=",d", domain=False, ticks=False),
            ),
            color=alt.Color(
                "state:N",
                scale=alt.Scale(domain=[s.capitalize() for s in states], range=[COLOURS[s] for s in states]),
                legend=alt.Legend(title=None, orient="top", direction="horizontal", symbolType="square", offset=8),
            ),
            order=alt.Order("order:O"),
        )
        .properties(width=640, height=170, background="transparent")
        .configure(font=font)
        .configure_view(stroke=None)
        .configure_scale(bandPaddingInner=0.28)
        .configure_axis(labelFontSize=size, labelColor=FAINT, gridColor=RULE, domainColor=RULE, labelPadding=6)
        .configure_legend(labelFontSize=size, labelColor=INK, symbolSize=90, symbolStrokeWidth=0)
    )
    return bars.to_dict()  # type: ignore[no-any-return]
