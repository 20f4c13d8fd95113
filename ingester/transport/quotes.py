r"""What a server quotes of our credentials, taken out of its words.

It may quote them as they were, or as its format writes them: JSON with ``\u003d`` or ``\/``,
HTML with ``&#61;``, a URL with ``%3D``.
"""

from __future__ import annotations

import re

SHORTEST_HIDDEN = 8
"""A shorter word may be part of what any answer says."""

_PLAIN = re.compile(r"[A-Za-z0-9]+")


def without_quotes(said: bytes, secret: str) -> bytes:
    """The words without the secret, in whatever form."""
    if len(secret) < SHORTEST_HIDDEN:
        return said
    plain = max(_PLAIN.findall(secret), key=len, default="")
    if plain.encode() not in said:  # nearly always, and at no cost
        return said
    return re.sub("".join(map(_in_any_form, secret)).encode(), b"(hidden)", said)


def _in_any_form(character: str) -> str:
    if character.isalnum():
        return character
    itself, code = re.escape(character), f"{ord(character):02x}"
    return rf"(?:\\?{itself}|(?i:\\u00{code}|\\x{code}|%{code}|&#x0*{code};)|&#{ord(character)};)"
