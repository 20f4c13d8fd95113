import itertools
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingester.emulator.multipart import (
    MAX_PART_HEADER_BYTES,
    MultipartError,
    MultipartParser,
    PartBegin,
    PartEnd,
)
from tests.unit.emulator.wire import BOUNDARY, DICOM_PART, multipart

B = f"--{BOUNDARY}".encode()

# Bytes a careless search takes for a delimiter.
near_misses = st.sampled_from(
    [
        b"\r\n",
        b"\r",
        b"\n",
        b"--",
        B,
        B[:-1],
        b"\r\n--",
        b"\r\n" + B[:-1],
        B + b"--",
        b"\r\r\n",
        b"\n" + B,
    ]
)
contents = (
    st.lists(st.one_of(st.binary(max_size=20), near_misses), max_size=20)
    .map(b"".join)
    .filter(lambda content: b"\r\n" + B not in b"\r\n" + content)
    .filter(lambda content: not (content + b"\r\n" + B).startswith(B))
)


def parse(chunks: list[bytes]) -> list[tuple[dict[str, str], bytes]]:
    parser = MultipartParser(BOUNDARY)
    parts: list[tuple[dict[str, str], bytes]] = []
    content = b""
    for event in itertools.chain.from_iterable(map(parser.feed, chunks)):
        match event:
            case PartBegin(headers):
                parts.append((headers, b""))
                content = b""
            case bytes():
                content += event
            case PartEnd(size):
                assert size == len(content)
                parts[-1] = (parts[-1][0], content)
    parser.close()
    return parts


def fault(body: bytes) -> str:
    """The fault of a body, which is the same one for every way it may be cut."""
    with pytest.raises(MultipartError) as whole:
        parse([body])
    with pytest.raises(MultipartError) as bytewise:
        parse([body[i : i + 1] for i in range(len(body))])
    assert str(bytewise.value) == str(whole.value)
    return str(whole.value)


class TestEveryChunking:
    @settings(deadline=None)  # a machine under load is no failure
    @given(st.lists(contents, min_size=1, max_size=5), st.data(), st.booleans())
    def test_gives_the_same_parts(
        self, parts: list[bytes], data: st.DataObject, crlf: bool
    ) -> None:
        body = multipart(*parts) + (b"\r\n" if crlf else b"")
        cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=30)))
        chunks = [body[a:b] for a, b in itertools.pairwise([0, *cuts, len(body)])]
        assert [content for _, content in parse(chunks)] == parts

    @settings(deadline=None)  # a machine under load is no failure
    @given(st.lists(contents, min_size=1, max_size=3))
    def test_of_single_bytes_gives_the_same_parts(self, parts: list[bytes]) -> None:
        body = multipart(*parts)
        assert [
            content for _, content in parse([body[i : i + 1] for i in range(len(body))])
        ] == parts

    @settings(deadline=None)  # a machine under load is no failure
    @given(st.lists(contents, min_size=1, max_size=3), st.data())
    def test_of_a_cut_off_body_is_refused(self, parts: list[bytes], data: st.DataObject) -> None:
        body = multipart(*parts)
        end = data.draw(st.integers(0, len(body) - 1))
        with pytest.raises(MultipartError):
            parse([body[:end]])

    def test_gives_content_before_the_part_is_complete(self) -> None:
        parser = MultipartParser(BOUNDARY)
        list(parser.feed(B + b"\r\n" + DICOM_PART + b"\r\n\r\n"))
        held_back = len(b"\r\n" + B) - 1
        for _ in range(3):
            [content] = parser.feed(b"x" * 100_000)
            assert isinstance(content, bytes)
            assert abs(len(content) - 100_000) <= held_back

    def test_gives_what_came_before_a_fault(self) -> None:
        events = MultipartParser(BOUNDARY).feed(
            multipart(b"x", b"y").replace(b"y\r\n" + B, b"y\r\n" + B + b"!")
        )
        kinds: list[type] = []
        with pytest.raises(MultipartError):
            kinds.extend(type(event) for event in events)
        assert kinds == [PartBegin, bytes, PartEnd, PartBegin, bytes]


