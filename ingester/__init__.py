"""Moves archives of DICOM files into a DICOMweb store, every file accounted for.

The road of the data, a module each::

    walk ──FileRef──▶ scan ──Instance──▶ group ──StudyBatch──▶ upload ──Result──▶ journal
    lists             reads, identifies   claims UIDs,         sends, reconciles   commits; then
    directories       (dicom)             makes batches        (dicomweb,          results and
                                                               transport)          progress

``pipeline`` wires them, ``ledger`` counts every file in and out once, ``config`` says how, ``cli``
is the only place that knows click, signals and exit codes.

Guarantees: everything is accounted for; nothing is claimed that is not stored; nothing is lost by
a crash; bytes go out verbatim; memory is bounded by the options; one bad item sinks only itself;
nothing leaks.

Public: ``ingest``, ``Config``, ``load_config``, ``Outcome``, ``RunSummary`` and the errors.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ingester.version import VERSION

if TYPE_CHECKING:
    from ingester.config import Config as Config
    from ingester.config import load_config as load_config
    from ingester.dicomweb.outcome import Outcome as Outcome
    from ingester.errors import FatalError as FatalError
    from ingester.errors import IngesterError as IngesterError
    from ingester.errors import JournalError as JournalError
    from ingester.errors import UsageError as UsageError
    from ingester.pipeline import ingest as ingest
    from ingester.report.summary import RunSummary as RunSummary

__version__ = VERSION

_PUBLIC = {
    "Config": "ingester.config",
    "FatalError": "ingester.errors",
    "IngesterError": "ingester.errors",
    "JournalError": "ingester.errors",
    "Outcome": "ingester.dicomweb.outcome",
    "RunSummary": "ingester.report.summary",
    "UsageError": "ingester.errors",
    "ingest": "ingester.pipeline",
    "load_config": "ingester.config",
}

__all__ = sorted(_PUBLIC)  # noqa: PLE0605 - the names are loaded when they are used


def __getattr__(name: str) -> object:
    """Load a public name when it is used: ``ingester --help`` must not wait for aiohttp."""
    if name not in _PUBLIC:
        raise AttributeError(name)
    return getattr(import_module(_PUBLIC[name]), name)
