"""The credentials that a client of the emulator signs with."""

import base64
import secrets
import string
from dataclasses import dataclass, field
from typing import Self

_ACCESS_KEY_ALPHABET = string.ascii_uppercase + "234567"


@dataclass(frozen=True, slots=True)
class Credentials:
    """One pair of keys, and the session token if they are temporary ones.

    Raises:
        ValueError: A value that cannot stand in a header, or no key at all.
    """

    access_key: str
    secret_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)

    @property
    def token(self) -> str | None:
        """The session token, by the name it has in botocore."""
        return self.session_token

    def __post_init__(self) -> None:
        if not (_is_word(self.access_key) and _is_word(self.secret_key)):
            raise ValueError("a key is one or more visible ASCII characters")
        if "/" in self.access_key or "," in self.access_key:
            raise ValueError("an access key has no slash and no comma")
        if self.session_token is not None and not _is_word(self.session_token):
            raise ValueError("a session token is one or more visible ASCII characters")

    @classmethod
    def made(cls, session_token: str | None = None) -> Self:
        """New random ones, in the form of AWS's."""
        prefix = "AKIA" if session_token is None else "ASIA"
        return cls(
            prefix + "".join(secrets.choice(_ACCESS_KEY_ALPHABET) for _ in range(16)),
            base64.urlsafe_b64encode(secrets.token_bytes(30)).decode("ascii"),
            session_token,
        )


def _is_word(value: str) -> bool:
    return bool(value) and all("!" <= character <= "~" for character in value)
