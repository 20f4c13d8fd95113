"""What is known of a kind of server: data, no behaviour.

Everything a vendor's documentation or a running server showed goes here, so that a stage never
asks which vendor it talks to.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

MIB = 1 << 20

OUT_OF_RESOURCES = range(0xA700, 0xA800)
"""(0008,1197) A7xx, PS3.18 Table I.2-2: the server may take it later."""

PROCESSING_FAILURE = 0x0110
"""(0008,1197): anything; some servers say it of an instance they already have."""


class SecondCopy(StrEnum):
    """What a store does with a second file of one instance that has other bytes."""

    KEEPS_FIRST = "keeps the first and says that it has stored the second"
    REPLACES = "keeps the last, as a version more"
    REFUSES = "keeps the first and refuses the second"
    UNKNOWN = "keeps either"


@dataclass(frozen=True, slots=True)
class ServerProfile:
    """How one kind of server wants to be spoken to, and what its answers mean."""

    name: str

    # 16 MiB or 100 files cost 1 to 2 % more time than 32 or 500, 8 MiB or 50 files 5 to 6. Where
    # 100 ms pass before each answer, 2 MiB cost 16 % (benchmarks/README.md, the defaults).
    max_batch_bytes: int
    max_batch_instances: int
    max_concurrency: int
    keep_alive_s: float  # below what the server keeps an idle connection open
    max_body_bytes: int | None = None  # a documented limit of one request
    too_large_hint: str = "raise the server's limit for a request body"

    single_part: bool = False  # a file alone goes as application/dicom
    quoted_boundary: bool = False

    already_stored: frozenset[int] = frozenset()  # failure reasons that mean: it is there
    retry_later: frozenset[int] = frozenset()  # failure reasons besides A7xx

    identity: tuple[str, ...] = ("StudyInstanceUID", "SOPInstanceUID")
    """Keywords of what two files share that are one instance to this server."""
    second_copy: SecondCopy = SecondCopy.UNKNOWN

    ask_on_doubt: bool = False  # QIDO-RS is asked before anything is sent again
    conflict_is_transient: bool = False  # 409 without a manifest: another store is under way


GENERIC = ServerProfile(
    name="generic",
    max_batch_bytes=16 * MIB,
    max_batch_instances=100,
    max_concurrency=32,
    keep_alive_s=4.0,
)

ORTHANC = ServerProfile(
    name="orthanc",
    max_batch_bytes=16 * MIB,
    max_batch_instances=100,
    max_concurrency=8,
    keep_alive_s=0.8,  # it drops an idle connection after 1 s without a word
    identity=("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"),
    second_copy=SecondCopy.KEEPS_FIRST,  # unless it is set up with OverwriteInstances
)

HEALTHIMAGING = ServerProfile(
    name="healthimaging",
    max_batch_bytes=32 * MIB,
    max_batch_instances=500,
    max_concurrency=32,
    keep_alive_s=4.0,
    single_part=True,
    quoted_boundary=True,
    max_body_bytes=999_999_999,
    identity=(  # where one of the first five differs, both are kept, one of them not primary
        *("PatientID", "StudyDate", "AccessionNumber", "StudyID", "SeriesNumber"),
        *("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"),
    ),
    second_copy=SecondCopy.REPLACES,
    too_large_hint="use the S3 import job of AWS HealthImaging, it takes files of up to 10 GB",
    conflict_is_transient=True,
    ask_on_doubt=True,  # each version costs storage
)

PROFILES: dict[str, ServerProfile] = {
    profile.name: profile for profile in (GENERIC, ORTHANC, HEALTHIMAGING)
}


def conflict_words(profile: ServerProfile) -> str:
    """What a file is told that has the UIDs of another one and is not sent: what the store has."""
    return (
        "another data set has these UIDs: of two files with the same "
        f"{', '.join(profile.identity)} {profile.name} {profile.second_copy}"
    )


Disposition = Literal["already_stored", "retry_later", "alone_once", "rejected"]


def disposition_of(profile: ServerProfile, failure_code: int | None) -> Disposition:
    """What a failure reason (0008,1197) of this server asks for."""
    if failure_code is None or failure_code == PROCESSING_FAILURE:
        return "alone_once"
    if failure_code in profile.already_stored:
        return "already_stored"
    if failure_code in OUT_OF_RESOURCES or failure_code in profile.retry_later:
        return "retry_later"
    return "rejected"
