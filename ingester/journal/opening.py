"""How the journal's file is made, opened and checked, and what is said when that fails."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from ingester.errors import JournalError
from ingester.journal.names import copy_before_migration
from ingester.journal.schema import APPLICATION_ID, MIGRATIONS, SCHEMA_VERSION, TABLES

if TYPE_CHECKING:
    import apsw

BUSY_TIMEOUT_MS: Final = 10_000
CHECKPOINT_PAGES: Final = 4_000  # 16 MiB of WAL between checkpoints
WRITER_CACHE_KIB: Final = 16_384
READER_CACHE_KIB: Final = 4_096
DESCRIPTORS_OF_SQLITE: Final = 4  # of the journal, its WAL, its shared memory, their directory
_NO_SHARED_MEMORY: Final = 4874  # SQLITE_IOERR_SHMSIZE: the disk has no room for its 32 KiB
_DAMAGED: Final = ("the file is damaged", "restore it from a backup, or start a new one")
_HINTS: Final = {
    "FullError": ("the disk is full", "free some space, then give the same command again"),
    "IOError": ("input/output error", "check the disk, then give the same command again"),
    "BusyError": ("locked by another program", "close what has the journal open for writing"),
    "ReadOnlyError": ("it is read-only", "check the permissions of the file and its directory"),
    "CantOpenError": (
        "SQLite cannot open it, or a file beside it",
        "check the permissions of the file and its directory",
    ),
    "NotADBError": ("it is not an ingester journal", "name another file with --journal"),
    "CorruptError": _DAMAGED,
    "SQLError": _DAMAGED,  # every statement is one that a whole journal knows
}


def journal_error(path: str, action: str, error: BaseException) -> JournalError:
    """One line for what went wrong, without any value of a row.

    What is not an error of SQLite is a value that cannot be one: the file is damaged, too.
    """
    while type(error).__name__ == "SQLError" and error.__context__ is not None:
        error = error.__context__  # SQLite undid all, and the part that was to be undone is gone
    kind = type(error).__name__
    if not type(error).__module__.startswith("apsw"):
        kind = "CorruptError"
    if getattr(error, "extendedresult", 0) == _NO_SHARED_MEMORY:
        kind = "FullError"
    reason, hint = _HINTS.get(kind, (kind, ""))
    if kind == "CantOpenError":
        reason, hint = _no_descriptor() or (_why_not(path) or reason, hint)
    return JournalError(f"the journal cannot be {action}: {reason}: {path}", hint)


def _no_descriptor() -> tuple[str, str] | None:
    """What to say where this process has no more open files: then no file is at fault.

    What SQLite had opened before the one that failed is closed again by now.
    """
    with ExitStack() as taken:
        try:
            for _ in range(DESCRIPTORS_OF_SQLITE):
                fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
                taken.callback(os.close, fd)
        except OSError as error:
            if hint := hint_for(error, ""):
                return os.strerror(error.errno or 0), hint
    return None


def hint_for(error: OSError, otherwise: str) -> str:
    """What to do about a file that cannot be opened: ``otherwise``, if the file is at fault."""
    if error.errno in {errno.EMFILE, errno.ENFILE}:
        return "raise the limit of open files (ulimit -n)"
    return otherwise


def _why_not(path: str) -> str:
    """The system's reason why a file cannot be opened to read, "" if it knows none.

    It is not opened to see: closing it would take a run's locks from its journal.
    """
    try:
        os.stat(path)
    except OSError as error:
        return os.strerror(error.errno or 0)
    return "" if os.access(path, os.R_OK) else os.strerror(errno.EACCES)


def write_error(path: str, error: BaseException) -> JournalError:
    """The same for the file of announcements, or for a bug."""
    if not isinstance(error, OSError):
        return JournalError(
            f"what is about to be sent could not be written down: {type(error).__name__}: {path}",
            "the same command continues where the journal ends",
        )
    reason = os.strerror(error.errno or 0)
    hint = hint_for(error, _HINTS["CantOpenError"][1])
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        reason, hint = _HINTS["FullError"]
    elif error.errno == errno.EIO:
        hint = _HINTS["IOError"][1]
    return JournalError(f"the journal cannot be written: {reason}: {path}", hint)


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Around a look-up: a page or a value that cannot be read raises JournalError."""
    import apsw  # noqa: PLC0415 - loaded by whoever made the connection

    try:
        yield
    except (apsw.Error, ValueError, KeyError) as error:
        raise journal_error(path, "read", error) from error


