"""A small archive that follows from a seed: studies, and some of what a real one has among them."""

import hashlib
import os
import random
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.support.dicom_files import instance_bytes, make_uid

Key = tuple[str, str]  # Study and SOP Instance UID
Kind = Literal["instance", "text", "empty", "cut"]

LONG_AGO = 1_600_000_000  # seconds: a time stamp that is trusted
DATA_SET = 128  # the preamble is all that two copies of one data set differ in here


@dataclass(frozen=True, slots=True)
class File:
    """One file; the UIDs are empty where it is no instance."""

    kind: Kind
    key: Key
    series: str
    size: int
    sha256: str  # of the whole file
    data_set: str  # the digest of what follows the preamble


@dataclass(slots=True)
class Archive:
    """Files below `root`, by their absolute path."""

    root: Path
    files: dict[Path, File] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)  # SOP Instance UIDs the server names as failed
    poison: set[str] = field(default_factory=set)  # with one of these a request is answered 400

    @property
    def storable(self) -> dict[Key, set[str]]:
        """The digests of the files of each instance that the server takes."""
        found: dict[Key, set[str]] = defaultdict(set)
        for file in self.files.values():
            if file.kind == "instance" and file.key[1] not in self.refused | self.poison:
                found[file.key].add(file.sha256)
        return dict(found)

    def least_requests(self, batch: int) -> int:
        """As few requests as can carry every storable instance."""
        studies: dict[str, int] = defaultdict(int)
        for study, _ in self.storable:
            studies[study] += 1
        return sum(-(-count // batch) for count in studies.values())

    def least_body_bytes(self) -> int:
        """As few bytes as they can have, without any framing."""
        sizes: dict[Key, int] = {}
        for file in self.files.values():
            if file.key in self.storable:
                sizes[file.key] = min(file.size, sizes.get(file.key, file.size))
        return sum(sizes.values())

    def write(self, path: Path, kind: Kind, data: bytes, key: Key = ("", ""), of: str = "") -> None:
        """Writes a file and remembers it; `of` is its series."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        os.utime(path.parent, (LONG_AGO, LONG_AGO))  # it may be skipped by a run that resumes
        digests = [hashlib.sha256(part).hexdigest() for part in (data, data[DATA_SET:])]
        self.files[path] = File(kind, key, of, len(data), *digests)

    def rename(self, before: Path, after: Path) -> None:
        """Renames a file or a directory."""
        before.rename(after)
        for path in [p for p in self.files if p == before or before in p.parents]:
            self.files[after / path.relative_to(before)] = self.files.pop(path)


def add_study(archive: Archive, chance: random.Random, name: str, instances: int) -> list[Path]:
    """Writes one study to a directory of its own; gives the paths in their order."""
    study = make_uid(archive.root, name)
    paths = []
    for number in range(instances):
        series = make_uid(study, number % 2)
        sop = make_uid(study, "sop", number)
        data = instance_bytes(
            study=study,
            series=series,
            sop=sop,
            patient_id=name,
            payload_bytes=chance.choice([0, 128, 1024, 20_000]),
            seed=chance.randrange(1 << 30),
        )
        paths.append(archive.root / name / f"{number:03d}.dcm")
        archive.write(paths[-1], "instance", data, (study, sop), series)
    return paths


def make_archive(root: Path, seed: int) -> Archive:
    """60 to 150 instances in 6 to 10 studies, and what else there is in real archives.

    A copy with another preamble, an equal copy, two conflicts, an instance with the SOP Instance
    UID of another study, a text, an empty file, one that ends inside its header, an instance that
    the server names as failed, and in some archives one that it answers 400 to.
    """
    chance = random.Random(f"archive {seed}")
    archive = Archive(root)
    studies = [
        add_study(archive, chance, f"study{number}", chance.randint(9, 14))
        for number in range(chance.randint(6, 10))
    ]
    chance.shuffle(studies)
    _copies(archive, chance, studies[0], studies[1])
    _no_instances(archive, studies[2][0])
    archive.refused.add(archive.files[studies[3][-1]].key[1])
    if chance.random() < 0.5:
        archive.poison.add(archive.files[studies[4][0]].key[1])
    if chance.random() < 0.5:
        for path in archive.files:
            os.utime(path, (LONG_AGO, LONG_AGO))
    return archive


def _copies(archive: Archive, chance: random.Random, of: list[Path], beside: list[Path]) -> None:
    """Files that meet the UIDs of others, in a directory before or behind theirs."""
    directory = archive.root / chance.choice(["a copies", "z copies"])
    for number, path in enumerate(chance.sample(of, 4)):
        file, data = archive.files[path], path.read_bytes()
        if number == 1:
            data = b"another preamble".ljust(DATA_SET, b".") + data[DATA_SET:]
        elif number > 1:
            study, sop = file.key
            data = instance_bytes(
                study=study, series=file.series, sop=sop, payload_bytes=2048, seed=-number
            )
        archive.write(directory / f"{number}.dcm", "instance", data, file.key, file.series)
    sop = archive.files[of[0]].key[1]
    study, series = archive.files[beside[0]].key[0], archive.files[beside[0]].series
    data = instance_bytes(study=study, series=series, sop=sop, payload_bytes=512, seed=-9)
    archive.write(directory / "elsewhere.dcm", "instance", data, (study, sop), series)


def _no_instances(archive: Archive, whole: Path) -> None:
    archive.write(archive.root / "README.txt", "text", b"Discs 1 to 4, see the shelf list.\n")
    archive.write(archive.root / "study0" / "empty.dcm", "empty", b"")
    archive.write(archive.root / "study1" / "cut.dcm", "cut", whole.read_bytes()[:300])
