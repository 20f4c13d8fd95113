"""The splitter that judges our multipart writer."""

import pytest

from tests.support.multipart import MultipartError, Part, boundary_of, split

PART = b"Content-Type: application/dicom\r\n\r\n"
HEADERS = {"content-type": "application/dicom"}


class TestSplit:
    def test_gives_every_part_to_the_byte(self) -> None:
        body = b"--b\r\n" + PART + b"one\r\n\r\n--b\r\n" + PART + b"\r\n--b--"
        assert split(body, "b") == [Part(HEADERS, b"one\r\n"), Part(HEADERS, b"")]

    def test_accepts_a_crlf_after_the_end(self) -> None:
        assert split(b"--b\r\n" + PART + b"x\r\n--b--\r\n", "b") == [Part(HEADERS, b"x")]

    def test_accepts_a_part_without_headers(self) -> None:
        assert split(b"--b\r\n\r\nx\r\n--b--", "b") == [Part({}, b"x")]

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"\r\n--b\r\n" + PART + b"x\r\n--b--",
            b"--b\r\n" + PART + b"x\r\n--b",
            b"--b\r\n" + PART + b"x\r\n--b--trailing",
            b"--b\r\n" + PART + b"x--b--",
            b"--b\n" + PART + b"x\r\n--b--",
            b"--b\r\nContent-Type: application/dicom\r\nx\r\n--b--",
            b"--b\r\n" + PART + b"x\r\n--bb\r\n" + PART + b"y\r\n--b--",
            b"--b--",
        ],
        ids=[
            "nothing",
            "preamble",
            "no end",
            "epilogue",
            "no CRLF before the end",
            "bare LF",
            "no blank line",
            "the boundary inside a file",
            "no parts",
        ],
    )
    def test_refuses(self, body: bytes) -> None:
        with pytest.raises(MultipartError):
            split(body, "b")


class TestBoundaryOf:
    @pytest.mark.parametrize("boundary", ["0a1b2c", '"0a1b2c"'])
    def test_reads_it_bare_and_quoted(self, boundary: str) -> None:
        content_type = f'multipart/related; type="application/dicom"; boundary={boundary}'
        assert boundary_of(content_type) == "0a1b2c"

    @pytest.mark.parametrize(
        "content_type",
        [
            "application/dicom",
            "multipart/related; boundary=b",
            "multipart/related; type=application/dicom; boundary=b",
            'multipart/related; type="application/dicom"',
            'multipart/related; type="application/dicom"; boundary=',
            'multipart/related; type="application/dicom"; boundary=b b',
            'multipart/form-data; type="application/dicom"; boundary=b',
        ],
    )
    def test_refuses_what_a_server_might_not_read(self, content_type: str) -> None:
        with pytest.raises(MultipartError):
            boundary_of(content_type)
