"""What a server quotes of credentials, in whatever form its answer has."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from urllib.parse import quote

import pytest

from ingester.transport.quotes import without_quotes

SECRET = "dXNlcjpwYXNz/d29yZA+b_c-d.e=="
FORMS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "JSON": json.dumps,
    "JSON of PHP": lambda text: text.replace("/", "\\/"),
    "JSON of Gson": lambda text: text.replace("=", "\\u003d"),
    "JavaScript": lambda text: text.replace("=", "\\x3D").replace("+", "\\x2b"),
    "HTML": html.escape,
    "HTML of Go": lambda text: text.replace("+", "&#43;").replace("=", "&#61;"),
    "HTML in hex": lambda text: text.replace("/", "&#x2F;").replace("=", "&#x003d;"),
    "a URL": lambda text: quote(text, safe=""),
    "a URL in lower case": lambda text: quote(text, safe="").replace("%2F", "%2f"),
}


class TestASecret:
    @pytest.mark.parametrize("form", FORMS)
    def test_is_hidden_in_whatever_form(self, form: str) -> None:
        said = f"who is {FORMS[form](SECRET)}? And {SECRET}?".encode()
        left = without_quotes(said, SECRET)
        assert b"dXNl" not in left
        assert left.count(b"(hidden)") == 2
        assert left.startswith(b"who is ")

    def test_that_is_not_quoted_changes_nothing(self) -> None:
        said = b"dXNlcjpwYXNz alone is no secret \xff"
        assert without_quotes(said, SECRET) is said or without_quotes(said, SECRET) == said

    @pytest.mark.parametrize("secret", ["", "short", "=/=/=/=/="])
    def test_that_is_none_hides_nothing_else(self, secret: str) -> None:
        assert without_quotes(b"a short answer", secret) == b"a short answer"
