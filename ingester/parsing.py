"""From the text of a flag or variable, or a TOML value, to an option's value."""

from __future__ import annotations

import math
import re
import shlex
from typing import TypeVar

from ingester.dicomweb.outcome import SETTLED
from ingester.errors import UsageError
from ingester.options import Option, Value

_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([KMG]i?B|B)?", re.ASCII)
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_UNITS |= {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


def parse(option: Option, given: object, where: str) -> Value:
    """The value of an option. Raises UsageError that names ``where`` it was given."""
    try:
        value = _parse(option, given)
    except ValueError as error:
        hint = "is a variable not set?" if given == "" else ""
        raise UsageError(f"{where}: {error}{_shown(given)}", hint) from None
    except OverflowError:
        raise UsageError(f"{where}: must be a smaller number") from None
    if option.choices and value not in option.choices:
        raise UsageError(f"{where}: must be one of {', '.join(option.choices)}: {given!r}")
    return value


def _parse(option: Option, given: object) -> Value:
    match option.kind:
        case "text" | "path":
            if not isinstance(given, str):
                raise ValueError("must be a text")
            if option.kind == "path" and not given:
                raise ValueError("must be a path")
            if "\0" in given:
                raise ValueError("must not hold a NUL")
            return given
        case "size":
            return _size(given)
        case "count" | "count or 0":
            number = _number(given)
            if number != int(number):
                raise ValueError("must be a whole number")
            if number > option.most:
                raise ValueError(f"must be at most {option.most}")
            whole = int(number)
            if option.kind == "count or 0":
                return _not_negative(whole)
            return _positive(whole)
        case "seconds":
            return _positive(_number(given))
        case "percent":
            text = given.strip().removesuffix("%") if isinstance(given, str) else given
            number = _number(text)
            if not 0 <= number <= 100:
                raise ValueError("must be a percentage")
            return number
        case "switch":
            return _switch(given)
        case "outcomes":
            return _outcomes(given)


def _shown(given: object) -> str:
    """The value for a message. A table or a list may hold what is nobody's to see."""
    return f": {given!r}" if isinstance(given, str | int | float) else ""


def _number(given: object) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        raise ValueError("must be a number")
    try:
        number = float(given)
    except ValueError:
        raise ValueError("must be a number") from None
    if not math.isfinite(number):
        raise ValueError("must be a number")
    return number


Number = TypeVar("Number", int, float)


def _positive(number: Number) -> Number:
    if number <= 0:
        raise ValueError("must be a number above zero")
    return number


def _not_negative(number: int) -> int:
    if number < 0:
        raise ValueError("must be zero or a number above it")
    return number


def _size(given: object) -> int:
    if isinstance(given, int) and not isinstance(given, bool):
        return _positive(given)
    found = _SIZE.fullmatch(given.strip()) if isinstance(given, str) else None
    if found is None:
        raise ValueError("must be a size such as 16MiB")
    size = int(float(found[1]) * _UNITS[found[2] or ""])
    return _positive(size)


def command_words(command: str, where: str) -> list[str]:
    """The words of a command line, by a shell's quoting; nothing else of a shell. UsageError."""
    try:
        words = shlex.split(command)
    except ValueError:  # a quote that is not closed
        words = []
    if not words:
        raise UsageError(f"{where}: must be a command line")
    return words


def _switch(given: object) -> bool:
    if isinstance(given, bool):
        return given
    if isinstance(given, str) and given.lower() in _TRUE | _FALSE:
        return given.lower() in _TRUE
    raise ValueError("must be true or false")


def _outcomes(given: object) -> tuple[str, ...]:
    parts = given.split(",") if isinstance(given, str) else given
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise ValueError("must be outcomes with commas between")
    names = tuple(part.strip() for part in parts if part.strip())
    if unknown := [name for name in names if name not in set(SETTLED)]:
        raise ValueError(f"no outcome that is settled ({', '.join(sorted(SETTLED))}): {unknown[0]}")
    return names