class TestAHeader:
    def test_has_lower_case_names_and_trimmed_values(self) -> None:
        body = multipart(b"x", header=b"CONTENT-type: \t application/dicom \r\nContent-ID:<a>")
        assert parse([body]) == [({"content-type": "application/dicom", "content-id": "<a>"}, b"x")]

    @pytest.mark.parametrize(
        "header",
        [b"no colon", b"a b: c", b" folded: x", b"a: b\r\n c", b"a: b\nc: d", b": x", b"a: \0"],
    )
    def test_that_is_not_lines_of_name_and_value_is_refused(self, header: bytes) -> None:
        assert (
            fault(multipart(b"x", header=header))
            == "a part's header has a line that is not 'name: value'"
        )

    def test_with_a_field_twice_is_refused(self) -> None:
        assert (
            fault(multipart(b"x", header=b"a: b\r\nA: c")) == "a part's header has a field twice: a"
        )

    def test_that_is_missing_is_refused(self) -> None:
        assert fault(B + b"\r\n\r\nx\r\n" + B + b"--") == "a part without a header"

    @pytest.mark.parametrize("end", [b"", b"\r\n\r\nx\r\n" + B + b"--"])
    def test_that_does_not_end_is_refused(self, end: bytes) -> None:
        body = B + b"\r\na: " + b"b" * MAX_PART_HEADER_BYTES + end
        assert fault(body) == "a part's header is too long"


class TestAContentLengthInAPart:
    def test_that_is_right_is_accepted(self) -> None:
        assert len(parse([multipart(b"12345", header=b"Content-Length: 5")])) == 1

    @pytest.mark.parametrize("length", [b"4", b"6", b"0"])
    def test_that_is_wrong_is_refused(self, length: bytes) -> None:
        body = multipart(b"12345", header=b"Content-Length: " + length)
        assert fault(body) == "a part's Content-Length is not the length of its content"

    @pytest.mark.parametrize("length", [b"-5", b"5.0", b"", b"\xb2", b"9" * 5000])
    def test_that_is_no_number_is_refused(self, length: bytes) -> None:
        body = multipart(b"12345", header=b"Content-Length: " + length)
        assert fault(body) == "a part's Content-Length is not a number"


class TestABody:
    def test_may_have_a_crlf_after_the_end_delimiter(self) -> None:
        assert len(parse([multipart(b"x") + b"\r\n"])) == 1

    def test_may_have_an_empty_part(self) -> None:
        assert parse([multipart(b"")])[0][1] == b""

    @pytest.mark.parametrize("preamble", [b"\r\n", b"hello\r\n", b" ", b"-"])
    def test_with_bytes_before_the_first_delimiter_is_refused(self, preamble: bytes) -> None:
        assert (
            fault(preamble + multipart(b"x"))
            == "the body does not begin with the boundary delimiter"
        )

    @pytest.mark.parametrize("epilogue", [b"x", b"\r\nx", b"\r\n\r\n", b"\n", b"\r", b"--"])
    def test_with_bytes_after_the_end_is_refused(self, epilogue: bytes) -> None:
        assert fault(multipart(b"x") + epilogue) == "bytes after the end delimiter"

    @pytest.mark.parametrize(
        "body", [b"", B, B + b"-", B + b"\r\n", multipart(b"x")[:-1], multipart(b"x")[:-2]]
    )
    def test_without_its_end_delimiter_is_refused(self, body: bytes) -> None:
        assert fault(body) == "the body ends before the end delimiter"

    def test_of_another_boundary_is_refused(self) -> None:
        with pytest.raises(MultipartError, match="does not begin"):
            list(MultipartParser("other").feed(multipart(b"x")))

    def test_without_parts_is_refused(self) -> None:
        assert fault(B + b"--") == "no part in the body"

    @pytest.mark.parametrize("mark", [b" \r\n", b"\n", b"x", b"-x", b"\r\r"])
    def test_with_anything_else_behind_a_boundary_is_refused(self, mark: bytes) -> None:
        body = multipart(b"x").replace(B + b"\r\n", B + mark)
        assert fault(body) == "neither CRLF nor two dashes after a boundary"

    def test_whose_content_has_the_boundary_on_a_line_is_refused(self) -> None:
        assert (
            fault(multipart(b"a\r\n" + B + b"c")) == "neither CRLF nor two dashes after a boundary"
        )

    def test_whose_delimiter_has_no_crlf_of_its_own_is_refused(self) -> None:
        body = B + b"\r\n" + DICOM_PART + b"\r\n\r\n" + B + b"--"
        assert fault(body) == "a delimiter where the content of a part begins"

    def test_whose_delimiter_has_only_a_line_feed_is_content(self) -> None:
        body = B + b"\r\n" + DICOM_PART + b"\r\n\r\nx\n" + B + b"--"
        assert fault(body) == "the body ends before the end delimiter"


def test_a_large_part_is_not_searched_byte_by_byte() -> None:
    """64 MiB of random bytes and of near misses: seconds if it were, hundredths as it is."""
    parser = MultipartParser(BOUNDARY)
    list(parser.feed(B + b"\r\n" + DICOM_PART + b"\r\n\r\n"))
    for block in (os.urandom(1 << 20), (b"\r\n" + B[:-1]) * 100_000):
        for _ in range(64):
            assert len(list(parser.feed(block))) == 1