def create_private(path: str) -> None:
    """Make the file, or take an existing one, readable by its owner alone.

    SQLite gives its sidecars the mode of the database. Raises JournalError.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY, 0o600)
        try:
            status = os.fstat(fd)
            _check_regular(status, path)
            if stat.S_IMODE(status.st_mode) != 0o600:
                os.fchmod(fd, 0o600)
        finally:
            os.close(fd)
    except OSError as error:
        raise JournalError(
            f"the journal cannot be opened: {error.strerror}: {path}",
            hint_for(error, "name a file in a directory you may write to with --journal"),
        ) from error


def _check_regular(status: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise JournalError(
            f"the journal is not a regular file: {path}", "name another file with --journal"
        )


def connect_writer(path: str) -> apsw.Connection:
    """The one connection that writes; a new journal gets its tables. Raises JournalError."""
    import apsw  # noqa: PLC0415 - 20 ms that verbs without a journal need not pay

    # What a part of a commit was before lies in memory, for 4,096 rows at most: in a temporary file
    # it would need room on another disk, that of /tmp.
    connection = None
    try:
        connection = _connect(path, apsw.SQLITE_OPEN_READWRITE)
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        if not _is_new(connection):
            _check_version(connection, path)
            _migrate(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        _set(
            connection,
            f"""PRAGMA synchronous = FULL; PRAGMA fullfsync = 1; PRAGMA checkpoint_fullfsync = 1;
            PRAGMA mmap_size = 0; PRAGMA cache_size = -{WRITER_CACHE_KIB};
            PRAGMA temp_store = MEMORY;
            PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}; PRAGMA journal_size_limit = 67108864""",
        )
        if _is_new(connection):
            with connection:
                connection.execute(TABLES)
    except BaseException as error:
        if connection is not None:
            with suppress(apsw.Error):
                connection.close()
        if isinstance(error, (apsw.Error, UnicodeError)):
            raise journal_error(path, "opened", error) from error
        raise
    return connection


def connect_reader(path: str) -> apsw.Connection:
    """A connection that only reads, also while a run is writing. Raises JournalError.

    Where nothing can be written beside the journal SQLite has no shared memory. One that was closed
    needs none: all of it is in the file. One that a run has open has a WAL.
    """
    import apsw  # noqa: PLC0415 - the same

    with suppress(OSError):  # whatever it is, SQLite meets it too
        _check_regular(os.stat(path), path)
    try:
        try:
            return _reader(path)
        except (apsw.CantOpenError, apsw.ReadOnlyError):
            if os.path.lexists(f"{os.path.realpath(path)}-wal"):
                raise
            return _reader(path, immutable=True)
    except (apsw.Error, UnicodeError) as error:
        raise journal_error(path, "opened", error) from error


def _reader(path: str, *, immutable: bool = False) -> apsw.Connection:
    import apsw  # noqa: PLC0415 - the same

    connection = _connect(path, apsw.SQLITE_OPEN_READONLY, "?immutable=1" if immutable else "")
    try:
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        _set(connection, f"PRAGMA mmap_size = 0; PRAGMA cache_size = -{READER_CACHE_KIB}")
        _check_version(connection, path)
    except BaseException:
        with suppress(apsw.Error):
            connection.close()
        raise
    return connection


def _connect(path: str, flags: int, parameters: str = "") -> apsw.Connection:
    """By a URI: it may hold any byte, a path as text only those that are UTF-8."""
    import apsw  # noqa: PLC0415 - the same

    uri = f"file:{quote(os.fsencode(path))}{parameters}"
    return apsw.Connection(uri, flags=flags | apsw.SQLITE_OPEN_URI)


def _set(connection: apsw.Connection, pragmas: str) -> None:
    """All of them: those behind one that gives a row come when that is fetched."""
    connection.execute(pragmas).fetchall()


def _is_new(connection: apsw.Connection) -> bool:
    """An empty file, or one whose maker was killed before its tables were there."""
    tables = connection.execute("SELECT count(*) FROM sqlite_schema").get
    application_id = connection.execute("PRAGMA application_id").get
    return (tables, application_id) == (0, 0)


def _check_version(connection: apsw.Connection, path: str) -> None:
    application_id = connection.execute("PRAGMA application_id").get
    version = connection.execute("PRAGMA user_version").get
    if application_id != APPLICATION_ID:
        raise JournalError(
            f"the file is not an ingester journal: {path}",
            "name another file with --journal",
        )
    if version != SCHEMA_VERSION and version not in MIGRATIONS:
        raise JournalError(
            f"the journal was made by a newer version (schema {version}, "
            f"known is {SCHEMA_VERSION}): {path}",
            "use that version, or name another file with --journal",
        )


def _migrate(connection: apsw.Connection, path: str) -> None:
    """Bring an older journal forward, after a copy of it was made beside it."""
    version = connection.execute("PRAGMA user_version").get
    if version == SCHEMA_VERSION:
        return
    import apsw  # noqa: PLC0415 - the same

    copy = copy_before_migration(path, version)
    create_private(copy)  # one that an interrupted migration left is made anew
    target = _connect(copy, apsw.SQLITE_OPEN_READWRITE)
    try:
        with target.backup("main", connection, "main") as backup:
            backup.step()
    finally:
        target.close()
    while version != SCHEMA_VERSION:
        with connection:
            connection.execute(MIGRATIONS[version])
            version += 1
            connection.execute(f"PRAGMA user_version = {version}")
