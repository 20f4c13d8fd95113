"""What is wrong with an answer about one file: pydicom decides, and a clock of CPU seconds.

pydicom reads the same bytes, all of them and without our bounds. What makes it raise, or takes it
too long, it cannot say anything about; everything that it can say has to be our answer too.
"""

import gc
import logging
import re
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from types import FrameType
from typing import NamedTuple

from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from ingester.dicom import Header, NeedMore, Problem, inspect_part10
from tests.fuzz.crafted import CANARY
from tests.unit.dicom.part10 import raw_value, read_by_pydicom

CPU_LIMIT_S = 3.0
"""For one file. The worst of them take 0.7 s on an idle machine."""
OVERTIME_S = 20.0
FEW_BYTES = 600
"""Of a head that is read first: some headers end before, others need several rounds."""

IDENTITY = {
    "study_instance_uid": 0x0020000D,
    "series_instance_uid": 0x0020000E,
    "sop_instance_uid": 0x00080018,
    "transfer_syntax_uid": 0x00020010,
}
REPORTED = {
    "sop_class_uid": 0x00080016,
    "media_storage_sop_class_uid": 0x00020002,
    "media_storage_sop_instance_uid": 0x00020003,
}
"""They may be left out where they cannot be used, but not be others."""

DICOMDIR = "1.2.840.10008.1.3.10"
_UID = re.compile(r"[0-9][0-9.]{0,63}")  # PS3.5 9.1, more or less
_SAFE = re.compile(r"(?!\.+$)[!$()*+,\-.0-9:=@A-Z\[\]^_a-z{|}~]{1,256}")

Answer = Header | Problem


class OvertimeError(BaseException):
    """Reading has not ended after many seconds of CPU: not an error that a reader may catch."""


