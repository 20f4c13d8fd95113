"""The journal's file: its tables and the codes in them.

One SQLite database in WAL mode, written by one thread of one process, read by anybody. What is
written by the million is kept small: directories and series by number, UIDs as packed digits.

Why the UID is packed (and not TEXT): it stands in ``files`` and in ``instances``, and at 10^8
rows half of its length twice is 5 GB. ``SELECT replace(hex(sop_instance_uid), 'A', '.')`` shows it
to a person, with an F at the end where it has an odd number of characters.

Why ``instances`` has no digest while its holder is unchanged: the holder's row in ``files`` says
the same; only when that row moves on to other content are outcome, size and digest of what the
store was sent frozen here.

Why studies have no counters: those of their series add up in the same look-up.

Why a skipped directory has one stamp for all its files: 10^8 rows need not be written each morning
that a run is resumed. So the run that last saw a file is ``SEEN_RUN_ID``, and never the column
alone: what counts is the later of the file's own stamp and that of its directory. The directory
speaks for the rows that its listing met or that came after it, and not for a file that had vanished
before.
"""

from __future__ import annotations

from typing import Final

from ingester.dicomweb.outcome import HOLDS_ITS_CLAIM, IN_THE_STORE, Evidence, Outcome

APPLICATION_ID: Final = 0x494E4731  # "ING1"
SCHEMA_VERSION: Final = 5
INT64_MAX: Final = 2**63 - 1

OUTCOME_CODES: Final = {
    Outcome.STORED: 1,
    Outcome.STORED_WITH_WARNING: 2,
    Outcome.ALREADY_STORED: 3,
    Outcome.IN_DOUBT: 4,
    Outcome.PENDING: 5,
    Outcome.DUPLICATE: 6,
    Outcome.CONFLICT: 7,
    Outcome.HELD: 8,
    Outcome.REJECTED: 9,
    Outcome.FAILED: 10,
    Outcome.INVALID: 11,
    Outcome.NOT_DICOM: 12,
    Outcome.TOO_LARGE: 13,
    Outcome.UNREADABLE: 14,
    Outcome.SKIPPED: 15,
}
"""Part of the schema. Up to HOLDS_MAX an outcome holds its claim, a smaller code more firmly."""

OUTCOMES: Final = {code: outcome for outcome, code in OUTCOME_CODES.items()}
IN_THE_STORE_MAX: Final = max(OUTCOME_CODES[outcome] for outcome in IN_THE_STORE)
HOLDS_MAX: Final = max(OUTCOME_CODES[outcome] for outcome in HOLDS_ITS_CLAIM)

EVIDENCE_CODES: Final = {Evidence.MANIFEST: 1, Evidence.QIDO: 2, Evidence.BYTES: 3}
EVIDENCES: Final = {code: evidence for evidence, code in EVIDENCE_CODES.items()}

ANNOUNCED: Final = """
CREATE TABLE announced (
    row_id INTEGER PRIMARY KEY,
    run_id INTEGER NOT NULL,
    batch BLOB NOT NULL
) STRICT;
"""
LISTINGS: Final = """
ALTER TABLE directories ADD COLUMN listed_run_id INTEGER;
ALTER TABLE directories ADD COLUMN listed_ino INTEGER;
ALTER TABLE directories ADD COLUMN listed_mtime_ns INTEGER;
ALTER TABLE directories ADD COLUMN listed_ctime_ns INTEGER;
ALTER TABLE directories ADD COLUMN listed_files INTEGER;
ALTER TABLE directories ADD COLUMN seen_run_id INTEGER;
"""
ANNOUNCEMENTS: Final = """
CREATE TABLE announcements (                        -- which records count, of the file of what
    row_id INTEGER PRIMARY KEY CHECK (row_id = 1),  -- may be on the wire; a row: there is one
    session BLOB NOT NULL,                          -- whose records
    highest INTEGER NOT NULL,                       -- all of a higher number
    synced INTEGER NOT NULL,                        -- those up to this one must be there
    open BLOB NOT NULL                              -- and these: MessagePack, a list
) STRICT;
"""
COPIES: Final = f"""
CREATE INDEX copies ON files (series_id, sop_instance_uid)  -- of what a file that changes was
WHERE outcome = {OUTCOME_CODES[Outcome.DUPLICATE]};
"""
MIGRATIONS: Final = {1: ANNOUNCED, 2: LISTINGS, 3: ANNOUNCEMENTS, 4: COPIES}
"""What brings a journal of that version to the next one."""

HIGHEST_DROPPED: Final = "highest_dropped_file_id"
"""In ``meta``. A claim may still name the row that had it: no other file gets this number."""

SEEN_RUN_ID: Final = """CASE
    WHEN d.seen_run_id > f.seen_run_id AND f.seen_run_id >= d.listed_run_id THEN d.seen_run_id
    ELSE f.seen_run_id END"""
"""Of a row f in ``files`` and its directory d: the run that last saw the file."""

