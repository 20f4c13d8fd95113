"""Options as they are written in the environment and in a TOML file, each with where it stands.

Values come as they are: ``config`` parses them. Credentials are no options.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from typing import Final

from ingester.errors import UsageError
from ingester.options import OPTIONS, Option

CREDENTIAL_VARIABLES: Final = ("INGESTER_USERNAME", "INGESTER_PASSWORD", "INGESTER_TOKEN")
_OF_TESTS: Final = (
    "INGESTER_REQUIRE_ORTHANC",
    "INGESTER_REQUIRE_VERIFIER",
    "INGESTER_ROTATION_S",
    "INGESTER_VERIFIER_DIR",
)
_NOT_OPTIONS: Final = frozenset({*CREDENTIAL_VARIABLES, *_OF_TESTS})
_SECRET_WORDS: Final = ("password", "token", "secret", "username", "access_key", "credential")


def from_environment(environment: Mapping[str, str]) -> list[tuple[str, object, str]]:
    """The options among these variables: name, text, and where it was found.

    Raises UsageError: INGESTER_ and no option.
    """
    known = {option.variable: option for option in OPTIONS}
    found: list[tuple[str, object, str]] = []
    for variable, text in environment.items():
        if not variable.startswith("INGESTER_") or variable in _NOT_OPTIONS:
            continue
        if variable not in known:
            raise UsageError(
                f"no such option in the environment: {variable}", _suggestion(variable, known)
            )
        found.append((known[variable].name, text, f"environment {variable}"))
    return found


def from_toml(path: str | None) -> list[tuple[str, object, str]]:
    """The options in a file, if one is named: name, value, and where it was found.

    Raises UsageError: it cannot be read, is no TOML, has a key that is no option, or a secret.
    """
    if path is None:
        return []
    try:
        with open(path, "rb") as file:
            text = file.read().decode()
        document = tomllib.loads(text)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise UsageError(f"the configuration cannot be read ({reason}): {path}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"the configuration is not UTF-8: {path}") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"the configuration is not TOML ({error}): {path}") from None
    except (ValueError, RecursionError):  # thousands of digits or brackets
        raise UsageError(f"the configuration is not TOML of this program: {path}") from None
    known = {option.key: option for option in OPTIONS}
    found: list[tuple[str, object, str]] = []
    for section, table in document.items():
        for key, value in table.items() if isinstance(table, dict) else [("", table)]:
            full = f"{section}.{key}" if key else section
            where = f"{path}:{_line_of(text, section, key)}: {full}"
            option = known.get(full)
            if option is not None:
                found.append((option.name, value, where))
            elif any(word in full.lower() for word in _SECRET_WORDS):
                raise UsageError(
                    f"{where}: credentials are not read from a file",
                    f"set {', '.join(CREDENTIAL_VARIABLES)} in the environment",
                )
            else:
                raise UsageError(f"{where}: no such option", _suggestion(full, known))
    return found


def _line_of(text: str, section: str, key: str) -> int:
    """Where a key is written, in its section or with it; else where the section begins."""
    wanted = f"{section}.{key}" if key else section
    inside, begins = "", 1
    for number, line in enumerate(text.splitlines(), 1):
        written = line.partition("=")[0].replace(" ", "").replace("\t", "").replace('"', "")
        if written.startswith("["):
            inside = written.partition("]")[0].lstrip("[")
            begins = number if inside == section else begins
        elif "=" in line and ".".join(filter(None, (inside, written))) == wanted:
            return number
    return begins


def _suggestion(given: str, known: Mapping[str, Option]) -> str:
    tail = given.rsplit(".", 1)[-1]
    close = [key for key, option in known.items() if option.name == tail]
    close = close or difflib.get_close_matches(given, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else "see ingester config"
