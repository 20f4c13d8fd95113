from __future__ import annotations

from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from ingester.batches import Batches, BatchLimits
from ingester.items import StudyBatch
from tests.unit.road import instance


def ids(batches: list[StudyBatch]) -> list[list[int]]:
    return [[each.file.file_id for each in batch.instances] for batch in batches]


class TestABatch:
    def test_is_complete_at_its_count(self) -> None:
        batches = Batches(BatchLimits(10_000, 3), 100)
        assert [ids(batches.add(instance(n), 0.0)) for n in range(1, 5)] == [
            [],
            [],
            [[1, 2, 3]],
            [],
        ]
        assert batches.instances == 1

    def test_never_has_more_bytes_than_the_limit(self) -> None:
        batches = Batches(BatchLimits(250, 100), 100)
        assert ids(batches.add(instance(1, size=100), 0)) == []
        assert ids(batches.add(instance(2, size=100), 0)) == []
        assert ids(batches.add(instance(3, size=100), 0)) == [[1, 2]]
        assert ids(batches.flush()) == [[3]]

    def test_is_complete_at_exactly_the_bytes(self) -> None:
        batches = Batches(BatchLimits(200, 100), 100)
        batches.add(instance(1, size=100), 0)
        assert ids(batches.add(instance(2, size=100), 0)) == [[1, 2]]

    def test_that_is_the_largest_of_all_may_be_asked_for(self) -> None:
        batches = Batches(BatchLimits(10_000, 100), 100)
        assert batches.largest() == []
        for file_id, study, size in ((1, "1.1", 10), (2, "1.2", 300), (3, "1.1", 10)):
            batches.add(instance(file_id, study, size=size), 0)
        assert [ids(batches.largest()) for _ in range(3)] == [[[2]], [[1, 3]], []]
        assert batches.instances == 0

    def test_of_one_file_may_be_larger(self) -> None:
        batches = Batches(BatchLimits(200, 100), 100)
        batches.add(instance(1, size=100), 0)
        assert ids(batches.add(instance(2, size=999), 0)) == [[1], [2]]
        assert batches.instances == 0

    def test_is_of_one_study(self) -> None:
        batches = Batches(BatchLimits(10_000, 10), 100)
        for n in range(1, 7):
            batches.add(instance(n, study=f"1.{n % 2}"), 0)
        assert ids(batches.flush()) == [[1, 3, 5], [2, 4, 6]]

    def test_keeps_a_series_together_in_the_order_it_came(self) -> None:
        batches = Batches(BatchLimits(10_000, 10), 100)
        for n, series in enumerate(["b", "a", "b", "a", "c"], 1):
            batches.add(instance(n, series=series), 0)
        assert ids(batches.flush()) == [[2, 4, 1, 3, 5]]

    def test_has_a_number_of_its_own(self) -> None:
        batches = Batches(BatchLimits(10_000, 1), 100)
        made = [batches.add(instance(n), 0)[0] for n in range(1, 20)]
        assert len({batch.batch_id for batch in made}) == 19

    def test_says_how_large_it_is(self) -> None:
        batches = Batches(BatchLimits(10_000, 2), 100)
        batches.add(instance(1, size=7), 0)
        (batch,) = batches.add(instance(2, size=5), 0)
        assert (batch.size, batch.study_instance_uid) == (12, "1.2")


class TestAge:
    def test_closes_the_batches_that_were_opened_so_long_ago(self) -> None:
        batches = Batches(BatchLimits(10_000, 10, max_age_s=5), 100)
        batches.add(instance(1, study="1.1"), 10.0)
        batches.add(instance(2, study="1.2"), 12.0)
        batches.add(instance(3, study="1.1"), 14.0)
        assert ids(batches.due(14.9)) == []
        assert ids(batches.due(15.0)) == [[1, 3]]
        assert ids(batches.due(99.0)) == [[2]]
        assert ids(batches.due(99.0)) == []

    def test_begins_again_with_a_batch_that_was_opened_again(self) -> None:
        batches = Batches(BatchLimits(10_000, 2, max_age_s=5), 100)
        batches.add(instance(1, study="1.1"), 0.0)
        batches.add(instance(2, study="1.2"), 1.0)
        batches.add(instance(3, study="1.1"), 2.0)
        batches.add(instance(4, study="1.1"), 3.0)
        assert ids(batches.due(6.0)) == [[2]]
        assert ids(batches.due(8.0)) == [[4]]


class TestTheCap:
    def test_closes_the_batch_with_the_most_files(self) -> None:
        batches = Batches(BatchLimits(10_000, 10), 4)
        batches.add(instance(1, study="1.1"), 0)
        batches.add(instance(2, study="1.2"), 0)
        batches.add(instance(3, study="1.2"), 0)
        assert ids(batches.add(instance(4, study="1.3"), 0)) == [[2, 3]]
        assert batches.instances == 2

    def test_of_one_lets_each_go_at_once(self) -> None:
        batches = Batches(BatchLimits(10_000, 10), 1)
        assert [ids(batches.add(instance(n), 0)) for n in (1, 2)] == [[[1]], [[2]]]


class TestShrinking:
    def test_halves_what_was_refused(self) -> None:
        limits = BatchLimits(1000, 10)
        limits.shrink(800)
        assert limits.max_bytes == 400

    def test_never_grows(self) -> None:
        limits = BatchLimits(1000, 10)
        limits.shrink(10_000)
        assert limits.max_bytes == 1000

    def test_ends_at_a_byte(self) -> None:
        limits = BatchLimits(1000, 10)
        limits.shrink(1)
        limits.shrink(0)
        assert limits.max_bytes == 1

    def test_counts_from_the_next_file_on(self) -> None:
        limits = BatchLimits(1000, 10)
        batches = Batches(limits, 100)
        batches.add(instance(1, size=300), 0)
        limits.shrink(700)
        assert ids(batches.add(instance(2, size=300), 0)) == [[1]]


class TestWhatever:
    @given(
        st.lists(st.tuples(st.integers(1, 5), st.integers(0, 400)), max_size=80),
        st.integers(1, 600),
        st.integers(1, 10),
        st.integers(1, 12),
    )
    def test_comes_every_instance_leaves_once_and_within_the_limits(
        self, files: list[tuple[int, int]], max_bytes: int, max_instances: int, max_open: int
    ) -> None:
        batches = Batches(BatchLimits(max_bytes, max_instances), max_open)
        out: list[StudyBatch] = []
        for n, (study, size) in enumerate(files):
            out += batches.add(instance(n, study=f"1.{study}", size=size), float(n))
            assert batches.instances < max_open
            if n % 11 == 0:
                out += batches.due(float(n))
        out += batches.flush()
        assert batches.instances == 0
        assert sorted(chain.from_iterable(ids(out))) == list(range(len(files)))
        for batch in out:
            assert len(batch.instances) <= max_instances
            assert batch.size <= max_bytes or len(batch.instances) == 1
            assert {each.key.study_instance_uid for each in batch.instances} == {
                batch.study_instance_uid
            }
