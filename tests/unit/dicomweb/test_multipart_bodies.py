from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingester.dicomweb.multipart import (
    multipart_framing,
    new_boundary,
    single_framing,
)
from tests.support.multipart import boundary_of, split


def body_of(files: list[bytes], *, quoted: bool) -> tuple[bytes, str, int]:
    framing = multipart_framing([len(file) for file in files], new_boundary(), quoted=quoted)
    assert len(framing.before) == len(files)
    pieces = [piece for pair in zip(framing.before, files, strict=True) for piece in pair]
    return b"".join([*pieces, framing.end]), framing.content_type, framing.content_length


class TestABody:
    def test_is_these_bytes(self) -> None:
        framing = multipart_framing([3, 2], "B", quoted=False)
        body = framing.before[0] + b"one" + framing.before[1] + b"22" + framing.end
        assert body == (
            b"--B\r\nContent-Type: application/dicom\r\n\r\none\r\n"
            b"--B\r\nContent-Type: application/dicom\r\n\r\n22\r\n--B--"
        )
        assert framing.content_length == len(body)
        assert framing.content_type == 'multipart/related; type="application/dicom"; boundary=B'

    @settings(deadline=None, max_examples=60)
    @given(
        st.lists(st.binary(max_size=40) | st.just(b"\r\n--\r\n"), min_size=1, max_size=20),
        st.booleans(),
    )
    def test_is_read_back_by_a_strict_reader(self, files: list[bytes], quoted: bool) -> None:
        body, content_type, length = body_of(files, quoted=quoted)
        parts = split(body, boundary_of(content_type))
        assert [part.body for part in parts] == files
        assert all(part.headers == {"content-type": "application/dicom"} for part in parts)
        assert len(body) == length

    @pytest.mark.parametrize("quoted", [True, False])
    def test_has_a_quoted_type_and_a_boundary_as_the_server_wants_it(self, quoted: bool) -> None:
        _, content_type, _ = body_of([b"x"], quoted=quoted)
        assert '; type="application/dicom"; ' in content_type
        assert content_type.endswith('"') is quoted

    def test_holds_its_framing_once_however_many_files(self) -> None:
        framing = multipart_framing([1] * 500, new_boundary(), quoted=True)
        assert len({id(lead) for lead in framing.before}) == 2

    @pytest.mark.parametrize("files", [1, 2, 500])
    def test_is_longer_than_its_files_by_less_than_a_request_leaves_free(self, files: int) -> None:
        framing = multipart_framing([7] * files, new_boundary(), quoted=True)
        assert framing.content_length < (7 + 256) * files


class TestABoundary:
    def test_is_32_token_characters_of_its_own(self) -> None:
        boundaries = {new_boundary() for _ in range(200)}
        assert len(boundaries) == 200
        assert all(len(each) == 32 and each.isalnum() and each.isascii() for each in boundaries)


class TestAFileAlone:
    def test_is_sent_as_it_is(self) -> None:
        framing = single_framing(12)
        assert framing.before == (b"",)
        assert (framing.end, framing.content_length) == (b"", 12)
        assert framing.content_type == "application/dicom"
