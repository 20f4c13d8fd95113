"""Who we are to the server: values of the Authorization header (RFC 7617, RFC 6750).

Pure: where user names, passwords and tokens come from is for ``config`` to say.
"""

from __future__ import annotations

from base64 import b64encode


class Secret:
    """A credential that no repr, log or traceback shows."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The credential itself: only for the header it goes into."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(…)"

    def __reduce__(self) -> str:
        raise TypeError("a secret is not pickled")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


def is_word(text: str) -> bool:
    """Whether a header can carry it as one word: printable ASCII without a space."""
    return bool(text) and text.isascii() and text.isprintable() and " " not in text


def basic_authorization(username: str, password: Secret) -> str:
    """``Basic`` with the user name and password in UTF-8 (RFC 7617 2.1).

    What the environment has in another encoding goes out as it is.
    """
    given = f"{username}:{password.reveal()}".encode(errors="surrogateescape")
    return "Basic " + b64encode(given).decode()


def bearer_authorization(token: Secret) -> str:
    """``Bearer`` with a token as it is (RFC 6750 2.1)."""
    return "Bearer " + token.reveal()
