"""Click options made from the list of options; what was given on the command line and what not."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import click

from ingester.config import Config, load_config
from ingester.errors import UsageError
from ingester.options import BY_NAME, OPTIONS, Option, Value
from ingester.sources import Source

F = TypeVar("F", bound=Callable[..., None])

TARGET_OPTIONS = tuple(option for option in OPTIONS if option.section == "target")

_METAVARS = {"path": "FILE", "size": "SIZE", "count": "N", "count or 0": "N", "seconds": "SECONDS"}
_METAVARS |= {"percent": "PERCENT", "outcomes": "OUTCOME[,…]", "text": "TEXT"}


def run_options(function: F) -> F:
    """All options of a run, and ``--config``."""
    function = _with(function, OPTIONS)
    return click.option(
        "--config", "toml_path", metavar="FILE", help="TOML file; none is read unless named."
    )(function)


def target_options(function: F) -> F:
    """Those that say where the store is, and how to be let in."""
    return _with(function, TARGET_OPTIONS)


def _with(function: F, options: Sequence[Option]) -> F:
    for option in reversed(options):
        function = click.option(
            option.flag,
            option.name,
            multiple=option.kind != "switch",
            is_flag=option.kind == "switch",
            default=None,
            metavar=_metavar(option),
            help=_help(option),
        )(function)
    return function


def flags_of(given: Mapping[str, object]) -> list[str]:
    """What click collected, as another command line of this program has it."""
    flags: list[str] = []
    for name, value in given.items():
        if isinstance(value, tuple):
            flags += [f"{BY_NAME[name].flag}={one}" for one in value[:1]]
        elif value:
            flags.append(BY_NAME[name].flag)
    return flags


def load(toml_path: str | None, given: Mapping[str, object]) -> Config:
    """The configuration of what click collected. Raises UsageError."""
    flags: dict[str, object] = {}
    for name, value in given.items():
        if isinstance(value, tuple):
            if len(set(value)) > 1:
                what = "two targets" if name == "url" else "given twice"
                raise UsageError(f"{what}: --{name.replace('_', '-')}", "name one")
            if value:
                flags[name] = value[0]
        elif value is not None:
            flags[name] = value
    return load_config(flags, os.environ, toml_path)


def sources_of(paths: Sequence[str], roots: Sequence[str]) -> list[Source]:
    """Sources and named roots. Raises UsageError."""
    named: list[Source] = []
    for root in roots:
        name, equals, path = root.partition("=")
        if not (name and equals and path):
            raise UsageError(f"--root must be NAME=DIR: {root}")
        named.append(Source(os.fsencode(path), os.fsencode(name)))
    if not all(paths):
        raise UsageError("a source is empty", "is a variable not set? Name a directory or a file")
    sources = [Source(os.fsencode(path)) for path in paths] + named
    if not sources:
        raise UsageError("no source", "name a directory or a file, or --root NAME=DIR")
    return sources


def shown(value: Value) -> str:
    """A value as a person would write it."""
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ",".join(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _metavar(option: Option) -> str | None:
    if option.kind == "switch":
        return None
    return "|".join(option.choices) if option.choices else _METAVARS[option.kind]


def _help(option: Option) -> str:
    if option.kind == "switch" or option.default in (None, "", ()):
        return option.help
    return f"{option.help} [default: {shown_size(option)}]"


def shown_size(option: Option) -> str:
    """The default, sizes in MiB."""
    if option.kind == "size" and isinstance(option.default, int):
        return f"{option.default >> 20}MiB"
    if option.kind == "percent":
        return f"{option.default}%"
    return shown(option.default)
