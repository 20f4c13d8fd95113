"""The directories a run reads: existing, real paths, none inside another.

A source may be a single file: then its directory is the root and only that name is taken, so the
same file is known again when the whole directory is loaded later.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from ingester.errors import FatalError, SourceError, UsageError
from ingester.files import may_not_read
from ingester.items import Root
from ingester.real_path import real_path
from ingester.threads import DaemonExecutor


class Source(NamedTuple):
    """A source as it was given on the command line."""

    path: bytes
    name: bytes | None = None  # NAME of --root NAME=DIR


@dataclass(frozen=True, slots=True)
class ResolvedSource:
    """A directory to walk."""

    name: bytes
    path: bytes  # realpath
    device: int  # st_dev when the run started: another one later means it was unmounted
    only: frozenset[bytes] | None = None  # None: everything below it


KnownFilesUnder = Callable[[bytes | None, bytes], bool]
"""Whether the journal has files of a root of this name; of none: at or below this path."""


async def resolve_sources(
    sources: Sequence[Source], known_files_under: KnownFilesUnder, timeout_s: float
) -> list[ResolvedSource]:
    """Real, existing directories, nested and equal ones collapsed into the outermost.

    Each is looked at in a thread, for ``timeout_s`` at most.

    Raises:
        UsageError: a source is missing, may not be read, or is neither a file nor a directory, or
            two have a name.
        FatalError: it does not answer, or is missing or may not be read but the journal
            (``known_files_under``) has files under it.
    """
    import asyncio  # noqa: PLC0415 - heavy, and --help knows this module

    thread = DaemonExecutor(1, "sources")
    loop = asyncio.get_running_loop()
    found: list[ResolvedSource] = []
    try:
        for source in sources:
            async with asyncio.timeout(timeout_s):
                one = loop.run_in_executor(thread, _resolve, source, known_files_under)
                found.append(await one)
    except TimeoutError as error:
        raise SourceError(
            f"a source does not answer: {os.fsdecode(sources[len(found)].path)}",
            "is it still mounted? The same command goes on when it is back",
        ) from error
    finally:
        thread.shutdown()
    return _collapsed(found)


def _collapsed(found: Sequence[ResolvedSource]) -> list[ResolvedSource]:
    resolved = _merge_files(found)
    directories: set[bytes] = set()  # sources as a whole: what lies in them is theirs
    kept: dict[ResolvedSource, None] = {}
    for source in sorted(resolved, key=lambda each: (len(each.path), each.only is not None)):
        if directories.isdisjoint(_with_parents(source.path)):
            kept[source] = None
            if source.only is None:
                directories.add(source.path)
    named = {(source.name, source.path) for source in kept}
    if len({name for name, _ in named}) != len(named):
        raise UsageError("two sources have the same name", "give each --root another NAME")
    return [source for source in dict.fromkeys(resolved) if source in kept]


def _merge_files(resolved: Sequence[ResolvedSource]) -> list[ResolvedSource]:
    """Single files of one directory are one source: it is listed once, and has one root."""
    files: dict[tuple[bytes, bytes], set[bytes]] = {}
    taken: set[tuple[bytes, frozenset[bytes]]] = set()  # under the name that came first
    merged: dict[ResolvedSource, None] = {}
    for source in resolved:
        if source.only is None:
            merged[source] = None
            continue
        if (source.path, source.only) in taken:
            continue
        taken.add((source.path, source.only))
        names = files.setdefault((source.name, source.path), set())
        if not names:
            merged[replace(source, only=frozenset())] = None
        names |= source.only
    return [
        source
        if source.only is None
        else replace(source, only=frozenset(files[source.name, source.path]))
        for source in merged
    ]


def _resolve(source: Source, known_files_under: KnownFilesUnder) -> ResolvedSource:
    try:
        return _found(source, known_files_under)
    except PermissionError as error:
        reason = os.strerror(error.errno or 0)
        known = known_files_under(source.name, real_path(source.path))
        raise (FatalError if known else UsageError)(
            f"a source cannot be read ({reason}): {os.fsdecode(source.path)}",
            may_not_read(error),
        ) from error


def _found(source: Source, known_files_under: KnownFilesUnder) -> ResolvedSource:
    shown = os.fsdecode(source.path)
    if not source.path:  # it would be the current directory
        raise UsageError("a source is empty")
    try:
        path = os.path.realpath(source.path, strict=True)
        status = os.stat(path)
    except PermissionError:
        raise
    except OSError as error:
        path = real_path(source.path)
        if known_files_under(source.name, path):
            raise FatalError(
                f"a source that this journal has files of is gone: {shown}",
                "is it mounted? Nothing was changed; the same command goes on when it is back",
            ) from error
        raise UsageError(f"no such source ({os.strerror(error.errno or 0)}): {shown}") from error
    if os.path.isdir(path):
        _refuse_an_empty_mount_point(path, source.name, known_files_under)
        return ResolvedSource(source.name or path, path, status.st_dev)
    if not os.path.isfile(path):
        raise UsageError(f"a source must be a directory or a file: {shown}")
    directory, name = os.path.split(path)
    device = os.stat(directory).st_dev  # a file that is mounted by itself has another
    return ResolvedSource(source.name or directory, directory, device, only=frozenset({name}))


def _refuse_an_empty_mount_point(
    path: bytes, name: bytes | None, known_files_under: KnownFilesUnder
) -> None:
    try:
        with os.scandir(path) as entries:
            empty = next(entries, None) is None
    except PermissionError:
        raise
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise UsageError(f"a source cannot be listed ({reason}): {os.fsdecode(path)}") from error
    if empty and known_files_under(name, path):
        raise FatalError(
            f"a source that this journal has files of is empty: {os.fsdecode(path)}",
            "is it mounted? Nothing was changed; the same command goes on when it is back",
        )


def _with_parents(path: bytes) -> Iterator[bytes]:
    yield path
    while (parent := os.path.dirname(path)) != path:
        yield parent
        path = parent


def as_root(source: ResolvedSource, root_id: int) -> Root:
    """The root of the road for a source."""
    return Root(root_id, source.name, source.path, source.only, source.device)
