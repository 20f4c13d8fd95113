"""What is measured: the points of a sweep, and the corpus of each.

Takes: tiers, connections and instances a request, and how many bytes a point may send.
Gives: the points in their order, and those that are left out with what they would need.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ingester.bench.corpora import Corpus

FILE_BYTES: Final = {
    "archive": 100_000,  # the mean of real archives
    "small": 32_768,
    "mr": 525_312,  # from here on those of dcm4chee's measurements: 513 KB, 1.9, 5.9 and 11 MB
    "ct": 1_900_000,
    "cr": 5_900_000,
    "dx": 11_000_000,
}
GRID_TIERS: Final = ("mr", "ct", "cr", "dx")
GRID_CONCURRENCY: Final = (1, 2, 3, 4, 5, 6, 7, 8)
GRID_BATCHES: Final = (5, 10, 50, 100)
POINTS_MAX: Final = 200
FILES_MAX: Final = 8_000_000  # of a corpus
_STUDY_INSTANCES: Final = 100  # at least, and whole requests


@dataclass(frozen=True, slots=True)
class Point:
    """One setting that is measured."""

    tier: str
    concurrency: int  # most requests under way
    batch_instances: int  # in a request

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.tier}, {self.concurrency} at a time, {self.batch_instances} a request"

    @property
    def batch_bytes(self) -> int:
        """Of the files in a request."""
        return self.batch_instances * FILE_BYTES[self.tier]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A point that is not measured."""

    point: Point
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured and what is not."""

    points: tuple[Point, ...]
    left_out: tuple[LeftOut, ...]
    point_bytes: int  # of files, at most


def plan_of(
    tiers: Sequence[str],
    concurrency: Sequence[int],
    batches: Sequence[int],
    *,
    point_bytes: int,
    batch_bytes_max: int | None,
) -> Plan:
    """The points that the bounds allow: every connection has a whole request at least.

    Args:
        tiers: by name.
        concurrency: each number of requests under way.
        batches: each number of instances in a request.
        point_bytes: what a point may send.
        batch_bytes_max: what a request of the store may have; None: not known.

    Raises:
        ValueError: there are more than `POINTS_MAX`, or none is left.
    """
    every = [
        Point(tier, connections, instances)
        for tier in dict.fromkeys(tiers)
        for instances in dict.fromkeys(batches)
        for connections in dict.fromkeys(concurrency)
    ]
    if len(every) > POINTS_MAX:
        raise ValueError(f"{len(every)} points, more than {POINTS_MAX}")
    points, left_out = [], []
    for point in every:
        needed_mb = -(-_files_needed(point) * FILE_BYTES[point.tier] // 1_000_000)
        if batch_bytes_max is not None and point.batch_bytes > batch_bytes_max:
            left_out.append(LeftOut(point, "larger than a request to this store may be"))
        elif _files_needed(point) > FILES_MAX:
            left_out.append(LeftOut(point, f"needs more than {FILES_MAX:,} files"))
        elif needed_mb * 1_000_000 > point_bytes:
            left_out.append(LeftOut(point, f"needs --size-mb {needed_mb}"))
        else:
            points.append(point)
    if not points:
        raise ValueError(f"no point is left: {left_out[0].point.name} {left_out[0].reason}")
    return Plan(tuple(points), tuple(left_out), point_bytes)


def corpus_of(point: Point, point_bytes: int, *, seed: int, uid_root: str) -> Corpus:
    """The files of a point: studies of whole requests, as many as the bytes allow."""
    size = FILE_BYTES[point.tier]
    most = min(point_bytes // size, FILES_MAX)
    study = _study_of(point)
    if most < study:
        study = most // point.batch_instances * point.batch_instances
    studies = most // study
    return Corpus(
        point.tier, files=studies * study, size=size, studies=studies, seed=seed, uid_root=uid_root
    )


def _study_of(point: Point) -> int:
    """Instances of a study."""
    return -(-_STUDY_INSTANCES // point.batch_instances) * point.batch_instances


def _files_needed(point: Point) -> int:
    """So that each connection has a request."""
    needed, study = point.concurrency * point.batch_instances, _study_of(point)
    return needed if needed <= study else -(-needed // study) * study
