"""DICOM Part 10 files, as far as their heads go: what a file is, and what identifies it.

`inspect_part10` answers for one file, from the bytes its caller has read (no asyncio, no os, no
clock). `read_header` is the fast part of it; pydicom is the judge, and the fallback.
"""

from ingester.dicom.data_set import data_set_offset
from ingester.dicom.inspection import inspect_part10
from ingester.dicom.scanner import META_OFFSET, read_header
from ingester.dicom.values import HandOver, Header, NeedMore, NotPart10, Problem

__all__ = [
    "META_OFFSET",
    "HandOver",
    "Header",
    "NeedMore",
    "NotPart10",
    "Problem",
    "data_set_offset",
    "inspect_part10",
    "read_header",
]
