"""The participant flow as a diagram: sites and people, arm by arm, zeros shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trialkit.report.figures.canvas import (
    FONT_SIZE,
    INK,
    SOFT,
    WASH,
    Picture,
    clean,
    look,
    new_figure,
    shorten,
    text_width,
)
from trialkit.report.flow import Flow

_LINE = 0.205  # inches from one line of text to the next
_PAD = 0.12
_GAP = 0.34


@dataclass
class _Box:
    """A box of the diagram: a heading, and lines of a label and one number a column."""

    heading: str
    lines: list[tuple[str, tuple[str, ...], bool]] = field(default_factory=list)  # label, cells, soft ink
    columns: tuple[str, ...] = ()

    def height(self) -> float:
        return 2 * _PAD + _LINE * (1 + len(self.lines)) - 0.04


def plot_flow(flow: Flow, *, pairs: int | None = None) -> Picture:
    """Draw a `Flow` from sites recruited to people analysed.

    Parameters
    ----------
    flow : Flow
        From `participant_flow`; its counts have been checked to add up.
    pairs : int, optional
        Matched pairs, for the words in the box of randomised sites.

    Returns
    -------
    Picture
        ``data`` holds the counts.
    """
    columns = ("sites", *flow.raters)
    arms = [_arm_boxes(flow, arm, columns) for arm in flow.arms]
    label_width = max(text_width(label, FONT_SIZE) for boxes in arms for box in boxes for label, _, _ in box.lines) + 0.15
    cell_widths = [
        max(
            [
                text_width(shorten(clean(name), 1.1), FONT_SIZE - 1),
                *(text_width(c[k]) for boxes in arms for box in boxes for _, c, _ in box.lines),
            ]
        )
        + 0.22
        for k, name in enumerate(columns)
    ]
    heading_width = max(text_width(box.heading, FONT_SIZE, bold=True) for boxes in arms for box in boxes) + 0.2
    width = max(2 * _PAD + max(label_width, heading_width) + sum(cell_widths), 2.6)
    tab, space = 0.34, 0.55
    total = tab + 2 * width + space + 0.04
    middle = tab + width + space / 2

    top = _top_boxes(flow, columns, pairs)
    top_width = max(width, 2 * _PAD + max(text_width(b.heading, FONT_SIZE, bold=True) for b in top) + 0.2 + sum(cell_widths))
    steps = [max(boxes[k].height() for boxes in arms) for k in range(len(arms[0]))]
    height = sum(b.height() + _GAP for b in top) + sum(h + _GAP for h in steps) - _GAP + 0.06

    with look("flow"):
        figure = new_figure(total, height)
        ax = figure.add_axes((0, 0, 1, 1))
        ax.set_xlim(0, total)
        ax.set_ylim(height, 0)
        ax.axis("off")
        y = 0.02
        tabs: list[tuple[str, float, float]] = []
        start = y
        for k, box in enumerate(top):
            centre = middle
            _draw(ax, box, centre - top_width / 2, y, top_width, cell_widths)
            if k + 1 < len(top):
                _arrow(ax, centre, y + box.height(), centre, y + box.height() + _GAP)
                if not flow.not_randomised.empty or flow.recruited is not None:
                    _side(ax, flow, centre, y + box.height() + _GAP / 2, total)
            y += box.height() + _GAP
        tabs.append(("Enrolment", start, y - _GAP))
        centres = [tab + width / 2, tab + width + space + width / 2]
        fork = y - _GAP / 2
        ax.plot([middle, middle], [y - _GAP, fork], color=SOFT, lw=0.8)
        ax.plot(centres, [fork, fork], color=SOFT, lw=0.8)
        for centre in centres:
            _arrow(ax, centre, fork, centre, y)
        for k, step in enumerate(steps):
            for centre, boxes in zip(centres, arms, strict=True):
                _draw(ax, boxes[k], centre - width / 2, y, width, cell_widths, height=step)
                if k + 1 < len(steps):
                    _arrow(ax, centre, y + step, centre, y + step + _GAP)
            heading = arms[0][k].heading
            tabs.append(("Allocation" if k == 0 else heading.removesuffix(" survey"), y, y + step))
            y += step + _GAP
        for name, low, high in tabs:
            ax.add_patch(_rectangle(0.0, low, 0.24, high - low, face=WASH, edge="none"))
            ax.text(0.12, (low + high) / 2, name, rotation=90, ha="center", va="center", color=SOFT, fontsize=FONT_SIZE - 1.5)
    return Picture(
        name="flow",
        title="Flow of sites and people through the trial. Sites: with at least one such person; in grey lines, with nobody left",
        alt=_alt(flow),
        data=flow.frame.copy(),
        axes=(ax,),
        figure=figure,
    )


def _arm_boxes(flow: Flow, arm: str, columns: tuple[str, ...]) -> list[_Box]:
    frame = flow.frame.drop_duplicates("stage").set_index("stage")
    boxes = [_Box(f"Allocated to {clean(arm)}", columns=columns)]
    boxes[0].lines.append(("eligible people", _cells(flow, "eligible", arm), False))
    boxes[0].lines.append(("people a site, median (IQR)", _sizes(flow, flow.stages[0], arm), True))
    headings = {"baseline": "Baseline survey", "follow_up": "Follow-up survey", "analysed": "Analysis"}
    current: _Box | None = None
    for stage in flow.stages[1:]:
        if current is None:
            current = _Box("", columns=columns)
        leaves, label = bool(frame.loc[stage, "leaves"]), str(frame.loc[stage, "label"])
        if leaves:
            following = next(s for s in flow.stages[flow.stages.index(stage) + 1 :] if not frame.loc[s, "leaves"])
            lost = f"{flow.count(following, arm=arm, what='sites_lost'):,}"
            current.lines.append((label, (lost, *(f"{flow.count(stage, arm=arm, rater=r):,}" for r in flow.raters)), True))
        elif stage not in headings:
            current.lines.append((label[:1].lower() + label[1:], _cells(flow, stage, arm), False))
        else:
            current.heading = headings[stage]
            current.lines.append(("analysed" if stage == "analysed" else "done", _cells(flow, stage, arm), False))
            if stage == "analysed":
                current.lines.append(("people a site, median (IQR)", _sizes(flow, stage, arm), True))
            boxes.append(current)
            current = None
    return boxes


def _cells(flow: Flow, stage: str, arm: str) -> tuple[str, ...]:
    people = tuple(f"{flow.count(stage, arm=arm, rater=r):,}" for r in flow.raters)
    return (f"{flow.count(stage, arm=arm, what='sites'):,}", *people)


def _sizes(flow: Flow, stage: str, arm: str) -> tuple[str, ...]:
    cells = [""]
    for rater in flow.raters:
        row = flow.sizes[(flow.sizes["stage"] == stage) & (flow.sizes["arm"] == arm) & (flow.sizes["rater"] == rater)].iloc[0]
        cells.append(f"{row['median']:g} ({row['q1']:g}–{row['q3']:g})" if row["sites"] else "–")
    return tuple(cells)


def _top_boxes(flow: Flow, columns: tuple[str, ...], pairs: int | None) -> list[_Box]:
    boxes = []
    if flow.recruited is not None:
        boxes.append(_Box(f"{flow.recruited:,} sites recruited"))
    words = f"{flow.randomised:,} sites randomised"
    if pairs:
        single = flow.randomised - 2 * pairs
        words += f": {pairs:,} pairs" + (f", {single:,} by {'itself' if single == 1 else 'themselves'}" if single > 0 else "")
    box = _Box(words, columns=columns)
    people = tuple(f"{flow.count('eligible', rater=r):,}" for r in flow.raters)
    box.lines.append(("eligible people", (f"{flow.count('eligible', what='sites'):,}", *people), False))
    boxes.append(box)
    return boxes


def _rectangle(x: float, y: float, width: float, height: float, *, face: str, edge: str) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), width, height, facecolor=face, edgecolor=edge, linewidth=0.8)


def _draw(ax: Any, box: _Box, x: float, y: float, width: float, cells: list[float], *, height: float | None = None) -> None:
    ax.add_patch(_rectangle(x, y, width, height or box.height(), face="white", edge="#9A9A9A"))
    line = y + _PAD + _LINE / 2 - 0.02
    if not box.columns:
        ax.text(x + width / 2, line, box.heading, ha="center", va="center", weight="bold")
        return
    ax.text(x + _PAD, line, box.heading, ha="left", va="center", weight="bold")
    rights = [x + width - _PAD - sum(cells[k + 1 :]) for k in range(len(cells))]
    for right, name in zip(rights, box.columns, strict=True):
        ax.text(right, line, shorten(clean(name), 1.1), ha="right", va="center", color=SOFT, fontsize=FONT_SIZE - 1)
    for label, values, soft in box.lines:
        line += _LINE
        ink = SOFT if soft else INK
        ax.text(x + _PAD, line, label, ha="left", va="center", color=ink)
        for right, value in zip(rights, values, strict=True):
            ax.text(right, line, value, ha="right", va="center", color=ink)


def _arrow(ax: Any, x0: float, y0: float, x1: float, y1: float) -> None:
    ax.annotate(
        "",
        xy=(x1, y1),
        xytext=(x0, y0),
        arrowprops={"arrowstyle": "-|>", "color": SOFT, "lw": 0.8, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 8},
    )


def _side(ax: Any, flow: Flow, x: float, y: float, total: float) -> None:
    """The sites that were recruited and not randomised, beside the line."""
    out = flow.not_randomised
    count = int(out["sites"].sum()) if len(out) else 0
    words = f"{count:,} not randomised" + (f": {clean(flow.reasons)}" if len(out) else "")
    ax.plot([x, x + 0.25], [y, y], color=SOFT, lw=0.8)
    ax.text(x + 0.32, y, shorten(words, total - x - 0.35), ha="left", va="center", color=INK, fontsize=FONT_SIZE - 0.5)


def _alt(flow: Flow) -> str:
    start = (
        f"{flow.recruited} sites recruited, {flow.randomised} randomised."
        if flow.recruited is not None
        else f"{flow.randomised} sites randomised."
    )
    parts = [start]
    last = flow.stages[-1]
    for arm in flow.arms:
        kinds = ", ".join(
            f"{flow.count('eligible', arm=arm, rater=r)} {clean(r)} eligible, {flow.count(last, arm=arm, rater=r)} analysed"
            for r in flow.raters
        )
        parts.append(f"{arm}: {flow.count('eligible', arm=arm, what='sites')} sites, {kinds}.")
    return " ".join(parts)