TABLES: Final = f"""
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};

CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE runs (
    run_id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    operator TEXT NOT NULL,
    host TEXT NOT NULL,
    version TEXT NOT NULL,
    config_digest TEXT NOT NULL,
    target TEXT NOT NULL,
    started_at TEXT NOT NULL,                       -- UTC, ISO 8601
    finished_at TEXT,                               -- NULL: going on, or it was killed
    exit_code INTEGER,
    studies INTEGER NOT NULL DEFAULT 0,             -- met in this run
    unreadable_directories INTEGER NOT NULL DEFAULT 0,
    requests INTEGER NOT NULL DEFAULT 0,
    retries INTEGER NOT NULL DEFAULT 0,
    bytes_stored INTEGER NOT NULL DEFAULT 0,
    elapsed_s REAL NOT NULL DEFAULT 0,
    peak_rss_mib REAL NOT NULL DEFAULT 0,
    bottleneck TEXT NOT NULL DEFAULT ''
) STRICT;

CREATE TABLE roots (
    root_id INTEGER PRIMARY KEY,
    name BLOB NOT NULL UNIQUE,
    path BLOB NOT NULL
) STRICT;

CREATE TABLE directories (
    dir_id INTEGER PRIMARY KEY,
    root_id INTEGER NOT NULL,
    rel_path BLOB NOT NULL,
    listed_run_id INTEGER,                          -- of the last complete listing of a directory
    listed_ino INTEGER,                             -- without subdirectories: what lstat said then
    listed_mtime_ns INTEGER,
    listed_ctime_ns INTEGER,
    listed_files INTEGER,                           -- names of files of every kind in it
    seen_run_id INTEGER,                            -- the last run that skipped it since
    UNIQUE (root_id, rel_path)
) STRICT;

CREATE TABLE studies (
    study_id INTEGER PRIMARY KEY,
    uid BLOB NOT NULL UNIQUE,                       -- packed
    year INTEGER,                                   -- of StudyDate
    seen_run_id INTEGER NOT NULL
) STRICT;

CREATE TABLE series (
    series_id INTEGER PRIMARY KEY,
    study_id INTEGER NOT NULL,
    uid BLOB NOT NULL,                              -- packed
    modality TEXT NOT NULL,
    seen INTEGER NOT NULL DEFAULT 0,                -- rows in files
    stored INTEGER NOT NULL DEFAULT 0,              -- of these in the store
    exceptions INTEGER NOT NULL DEFAULT 0,          -- of these incomplete
    UNIQUE (study_id, uid)
) STRICT;

CREATE TABLE files (
    file_id INTEGER PRIMARY KEY,
    dir_id INTEGER NOT NULL,
    name BLOB NOT NULL,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    mtime_trusted INTEGER NOT NULL,
    outcome INTEGER NOT NULL,
    evidence INTEGER,
    pixel_warning INTEGER NOT NULL,
    seen_run_id INTEGER NOT NULL,
    decided_run_id INTEGER NOT NULL,
    series_id INTEGER,
    sop_instance_uid BLOB,                          -- packed
    sha256 BLOB,                                    -- of the whole file
    UNIQUE (dir_id, name)
) STRICT;

{COPIES}
CREATE TABLE details (                              -- only of files with something to say
    file_id INTEGER PRIMARY KEY,
    reason_code TEXT NOT NULL,
    reason TEXT NOT NULL,
    warning_code INTEGER,
    failure_code INTEGER,
    http_status INTEGER,
    attempts INTEGER NOT NULL,
    request_id TEXT NOT NULL,
    other_file_id INTEGER,
    findings TEXT NOT NULL                          -- JSON list, or ''
) STRICT;

CREATE TABLE instances (                            -- who holds the claim on a UID
    study_id INTEGER NOT NULL,
    sop_instance_uid BLOB NOT NULL,                 -- packed
    holder_file_id INTEGER NOT NULL,
    sent_outcome INTEGER,                           -- NULL: as the holder's row says
    sent_size INTEGER,
    sent_sha256 BLOB,
    PRIMARY KEY (study_id, sop_instance_uid)
) STRICT, WITHOUT ROWID;

{ANNOUNCEMENTS}
CREATE TABLE totals (                               -- run 0: the whole journal as it stands
    run_id INTEGER NOT NULL,
    outcome INTEGER NOT NULL,
    pixel_warning INTEGER NOT NULL,
    files INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (run_id, outcome, pixel_warning)
) STRICT, WITHOUT ROWID;
"""

_UNPACKED: Final = b"\xff"  # no digit and no dot: the rest is the text itself


def pack_uid(uid: str) -> bytes:
    """Digits and dots two to a byte; any other text (it exists) as it is, after a mark."""
    if uid.isascii() and uid.replace(".", "").isdigit():
        return bytes.fromhex(uid.replace(".", "a") + "f" if len(uid) & 1 else uid.replace(".", "a"))
    return _UNPACKED + uid.encode("utf-8", "surrogatepass")


def unpack_uid(packed: bytes) -> str:
    """The UID as it was."""
    if packed[:1] == _UNPACKED:
        return packed[1:].decode("utf-8", "surrogatepass")
    return packed.hex().rstrip("f").replace("a", ".")


def clean_text(text: str) -> str:
    """Text that SQLite takes: lone surrogates (bytes that were no UTF-8) become '?'."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def clean_int(number: int) -> int:
    """A number that SQLite takes: file systems have times beyond 64 bits of nanoseconds."""
    if -INT64_MAX <= number <= INT64_MAX:
        return number
    return INT64_MAX if number > 0 else -INT64_MAX
