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


class TestNoProxy:
    @pytest.mark.parametrize(
        ("url", "no_proxy"),
        [
            ("http://pacs", "pacs"),
            ("http://pacs.", "pacs"),
            ("http://a.b.hospital.local/x", "hospital.local"),
            ("http://pacs.hospital.local", ".hospital.local"),
            ("http://pacs.hospital.local", "*.hospital.local"),
            ("http://pacs.hospital.local", "example.org, HOSPITAL.local"),
            ("http://pacs.hospital.local", "example.org hospital.local"),
            ("http://pacs", " * "),
            ("http://pacs:8042", "pacs:8042"),
            ("https://pacs", "pacs:443"),
            ("http://10.1.2.3:8042", "10.1.2.3"),
            ("http://10.1.2.3:8042", "10.0.0.0/8"),
            ("http://10.1.2.3:8042", "10.0.0.1/8"),
            ("http://10.1.2.3:8042", "10.1.2.3:8042"),
            ("http://[fd00::1]:8042", "fd00::1"),
            ("http://[fd00::1]:8042", "FD00:0::1"),
            ("http://[fd00::1]:8042", "[fd00::1]"),
            ("http://[fd00::1]:8042", "[fd00::1]:8042"),
            ("http://[fd00::1]:8042", "fd00::/8"),
        ],
    )
    def test_goes_around_it(self, url: str, no_proxy: str) -> None:
        """What is named there, in the forms of curl and of Go: a proxy must not see its patients."""
        assert proxy_for(url, "http://proxy:1", "", {"NO_PROXY": no_proxy}) is None

    @pytest.mark.parametrize(
        ("url", "no_proxy"),
        [
            ("http://pacs", ""),
            ("http://pacs", " , ., *. , :80 ,[]"),
            ("http://pacs", "acs"),
            ("http://pacs.hospital.local", "pacs"),
            ("http://pacs:8042", "pacs:80"),
            ("http://10.1.2.3", "10.1.2.4,11.0.0.0/8,::/0,10.1.2.3/33"),
            ("http://[fd00::1]", "0.0.0.0/0,fe80::/10"),
            ("http://pacs", "0.0.0.0/0"),
        ],
    )
    def test_goes_around_no_other(self, url: str, no_proxy: str) -> None:
        proxy = proxy_for(url, "http://proxy:1", "", {"NO_PROXY": no_proxy})
        assert proxy == Secret("http://proxy:1")


@pytest.mark.parametrize("name", ["a..b", ".b", f"{'a' * 64}.example"])
def test_a_name_that_nobody_can_look_up_is_no_proxy(name: str) -> None:
    with pytest.raises(UsageError, match="a proxy must be http://host:port"):
        proxy_for("http://h", f"http://{name}:3128", "flag --proxy", {})
