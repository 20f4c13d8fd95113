"""The instances of one Store transaction: received one after the other, then stored or refused."""

import secrets
from collections import deque

from ingester.emulator.manifest import CANNOT_UNDERSTAND, PROCESSING_FAILURE, Manifest
from ingester.emulator.part10 import Identity, UnreadableError
from ingester.emulator.store import Incoming, Store


class Intake:
    """Writes instances into the store, and what became of them into the manifest.

    Args:
        store: Where they go.
        manifest: What is told of them.
        study: The only study that may be stored, or None.
        is_held: Store nothing until ``admit_held``; what waits is on disk.
    """

    def __init__(
        self, store: Store, manifest: Manifest, study: str | None, *, is_held: bool
    ) -> None:
        self._store = store
        self._manifest = manifest
        self._study = study
        self._is_held = is_held
        self._held: deque[tuple[Incoming, Identity]] = deque()
        self._incoming = store.incoming()
        self._request = secrets.token_hex(8)

    async def write(self, data: bytes) -> None:
        """Append to the instance that is arriving."""
        await self._store.write(self._incoming, data)

    async def complete(self) -> None:
        """Store or refuse the instance that was arriving: all its bytes are there."""
        identity = await self._identify()
        if identity is None:
            await self._store.discard(self._incoming)
        elif self._is_held:
            self._held.append((self._incoming, identity))
        else:
            await self._admit(self._incoming, identity)
        self._incoming = self._store.incoming()

    async def admit_held(self) -> None:
        """Store what was held: the whole body is what was signed."""
        while self._held:
            await self._admit(*self._held[0])
            self._held.popleft()

    async def discard(self) -> None:
        """Drop whatever was not stored."""
        await self._store.discard(self._incoming)
        for incoming, _ in self._held:
            await self._store.discard(incoming)

    async def _identify(self) -> Identity | None:
        """Who it is; None if it is not to be stored, which is told in the manifest."""
        try:
            identity = await self._store.identify(self._incoming)
        except UnreadableError:
            self._manifest.add_failed(None, CANNOT_UNDERSTAND)
            return None
        if not identity.is_storable:
            self._manifest.add_failed(identity, CANNOT_UNDERSTAND)
            return None
        if self._study not in (None, identity.study_instance_uid):
            self._manifest.add_failed(identity, PROCESSING_FAILURE)
            return None
        return identity

    async def _admit(self, incoming: Incoming, identity: Identity) -> None:
        await self._store.admit(incoming, identity, self._request)
        self._manifest.add_stored(identity)
