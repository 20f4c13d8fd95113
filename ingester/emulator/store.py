"""Instances on disk, byte for byte as they came, and what the index says of them.

``{directory}/{study}/{series}/{sop}.dcm``; those that are not primary are in
``{directory}/.non-primary/{image set}/{sop}.dcm``; what is still arriving is in ``.incoming``.
A part is written aside and renamed when it is complete and its UIDs are known, so a file under its
final name is always whole. All files and the index are touched by one thread of the store's own:
the loop never blocks, and two copies of one instance cannot interleave.
"""

import asyncio
import os
import secrets
import string
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import BinaryIO, Self, TypeVar, TypeVarTuple

from ingester.emulator.image_sets import Filter
from ingester.emulator.image_sets import Row as ImageSetRow
from ingester.emulator.index import Index, Key, Level, Row
from ingester.emulator.part10 import STORE_THREAD, Identity, UnreadableError, read_identity

_INCOMING = ".incoming"
_NON_PRIMARY = ".non-primary"
_INDEX = "index.sqlite"

# A thread call costs about 80 us: small parts pay one, for admission; large ones one a MiB.
_SPILL_BYTES = 1 << 20

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


class Incoming:
    """One part that is arriving. Its methods block; the store calls them in its thread."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.held = bytearray()
        self._file: BinaryIO | None = None

    def spill(self) -> None:
        """Move what is held in memory to the file."""
        if self._file is None:
            self._file = open(self.path, "xb", buffering=0)  # noqa: SIM115 - open until complete
        view = memoryview(self.held)
        while view:
            view = view[self._file.write(view) :]
        self.held = bytearray()

    def complete(self) -> None:
        """Have the whole part in the file."""
        self.spill()
        self.close()

    def close(self) -> None:
        """Close the file, if there is one."""
        if self._file is not None:
            self._file.close()
            self._file = None


class Store:
    """The kept instances. Use as an async context manager.

    Args:
        directory: Made if missing. One emulator at a time may have it open.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = os.fspath(directory)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=STORE_THREAD)
        self._arrivals = 0
        self._index: Index

    async def __aenter__(self) -> Self:
        try:
            await self.call(self._open)
        except BaseException:
            self._executor.shutdown()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.call(self._index.close)
        self._executor.shutdown()

    async def datastore(self, wanted: str | None) -> str:
        """The datastore id: the wanted one, else that of last time, else a new one."""
        return await self.call(self._datastore, wanted)

    def incoming(self) -> Incoming:
        """Begin to receive one instance; it must end in ``admit`` or ``discard``."""
        self._arrivals += 1
        return Incoming(os.path.join(self.directory, _INCOMING, str(self._arrivals)))

    async def write(self, incoming: Incoming, data: bytes) -> None:
        """Append to an arriving instance; at most about 1 MiB of it stays in memory."""
        incoming.held += data
        if len(incoming.held) >= _SPILL_BYTES:
            await self.call(incoming.spill)

    async def identify(self, incoming: Incoming) -> Identity:
        """Complete an arriving instance and read who it is.

        Raises:
            UnreadableError: It is no DICOM file.
        """
        return await self.call(self._identify, incoming)

    async def admit(self, incoming: Incoming, identity: Identity, request: str) -> None:
        """Keep an identified, storable instance.

        In place of an older one, or beside it if its grouping elements conflict.

        Args:
            incoming: Its file.
            identity: Who it is.
            request: What brings it; instances of one request share an image set.
        """
        await self.call(self._admit, incoming, identity, request)

    async def discard(self, incoming: Incoming) -> None:
        """Drop an instance that was not admitted; of one that was, nothing is left to drop."""
        await self.call(self._discard, incoming)

    async def get(self, key: Key) -> Row | None:
        """What the index knows of one instance."""
        return await self.call(self._index.get, key)

    async def search(
        self, level: Level, match: Mapping[str, str], limit: int, offset: int
    ) -> list[Row]:
        """Search the index; see ``Index.search``."""
        return await self.call(self._index.search, level, match, limit, offset)

    async def search_image_sets(
        self, filters: list[Filter], sort: str, limit: int, offset: int, *, descending: bool
    ) -> list[ImageSetRow]:
        """Search the image sets; see ``ImageSets.search``."""
        search = partial(self._index.image_sets.search, descending=descending)
        return await self.call(search, filters, sort, limit, offset)

    def path(self, key: Key) -> str:
        """Where an instance is kept. Only for a key whose UIDs were checked or found."""
        study, series, sop = key
        return os.path.join(self.directory, study, series, f"{sop}.dcm")

    async def call(self, function: Callable[[*_Ts], _T], *args: *_Ts) -> _T:
        """Run something that blocks in the thread of the store."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, function, *args)

    def _open(self) -> None:
        os.makedirs(os.path.join(self.directory, _INCOMING), exist_ok=True)
        self._index = Index(os.path.join(self.directory, _INDEX))
        try:
            self._reconcile()
        except BaseException:
            self._index.close()
            raise

    def _reconcile(self) -> None:
        """Make index and files agree: a kill between the rename and the commit parts them."""
        with os.scandir(os.path.join(self.directory, _INCOMING)) as leftovers:
            for entry in leftovers:
                os.unlink(entry)
        gone = [key for key in self._index.all_keys() if not os.path.exists(self.path(key))]
        for key in gone:
            self._index.remove(key)
        others = self._index.image_sets.others()
        for other in others:
            if not os.path.exists(self._other_path(*other)):
                self._index.image_sets.remove_other(*other)
        self._index.image_sets.remove_empty()
        for folder, _, names in os.walk(self.directory):
            place = os.path.relpath(folder, self.directory).split(os.sep)
            if len(place) != 2:
                continue
            for name in names:
                sop = os.path.splitext(name)[0]
                if place[0] == _NON_PRIMARY:
                    known = (place[1], sop) in others
                else:
                    known = self._index.get(Key(place[0], place[1], sop)) is not None
                if not known:
                    self._take_up(os.path.join(folder, name))

    def _take_up(self, path: str) -> None:
        try:
            identity = read_identity(path)
        except UnreadableError:
            return
        image_set_id = os.path.basename(os.path.dirname(path))
        if not identity.is_storable:
            return
        if self._other_path(image_set_id, identity.sop_instance_uid) == path:
            self._index.image_sets.put(image_set_id, identity, "", is_primary=False)
        elif self.path(key_of(identity)) == path:
            image_set = self._index.image_sets.primary_of(identity)
            if image_set is not None:
                self._index.image_sets.put(image_set, identity, "", is_primary=True)
            self._index.put(identity)

    def _datastore(self, wanted: str | None) -> str:
        known = self._index.datastore()
        alphabet = string.digits + string.ascii_lowercase
        chosen = wanted or known or "".join(secrets.choice(alphabet) for _ in range(32))
        if chosen != known:
            self._index.set_datastore(chosen)
        return chosen

    def _identify(self, incoming: Incoming) -> Identity:
        incoming.complete()
        return read_identity(incoming.path)

    def _admit(self, incoming: Incoming, identity: Identity, request: str) -> None:
        image_sets = self._index.image_sets
        primary = image_sets.primary_of(identity)
        image_set = primary or image_sets.other_of(identity, request)
        path = (
            self._other_path(image_set, identity.sop_instance_uid)
            if primary is None
            else self.path(key_of(identity))
        )
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.replace(incoming.path, path)
        with self._index.transaction():
            image_sets.put(image_set, identity, request, is_primary=primary is not None)
            if primary is not None:
                self._index.put(identity)

    def _other_path(self, image_set: str, sop_instance_uid: str) -> str:
        return os.path.join(self.directory, _NON_PRIMARY, image_set, f"{sop_instance_uid}.dcm")

    def _discard(self, incoming: Incoming) -> None:
        incoming.close()
        if os.path.exists(incoming.path):
            os.unlink(incoming.path)


def key_of(identity: Identity) -> Key:
    """The key an instance is kept under."""
    return Key(identity.study_instance_uid, identity.series_instance_uid, identity.sop_instance_uid)
