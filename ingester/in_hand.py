"""The parcels that are under way: divided, ended, and left where a run ends with some of them.

Nothing is forgotten here: what leaves by ``end`` is decided in the ledger, what leaves by
``replace`` is in the parcels that come in its place.
"""

from __future__ import annotations

from collections.abc import Sequence

from ingester.dicomweb.outcome import Outcome
from ingester.dicomweb.profiles import ServerProfile
from ingester.items import Instance, Result
from ingester.ledger import Ledger
from ingester.parcel import Parcel


class InHand:
    """All parcels of a run that are not decided, whoever's they are."""

    def __init__(self, ledger: Ledger, profile: ServerProfile) -> None:
        self._ledger = ledger
        self._profile = profile
        self._parcels: set[Parcel] = set()

    def add(self, parcel: Parcel) -> None:
        """This one is under way from now on."""
        self._parcels.add(parcel)

    def replace(
        self, parcel: Parcel, parts: Sequence[Sequence[Instance]], *, asked_again: bool = False
    ) -> list[Parcel]:
        """One for each part takes its place; files that are in no part were decided."""
        parcels = [
            parcel.with_instances(
                part, self._profile, asked_again=asked_again or parcel.asked_again
            )
            for part in parts
        ]
        self._parcels.discard(parcel)
        self._parcels.update(parcels)
        return parcels

    def end_all(self, parcel: Parcel, outcome: Outcome, reason_code: str) -> None:
        """Every file of it ends so, or in doubt where it may have been stored."""
        if parcel.may_be_stored or (parcel.ends_in_doubt and outcome is Outcome.FAILED):
            outcome = Outcome.IN_DOUBT  # so it keeps its claim
        positions = range(len(parcel.instances))
        self.end(parcel, *(parcel.result(n, outcome, reason_code) for n in positions))

    def end(self, parcel: Parcel, *results: Result) -> None:
        """It is decided: these are the results of its files."""
        self._parcels.discard(parcel)
        parcel.give_back_buffers()
        self._ledger.decide(results)

    def leave(self) -> None:
        """The run ends here: what may have been stored without a word is in doubt."""
        for parcel in list(self._parcels):  # ending one takes it out
            if parcel.ends_in_doubt or parcel.body.bytes_out:
                self.end_all(parcel, Outcome.IN_DOUBT, "interrupted")
        self._parcels.clear()
