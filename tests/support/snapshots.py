"""A moment of a run that never was."""

import dataclasses

from ingester.progress import Snapshot


def snapshot(**changed: object) -> Snapshot:
    """Half of a thousand files are recorded, four fifths of them stored."""
    start = Snapshot(
        elapsed_s=10.0,
        files_met=1000,
        all_met=True,
        bytes_met=5_000_000_000,
        committed=500,
        outcomes={"stored": 400, "invalid": 100, "failed": 0},
        bytes_stored=4_000_000_000,
        instances_stored=400,
        requests=12,
        retries=3,
        in_flight=8,
        bottleneck="server or network",
    )
    return dataclasses.replace(start, **changed)  # type: ignore[arg-type]  # names of its fields
