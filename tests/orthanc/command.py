"""The real command against a real Orthanc, and what either has afterwards."""

import struct
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tests.support import command
from tests.support.command import Key
from tests.support.orthanc import Orthanc


@dataclass(frozen=True, slots=True)
class Command(command.Command):
    """`ingester run` into an Orthanc."""

    server: tuple[str, ...] = ("--server=orthanc",)


def instances_of(orthanc: Orthanc) -> Counter[Key]:
    """How often Orthanc has each instance."""
    return Counter((item.study, item.sop) for item in orthanc.instances())


def assert_same_bytes(orthanc: Orthanc, command: Command) -> None:
    """Orthanc has exactly what the journal says is stored: as many, and the bytes of the files."""
    stored, there = command.stored(), orthanc.instances()
    assert Counter(stored.keys()) == Counter((item.study, item.sop) for item in there)
    for item in there:
        path = Path(stored[item.study, item.sop].path.decode())
        answer = orthanc.request("GET", f"/instances/{item.id}/file")
        assert answer.body == path.read_bytes(), path


def data_set_of(part10: bytes) -> bytes:
    """What follows group 2 (PS3.10 7.1): its elements are Explicit VR Little Endian."""
    position = 132
    while part10[position : position + 2] == b"\2\0":
        vr = part10[position + 4 : position + 6]
        if vr in {b"OB", b"OW", b"UN", b"UT", b"SQ"}:
            position += 12 + struct.unpack_from("<I", part10, position + 8)[0]
        else:
            position += 8 + struct.unpack_from("<H", part10, position + 6)[0]
    return part10[position:]
