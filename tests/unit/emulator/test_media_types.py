import pytest

from ingester.emulator.media_types import (
    MediaType,
    covers,
    is_boundary,
    parse_accept,
    parse_media_type,
)


class TestAContentType:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("application/dicom", MediaType("application/dicom")),
            (" Application/DICOM ", MediaType("application/dicom")),
            ("a/b;C=d", MediaType("a/b", {"c": "d"})),
            ('a/b; c="d/e"; f=g', MediaType("a/b", {"c": "d/e", "f": "g"})),
            (r'a/b ; c="d\"\\e;f"', MediaType("a/b", {"c": 'd"\\e;f'})),
            ('a/b; c=""', MediaType("a/b", {"c": ""})),
        ],
    )
    def test_is_essence_and_parameters(self, value: str, expected: MediaType) -> None:
        assert parse_media_type(value) == expected

    @pytest.mark.parametrize(
        "value",
        [
            "",
            "application",
            "a/",
            "a/b;",
            "a/b; c",
            "a/b; c=",
            "a/b; c=d; C=e",
            'a/b; c="d',
            "a/b c",
            "a/b, c/d",
            "multipart/related; type=application/dicom; boundary=x",  # the slash needs quotes
        ],
    )
    def test_that_breaks_the_grammar_is_an_error(self, value: str) -> None:
        with pytest.raises(ValueError, match=r"no type|not understood|twice"):
            parse_media_type(value)


class TestAccept:
    def test_is_a_list_of_media_ranges(self) -> None:
        ranges = parse_accept(
            'application/dicom; transfer-syntax=*, multipart/related; type="a/b,c" ,*/*'
        )
        assert [r.essence for r in ranges] == ["application/dicom", "multipart/related", "*/*"]
        assert ranges[0].parameters == {"transfer-syntax": "*"}
        assert ranges[1].parameters == {"type": "a/b,c"}

    def test_leaves_out_what_has_no_quality(self) -> None:
        assert [r.essence for r in parse_accept("a/b;q=0, c/d;q=0.5, e/f;q=0.0")] == ["c/d"]

    @pytest.mark.parametrize("value", ["", "a/b,", "a/b; c", "a", "a/b;q=high"])
    def test_that_breaks_the_grammar_is_an_error(self, value: str) -> None:
        with pytest.raises(ValueError, match=r"no type|not understood|could not convert"):
            parse_accept(value)


@pytest.mark.parametrize(
    ("media_range", "expected"),
    [
        ("*/*", True),
        ("application/*", True),
        ("application/dicom", True),
        ("image/*", False),
        ("application/json", False),
    ],
)
def test_a_media_range_covers_its_types(media_range: str, expected: bool) -> None:
    assert covers(MediaType(media_range), "application/dicom") is expected


@pytest.mark.parametrize(
    ("boundary", "expected"),
    [
        ("a", True),
        ("a b", True),
        ("x" * 70, True),
        ("x" * 71, False),
        ("", False),
        ("a ", False),
        ('a"', False),
        ("é", False),
        ("a;b", False),
    ],
)
def test_a_boundary_is_1_to_70_characters_that_do_not_end_in_a_space(
    boundary: str, expected: bool
) -> None:
    assert is_boundary(boundary) is expected
