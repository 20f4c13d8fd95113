"""What an answer settles, file by file and, where it names all as stored, all at once."""

from __future__ import annotations

import pytest

from ingester.dicomweb.outcome import Evidence, Outcome
from ingester.dicomweb.profiles import GENERIC, ORTHANC
from ingester.dicomweb.store_response import StoreResponse
from ingester.items import Holder, Instance
from ingester.parcel import Parcel, make_body
from ingester.reconciliation import reconcile_parcel
from ingester.transport.reply import Answer
from tests.unit.road import instance, readers_of

EARLIER = Holder(9, b"/a/9.dcm", Outcome.STORED, 4, 5, b"y" * 32, True)


@pytest.fixture
def parcel() -> Parcel:
    """Of instances of all kinds, in its second attempt, answered."""
    instances = [
        instance(1, sop="1.1"),
        instance(2, sop="1.2", sha256=b"x" * 32)._replace(findings=("odd",), mtime_trusted=False),
        instance(3, sop="1.3")._replace(earlier=EARLIER, known_as=7),
    ]
    return made_of(instances)


def made_of(instances: list[Instance]) -> Parcel:
    readers = readers_of(instances[0].file.directory.root)
    body = make_body(instances, GENERIC, readers, checksums=True)
    answer = Answer(200, b"{}", request_id="abc")
    return Parcel(
        "1", tuple(instances), body, 1, attempts=2, earlier_attempts=3, last_answer=answer,
    )  # fmt: skip


class TestAnAnswerThatNamesAllAsStored:
    def test_says_of_each_what_it_says_of_one(self, parcel: Parcel) -> None:
        stored = StoreResponse(dict.fromkeys(("1.1", "1.2", "1.3")), {})
        together = reconcile_parcel(parcel, stored, GENERIC)
        assert together.confirmed == 3
        for position, result in enumerate(together.results):
            one = parcel.result(position, Outcome.STORED, evidence=Evidence.MANIFEST)
            assert result == one._replace(elapsed_s=result.elapsed_s)
        assert together._replace(results=[]) == ([], [], [], [], [], 3, 0)

    @pytest.mark.parametrize(
        ("stored", "failed"),
        [
            ({"1.1": None, "1.2": None}, {}),
            ({"1.1": None, "1.2": None, "1.3": None, "1.4": None}, {}),
            ({"1.1": None, "1.2": None, "1.3": None}, {"1.3": 0xC000}),
            ({"1.1": None, "1.2": 0xB000, "1.3": None}, {}),
        ],
        ids=["one is missing", "one more", "one in both lists", "a warning"],
    )
    def test_is_none_that_says_anything_else(
        self, parcel: Parcel, stored: dict[str, int | None], failed: dict[str, int | None]
    ) -> None:
        settled = reconcile_parcel(parcel, StoreResponse(stored, failed), GENERIC)
        outcomes = [result.outcome for result in settled.results]
        assert outcomes != [Outcome.STORED] * 3 or settled.unknown_uids == 1

    def test_is_none_of_a_file_that_changed_where_a_server_keeps_the_first(
        self, parcel: Parcel
    ) -> None:
        stored = StoreResponse(dict.fromkeys(("1.1", "1.2", "1.3")), {})
        settled = reconcile_parcel(parcel, stored, ORTHANC)
        assert settled.results[2].outcome is Outcome.ALREADY_STORED
        assert settled.results[2].reason_code == "earlier_version_kept"
