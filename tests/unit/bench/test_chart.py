"""The chart is well-formed, has every point, and needs nothing from elsewhere."""

import re
from xml.etree import ElementTree as ET

import pytest

from ingester.bench.chart import Line, Panel, chart

SVG = "{http://www.w3.org/2000/svg}"
LINES = (
    Line("10 a request", ((1, 100.0), (2, 180.0), (8, 390.0))),
    Line("100 a request", ((1, 150.0), (8, 410.0))),
)


def drawn(*panels: Panel) -> ET.Element:
    text = chart("a <title> & more", "words", panels)
    assert "<script" not in text
    assert not re.search(r"(href|url\()", text)
    return ET.fromstring(text)  # noqa: S314 - our own


def places(line: ET.Element) -> list[tuple[float, float]]:
    pairs = [pair.split(",") for pair in line.attrib["points"].split()]
    return [(float(x), float(y)) for x, y in pairs]


class TestTheChart:
    def test_has_a_title_that_is_escaped(self) -> None:
        root = drawn(Panel("archive", "words & words", LINES))
        assert root.findtext(f"{SVG}title") == "a <title> & more"
        texts = [text.text for text in root.iter(f"{SVG}text")]
        assert {"a <title> & more", "archive", "MB/s", "requests under way"} <= set(texts)

    def test_has_a_line_a_batch_size_with_its_points_in_their_places(self) -> None:
        root = drawn(Panel("archive", "", LINES))
        first, second = (places(line) for line in root.iter(f"{SVG}polyline"))
        assert (len(first), len(second)) == (3, 2)
        assert [x for x, _ in first] == sorted(x for x, _ in first)
        assert [y for _, y in first] == sorted((y for _, y in first), reverse=True)
        assert first[0][0] == second[0][0]
        assert first[2][0] == second[1][0]
        assert second[1][1] < first[2][1]  # higher up
        tips = [title.text for title in root.iter(f"{SVG}title")]
        assert "100 a request, 8 at a time: 410.0 MB/s" in tips
        texts = [text.text for text in root.iter(f"{SVG}text")]
        assert {"1", "2", "8", "0", "500", "10 a request"} <= set(texts)

    def test_has_a_plot_a_panel_inside_its_height(self) -> None:
        root = drawn(*(Panel(name, "w " * 100, LINES) for name in ("mr", "ct", "cr", "dx")))
        height = float(root.attrib["height"])
        ys = [y for line in root.iter(f"{SVG}polyline") for _, y in places(line)]
        assert len(ys) == 4 * 5
        assert max(ys) < height
        assert min(ys) > 0

    @pytest.mark.parametrize("rate", [0.0, 0.004, 1.0, 999.9, 123_456.0])
    def test_has_room_for_any_rate(self, rate: float) -> None:
        root = drawn(Panel("archive", "", (Line("1 a request", ((1, rate),)),)))
        (line,) = root.iter(f"{SVG}polyline")
        ((_, y),) = places(line)
        marks = [float(one.attrib["y1"]) for one in root.iter(f"{SVG}line")]
        assert min(marks) - 0.1 <= y <= max(marks) + 0.1

    def test_of_nothing_is_a_chart(self) -> None:
        assert list(drawn().iter(f"{SVG}polyline")) == []
