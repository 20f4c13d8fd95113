"""The Store Instances Response (PS3.18 annex I.2): what became of each instance of a request."""

from dataclasses import dataclass, field

from ingester.emulator.answers import DataSet, element
from ingester.emulator.part10 import Identity

# Failure reasons (PS3.18 table I.2-2) and HealthImaging's warning reason, (0008,1197) and ..1196.
CANNOT_UNDERSTAND = 0xC000
PROCESSING_FAILURE = 0x0110
UNSUPPORTED_TRANSFER_SYNTAX = 0xB120

# Those HealthImaging reads; an instance in another one is kept as a blob, with a warning.
_READ_TRANSFER_SYNTAXES = frozenset(
    f"1.2.840.10008.1.2{suffix}"
    for suffix in (
        *("", ".1", ".1.99", ".2", ".5", ".4.50", ".4.51", ".4.57", ".4.70", ".4.80", ".4.81"),
        *(".4.90", ".4.91", ".4.92", ".4.93", ".4.201", ".4.202", ".4.203"),
        *(f".4.{number}" for number in range(100, 109)),
        *(f".4.{number}.1" for number in range(100, 107)),
    )
)


@dataclass(slots=True)
class Manifest:
    """The Store Instances Response in the making."""

    base_url: str
    stored: list[DataSet] = field(default_factory=list)
    failed: list[DataSet] = field(default_factory=list)
    other_failures: list[DataSet] = field(default_factory=list)
    studies: set[str] = field(default_factory=set)
    has_warnings: bool = False

    def add_stored(self, identity: Identity) -> None:
        """One instance is stored."""
        study = identity.study_instance_uid
        self.studies.add(study)
        item = _reference(identity)
        item["00081190"] = element(
            "UR",
            f"{self.base_url}/studies/{study}/series/{identity.series_instance_uid}"
            f"/instances/{identity.sop_instance_uid}",
        )
        if identity.transfer_syntax_uid not in _READ_TRANSFER_SYNTAXES:
            item["00081196"] = element("US", UNSUPPORTED_TRANSFER_SYNTAX)
            self.has_warnings = True
        self.stored.append(item)

    def add_failed(self, identity: Identity | None, reason: int) -> None:
        """One instance is not stored; without a SOP Instance UID it has no name to fail by."""
        if identity is None or not identity.sop_instance_uid:
            self.other_failures.append({"00081197": element("US", reason)})
        else:
            self.failed.append({**_reference(identity), "00081197": element("US", reason)})

    @property
    def is_empty(self) -> bool:
        """Nothing was decided yet."""
        return not (self.stored or self.failed or self.other_failures)

    @property
    def status(self) -> int:
        """200 all stored, 202 some or with warnings, 409 none (PS3.18 table 10.5.3-1)."""
        if not self.stored:
            return 409
        return 202 if self.failed or self.other_failures or self.has_warnings else 200

    def data_set(self) -> DataSet:
        """The answer; a sequence without items is left out."""
        study = f"{self.base_url}/studies/{min(self.studies)}" if len(self.studies) == 1 else ""
        answer: DataSet = {"00081190": element("UR", study)}
        for tag, items in (
            ("00081198", self.failed),
            ("00081199", self.stored),
            ("0008119A", self.other_failures),
        ):
            if items:
                answer[tag] = element("SQ", *items)
        return answer


def _reference(identity: Identity) -> DataSet:
    return {
        "00081150": element("UI", identity.sop_class_uid),
        "00081155": element("UI", identity.sop_instance_uid),
    }
