"""A proxy from the environment: what it is told of who we are, and around whom it is not asked."""

from __future__ import annotations

import base64

import pytest

from ingester.auth import Secret
from ingester.errors import UsageError
from ingester.proxy import proxy_for, split_proxy


class TestCredentialsOfAProxy:
    @pytest.mark.parametrize(
        ("written", "told"),
        [
            ("user:word", b"user:word"),
            ("us%20er:p%40w%2f%25", b"us er:p@w/%"),
            ("user:caf%C3%A9%E2%82%AC", "user:café€".encode()),
            ("user:caf%E9", b"user:caf\xe9"),
            ("user", b"user:"),
            (":word", b":word"),
        ],
    )
    def test_are_the_bytes_that_are_written(self, written: str, told: bytes) -> None:
        """Whoever wrote them knows in which encoding the proxy keeps them."""
        url, authorization = split_proxy(Secret(f"http://{written}@proxy:3128"))
        assert url == "http://proxy:3128"
        assert authorization == Secret("Basic " + base64.b64encode(told).decode())

    def test_are_none_where_none_are_written(self) -> None:
        assert split_proxy(Secret("http://[::1]:3128/")) == ("http://[::1]:3128", None)
        assert split_proxy(None) == (None, None)

    def test_whose_user_has_a_colon_are_refused_without_showing_them(self) -> None:
        with pytest.raises(UsageError, match=r"environment HTTP_PROXY: .*colon") as refused:
            proxy_for("http://h", None, "", {"HTTP_PROXY": "http://hun%3Ater:hunter2@proxy:1"})
        assert "hun" not in str(refused.value) + refused.value.hint
