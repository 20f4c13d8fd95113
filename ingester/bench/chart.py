"""A chart of throughput over connections, as SVG by hand: no script, nothing from elsewhere.

Takes: panels, each with a line a batch size.
Gives: one SVG document that any browser shows.
"""

import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

_WIDTH: Final = 760
_HEIGHT: Final = 400  # of a panel
_TOP: Final = 92  # title and words
_LEFT, _RIGHT, _ABOVE, _BELOW = 76, 170, 94, 56  # of a panel's plot
_CHARACTERS: Final = 104  # in a line of the width
_COLOURS: Final = ("#0b6fa4", "#c2410c", "#15803d", "#7e22ce", "#a16207", "#be123c", "#334155")
_STEPS: Final = (1, 2, 2.5, 5, 10)


@dataclass(frozen=True, slots=True)
class Line:
    """The points of one batch size."""

    label: str
    points: tuple[tuple[int, float], ...]  # connections and MB/s


@dataclass(frozen=True, slots=True)
class Panel:
    """A plot."""

    title: str
    words: str  # below it, up to three lines
    lines: tuple[Line, ...]


def chart(title: str, words: str, panels: Sequence[Panel]) -> str:
    """The document; `words` are below the title, in two lines at most."""
    height = _TOP + _HEIGHT * max(1, len(panels))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}"',
        f'width="{_WIDTH}" height="{height}" font-family="sans-serif" font-size="13">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        _text(24, 34, title, size=18),
        *_paragraph(58, words),
    ]
    for number, panel in enumerate(panels):
        parts += _panel(panel, _TOP + number * _HEIGHT)
    return "\n".join((*parts, "</svg>", ""))


def _panel(panel: Panel, top: int) -> Iterator[str]:
    connections = sorted({x for line in panel.lines for x, _ in line.points})
    highest, step = _axis(max((y for line in panel.lines for _, y in line.points), default=0.0))
    left, right = _LEFT, _WIDTH - _RIGHT
    upper, lower = top + _ABOVE, top + _HEIGHT - _BELOW

    def at_x(value: int) -> float:
        if len(connections) < 2:
            return (left + right) / 2
        return left + (right - left) * connections.index(value) / (len(connections) - 1)

    def at_y(value: float) -> float:
        return lower - (lower - upper) * value / highest

    yield _text(24, top + 22, panel.title, size=15)
    yield from _paragraph(top + 42, panel.words)
    for number in range(round(highest / step) + 1):
        y = at_y(number * step)
        yield _line(left, y, right, y, "#e2e8f0")
        yield _text(left - 8, y + 4, f"{number * step:,g}", anchor="end")
    yield _line(left, lower, right, lower, "#475569")
    for value in connections:
        yield _text(at_x(value), lower + 18, str(value), anchor="middle")
    yield _text((left + right) / 2, lower + 40, "requests under way", anchor="middle")
    yield (
        f'<text transform="translate(22 {(upper + lower) / 2:.1f}) rotate(-90)" '
        'text-anchor="middle" fill="#0f172a">MB/s</text>'
    )
    for number, line in enumerate(panel.lines):
        colour = _COLOURS[number % len(_COLOURS)]
        places = [(at_x(x), at_y(y), x, y) for x, y in line.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _, _ in places)
        yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
        for x, y, connection, rate in places:
            yield (
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}">'
                f"<title>{escape(line.label)}, {connection} at a time: {rate:,.1f} MB/s</title>"
                "</circle>"
            )
        key = upper + 8 + 20 * number
        yield _line(right + 16, key, right + 36, key, colour, width=2)
        yield _text(right + 42, key + 4, line.label)


def _paragraph(top: float, words: str) -> Iterator[str]:
    for number, line in enumerate(textwrap.wrap(words, _CHARACTERS)):
        yield _text(24, top + 17 * number, line, fill="#475569")


def _axis(highest: float) -> tuple[float, float]:
    """The end of the axis and the step of its marks, for values up to `highest`."""
    if highest <= 0:
        return 1.0, 1.0
    rough = highest / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in _STEPS if factor * power >= rough * (1 - 1e-9))
    return step * math.ceil(highest / step - 1e-9), step


def _text(
    x: float, y: float, words: str, *, size: int = 13, anchor: str = "start", fill: str = "#0f172a"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" '
        f'fill="{fill}">{escape(words)}</text>'
    )


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, *, width: int = 1) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
        f'stroke-width="{width}"/>'
    )
