"""The durable record: every file met, what became of it, and on what evidence.

SQLite in WAL mode on a local disk, one writing thread, commits in groups with ``synchronous=FULL``.

    schema   tables and codes
    names    what its files are called
    opening  how the file is made, opened and checked
    lock     one live run a journal, no network file systems
    rows     results to rows
    listings directories that a run which is resumed need not list again
    changes  what they change: files, totals, counters, claims
    writer   the thread: inbox, group commit, room
    announcer, announcements, announcement_file   what is about to be sent: the thread, what a
             crash leaves of it, the records on the disk
    waiters  coroutines that wait for one of the two threads
    lookup   what was known of a file or an instance
    runs, totals, status, export   what reports read, also while a run is going
    journal  all of it together
"""

from ingester.journal.export import FileRow, iter_files
from ingester.journal.journal import Journal
from ingester.journal.lookup import Known, KnownFiles
from ingester.journal.runs import Run, RunFigures, RunInfo
from ingester.journal.status import (
    SeriesStatus,
    Status,
    StudyStatus,
    read_all_runs,
    read_status,
    read_study,
)
from ingester.journal.totals import Count, Totals

__all__ = [
    "Count",
    "FileRow",
    "Journal",
    "Known",
    "KnownFiles",
    "Run",
    "RunFigures",
    "RunInfo",
    "SeriesStatus",
    "Status",
    "StudyStatus",
    "Totals",
    "iter_files",
    "read_all_runs",
    "read_status",
    "read_study",
]
