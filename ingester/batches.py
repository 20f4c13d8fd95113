"""Which instances go into one request: one open batch a study, closed by count, bytes and age.

Plain: no loop, no clock of its own, tested without either.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count, islice

from ingester.items import Instance, StudyBatch
from ingester.reading_order import ReadingOrder
from ingester.returning import Returning

MOST = 0.75
"""Of two studies that grow by turns half of the other came since, and less of it with each turn."""


@dataclass(slots=True)
class BatchLimits:
    """How large a request may be. Shared with the upload, which shrinks it after a 413."""

    max_bytes: int
    max_instances: int
    max_age_s: float = 5.0

    def shrink(self, refused_bytes: int) -> None:
        """A body of this size was too large: from now on at most half of it."""
        self.max_bytes = max(1, min(self.max_bytes, refused_bytes // 2))


@dataclass(slots=True)
class OpenBatch:
    """A batch that may still grow."""

    opened_at: float
    root: GrowingOfRoot  # that it last grew from
    list_number: int = 0  # the highest of that root that it has something of
    grown_at: int = 0  # instances of that root that had come then
    instances: list[Instance] = field(default_factory=list)
    size: int = 0  # bytes


@dataclass(slots=True)
class GrowingOfRoot:
    """The open batches that last grew from one root."""

    batches: OrderedDict[str, OpenBatch] = field(default_factory=OrderedDict)  # last grown last
    come: int = 0  # instances of it so far
    list_number: int = 0  # that came last, or comes now
    order: ReadingOrder = field(default_factory=ReadingOrder)
    returning: Returning = field(default_factory=Returning)

    def grow(self, study: str, batch: OpenBatch) -> None:
        """One more instance of this root has come, into this batch."""
        self.come += 1
        batch.grown_at = self.come
        if batch.root is not self:
            del batch.root.batches[study]
            batch.root, batch.list_number = self, 0
        batch.list_number = max(batch.list_number, self.list_number)
        self.batches[study] = batch
        self.batches.move_to_end(study)


class Batches:
    """The open batches, at most ``max_open`` instances in all."""

    def __init__(self, limits: BatchLimits, max_open: int) -> None:
        self._limits = limits
        self._max_open = max_open
        self._open: dict[str, OpenBatch] = {}  # in the order they were opened
        self._growing = defaultdict[int, GrowingOfRoot](GrowingOfRoot)  # the same, by root
        self._sent_early: OrderedDict[int, GrowingOfRoot] = OrderedDict()  # by hash of the study
        self._ids = count(1)
        self.instances = 0

    def reading(self, root_id: int, list_number: int) -> None:
        """This list of the root comes now; see ReadingOrder."""
        self._growing[root_id].list_number = list_number

    def read(self, root_id: int, list_number: int) -> None:
        """All of this list was added."""
        self._growing[root_id].order.came(list_number)

    def add(self, instance: Instance, now: float) -> list[StudyBatch]:
        """Add an instance; returns the batches that are complete thereby."""
        study = instance.header.study_instance_uid
        growing = self._growing[instance.file.directory.root.root_id]
        size = instance.identity.size
        complete: list[StudyBatch] = []
        batch = self._open.get(study)
        if batch is not None and batch.size + size > self._limits.max_bytes:
            complete.append(self._close(study))
            batch = None
        if batch is None:
            batch = self._open[study] = OpenBatch(now, growing)
            self._opened(study)
        batch.instances.append(instance)
        batch.size += size
        self.instances += 1
        growing.grow(study, batch)
        if (
            len(batch.instances) >= self._limits.max_instances
            or batch.size >= self._limits.max_bytes
        ):
            complete.append(self._close(study))
        elif self.instances >= self._max_open:
            complete.extend(self._make_room())
        return complete

    def add_all(self, instances: Sequence[Instance], now: float) -> tuple[int, list[StudyBatch]]:
        """Add these, of one root, until a batch is complete.

        Returns how many were added, and what is complete.
        """
        added = 0
        grew: str | None = None  # the study that did last
        while added < len(instances):
            study = instances[added].header.study_instance_uid
            if study == grew and (joined := self._join(study, instances, added)):
                added += joined
                continue
            complete = self.add(instances[added], now)
            added += 1
            if complete:
                return added, complete
            grew = study
        return added, []

    def _join(self, study: str, instances: Sequence[Instance], start: int) -> int:
        """Add those from ``start`` on that are of the study that grew last, and complete nothing.

        Returns how many. It is the last of its root already, and of the list that comes.
        """
        batch = self._open[study]
        size, before, most_bytes = batch.size, len(batch.instances), self._limits.max_bytes
        room = min(self._limits.max_instances - before, self._max_open - self.instances) - 1
        for instance in islice(instances, start, start + room):
            size += instance.identity.size
            if size >= most_bytes or instance.header.study_instance_uid != study:
                break
            batch.instances.append(instance)
            batch.size = size
        joined = len(batch.instances) - before
        self.instances += joined
        batch.root.come += joined
        batch.grown_at = batch.root.come
        return joined

    def due(self, now: float) -> list[StudyBatch]:
        """The batches that have been open for their age."""
        due = []
        for study, batch in self._open.items():
            if now - batch.opened_at < self._limits.max_age_s:
                break
            due.append(study)
        return [self._close(study) for study in due]

    def largest(self) -> list[StudyBatch]:
        """The one with the most bytes, if any is open: there is nothing else to send."""
        if not self._open:
            return []
        return [self._close(max(self._open, key=lambda study: self._open[study].size))]

    def stale(self, root_id: int) -> list[StudyBatch]:
        """Of a root the one that grew longest ago, if most of what is open beside it came since.

        And if all lists up to the one after its last have come: of studies that come one after the
        other it is one that is through. Not all need have come since, because the readers of
        its last list may have been overtaken by those of the next study. Where all grow by turns,
        or slowly, there is none. Nor while studies of this root come back that were taken for
        through: as many of these are remembered as instances may be open.
        """
        growing = self._growing[root_id]
        study = next(iter(growing.batches), None)
        if study is None or not growing.returning.may_guess(growing.come):
            return []
        batch = self._open[study]
        come, beside = growing.come - batch.grown_at, self.instances - len(batch.instances)
        if batch.list_number >= growing.order.read_up_to or come < max(1, beside * MOST):
            return []
        growing.returning.guessed()
        self._sent_early[hash(study)] = growing  # 140 bytes; of two with one hash one is forgotten
        if len(self._sent_early) > self._max_open:
            self._sent_early.popitem(last=False)
        return [self._close(study)]

    def flush(self) -> list[StudyBatch]:
        """All open batches: nothing more is coming."""
        return [self._close(study) for study in list(self._open)]

    def _opened(self, study: str) -> None:
        """A batch begins: was its study taken for through before?"""
        guessed = self._sent_early.pop(hash(study), None)
        if guessed is not None:
            guessed.returning.came_back(guessed.come)

    def _make_room(self) -> list[StudyBatch]:
        """Close the largest until a quarter is free: sorting them once for so many is cheap."""
        by_size = sorted(self._open, key=lambda study: -len(self._open[study].instances))
        complete = []
        for study in by_size:
            if self.instances <= self._max_open * 3 // 4:
                break
            complete.append(self._close(study))
        return complete

    def _close(self, study: str) -> StudyBatch:
        batch = self._open.pop(study)
        del batch.root.batches[study]
        self.instances -= len(batch.instances)
        # Each store into a series makes a version in HealthImaging: keep a series together.
        batch.instances.sort(key=lambda instance: instance.header.series_instance_uid)
        return StudyBatch(study, tuple(batch.instances), next(self._ids))