class Heard(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextmanager
def limited_cpu(seconds: float) -> Iterator[None]:
    """Raise OvertimeError in the main thread when it has used so much CPU."""

    def over(_number: int, _frame: FrameType | None) -> None:
        raise OvertimeError

    before = signal.signal(signal.SIGVTALRM, over)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def answer_of(data: bytes, head_bytes: int) -> Answer:
    """What is said of a file of which so much was read, and more where it was asked for."""
    found = inspect_part10(data[:head_bytes], len(data), lambda: BytesIO(data))
    while isinstance(found, NeedMore):
        if not head_bytes < found.size <= len(data):
            raise AssertionError(f"asked for {found.size} with {head_bytes} of {len(data)}")
        head_bytes = found.size
        found = inspect_part10(data[:head_bytes], len(data), lambda: BytesIO(data))
    return found


class Verdict(NamedTuple):
    """What was said of a file, None where nothing was, and everything that is wrong with it."""

    said: tuple[str, ...] | None
    wrong: list[str]


def judged(data: bytes, uids: tuple[str, ...] | None = None) -> Verdict:
    """Have a file read, as a whole and bit by bit, and say what is wrong with the answers.

    Args:
        data: The file.
        uids: Study, series, SOP instance and transfer syntax, where they are known.
    """
    wrong: list[str] = []
    found = _heard(data, len(data), wrong)
    if found is None:
        return Verdict(None, wrong)
    said = outcome(found)
    if len(data) > FEW_BYTES:
        other = _heard(data, FEW_BYTES, wrong)
        if other is None or outcome(other) != said:
            wrong.append(f"depends on how much is read at once: {found}, {other}")
    if isinstance(found, Problem) and CANARY in found.reason:
        wrong.append("a value of the patient is in what is said")
    if isinstance(found, Problem) and "MemoryError" in found.reason:
        wrong.append("needs more memory than there is")
    if isinstance(found, Header):
        unusable = [name for name in IDENTITY if not _SAFE.fullmatch(getattr(found, name))]
        wrong += [f"{name} cannot be used" for name in unusable]
    return Verdict(said, [*wrong, *_against(uids, found), *_against_pydicom(data, found)])


@contextmanager
def without_collections() -> Iterator[None]:
    """No garbage collection, and so nobody's callbacks of it, for a short time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def outcome(answer: Answer) -> tuple[str, ...]:
    """What becomes of a file, or who it is."""
    if isinstance(answer, Problem):
        return answer.outcome, answer.reason_code
    return tuple(getattr(answer, name) for name in (*IDENTITY, *REPORTED))


def _heard(data: bytes, head_bytes: int, wrong: list[str]) -> Answer | None:
    """The answer; what it costs and what it lets slip goes to `wrong`."""
    heard = Heard()
    logging.getLogger().addHandler(heard)
    found: Answer | None = None
    began = time.thread_time()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            with limited_cpu(OVERTIME_S):
                found = answer_of(data, head_bytes)
        except (Exception, OvertimeError) as error:  # noqa: BLE001 - that is what is looked for
            wrong.append(f"raises {type(error).__name__}: {error}")
    took = time.thread_time() - began
    logging.getLogger().removeHandler(heard)
    if took > CPU_LIMIT_S:
        wrong.append(f"takes {took:.1f} s")
    wrong += [f"warns: {one.message}" for one in warned]
    wrong += [f"logs: {record.getMessage()}" for record in heard.records]
    return found


def _against(uids: tuple[str, ...] | None, found: Answer) -> list[str]:
    """What a conforming file is known to be."""
    if uids is None:
        return []
    if isinstance(found, Problem):
        return [f"a conforming file is {found}"]
    said = tuple(getattr(found, name) for name in IDENTITY)
    return [] if said == uids else [f"a conforming file is {said} and not {uids}"]


def _against_pydicom(data: bytes, found: Answer) -> list[str]:
    """What pydicom reads: the same UIDs; and an instance it is sure of is not refused."""
    read = uids_by_pydicom(data)
    if read is None:
        return []
    uids, is_sure = read
    if isinstance(found, Header):
        return [
            f"{name} is {uids[name]!r} and not {getattr(found, name)!r}"
            for name in (*IDENTITY, *REPORTED)
            if getattr(found, name) != uids[name] and (name in IDENTITY or getattr(found, name))
        ]
    if data[128:132] != b"DICM" or uids["media_storage_sop_class_uid"] == DICOMDIR:
        return []
    is_instance = is_sure and all(_UID.fullmatch(uids[name]) for name in IDENTITY)
    # What is behind more than we read of a header is refused as such, and rightly.
    is_denied = found.outcome == "not_dicom" and uids["sop_instance_uid"]
    if is_denied or (is_instance and found.reason_code != "header_too_large"):
        return [f"{found}, but pydicom reads {uids}"]
    return []


class _Stop:
    """Ends reading behind (0020,0011), or later where an identifier has not been met yet."""

    def __init__(self) -> None:
        self.missing = {0x00080018, 0x0020000D, 0x0020000E}
        self.stopped = False
        self.elements = 0

    def __call__(self, tag: BaseTag, _vr: str | None, _length: int) -> bool:
        self.elements += 1
        if self.elements > 20_000:
            raise LookupError
        self.stopped = tag >= 0x7FE00000 or (tag > 0x00200011 and not self.missing)
        self.missing.discard(tag)
        return self.stopped


def uids_by_pydicom(data: bytes) -> tuple[dict[str, str], bool] | None:
    """The UIDs of a file, and whether pydicom is sure of them; None where it cannot say."""
    stop, log = _Stop(), logging.getLogger("pydicom")
    heard = Heard()
    log.addHandler(heard)
    log.propagate = False
    try:
        with (
            suppress(Exception),
            warnings.catch_warnings(),
            without_collections(),  # raised in one, the end of its time would end nothing
            limited_cpu(1.0),
        ):
            warnings.simplefilter("ignore")
            meta, data_set, complained = read_by_pydicom(data, stop)
            uids = {
                name: _uid_of(meta if tag >> 16 == 2 else data_set, tag)
                for name, tag in (IDENTITY | REPORTED).items()
            }
            errors = [record for record in heard.records if record.levelno >= logging.WARNING]
            return uids, stop.stopped and not complained and not errors
    except OvertimeError:
        return None
    finally:
        log.removeHandler(heard)
        log.propagate = True
    return None


def _uid_of(group: Dataset, tag: int) -> str:
    """What stands there, unless it is of a representation that holds no text."""
    value: object = group.get_item(tag).value if tag in group else b""
    return raw_value(group, tag) if isinstance(value, bytes | str) else ""
