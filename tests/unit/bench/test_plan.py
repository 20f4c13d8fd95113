"""A sweep has the points that its bounds allow, and a corpus for each."""

import pytest

from ingester.bench.job import Options
from ingester.bench.plan import (
    FILE_BYTES,
    GRID_BATCHES,
    GRID_CONCURRENCY,
    GRID_TIERS,
    Plan,
    Point,
    corpus_of,
    plan_of,
)
from ingester.bench.points import Target, ToSink, ToStore

MB = 1_000_000
ROOT = "2.25.123456789012345678901234567890123456789.101"


def plan(mb: int, *, tier: str = "archive", batch_bytes_max: int | None = None) -> Plan:
    return plan_of(
        [tier], [1, 2, 8], [10, 100], point_bytes=mb * MB, batch_bytes_max=batch_bytes_max
    )


class TestAPlan:
    def test_has_every_connection_at_every_batch_size(self) -> None:
        points = [(point.concurrency, point.batch_instances) for point in plan(80).points]
        assert points == [(1, 10), (2, 10), (8, 10), (1, 100), (2, 100), (8, 100)]
        assert plan(80).left_out == ()

    def test_leaves_out_where_a_connection_would_have_no_request_and_says_what_it_needs(
        self,
    ) -> None:
        left = plan(79).left_out
        assert [(one.point, one.reason) for one in left] == [
            (Point("archive", 8, 100), "needs --size-mb 80")
        ]
        assert Point("archive", 8, 100) in plan(80).points

    def test_leaves_out_requests_that_the_store_does_not_take(self) -> None:
        left = plan(80, batch_bytes_max=5 * MB).left_out
        assert {one.point.batch_instances for one in left} == {100}
        assert {one.reason for one in left} == {"larger than a request to this store may be"}

    def test_leaves_out_what_no_corpus_holds(self) -> None:
        found = plan_of(["small"], [1, 10_000], [10_000], point_bytes=10**18, batch_bytes_max=None)
        assert [one.reason for one in found.left_out] == ["needs more than 8,000,000 files"]
        assert corpus_of(found.points[0], 10**18, seed=1, uid_root=ROOT).files == 8_000_000

    def test_measures_the_same_point_once(self) -> None:
        found = plan_of(["cr", "cr"], [1, 1], [5, 5], point_bytes=100 * MB, batch_bytes_max=None)
        assert found.points == (Point("cr", 1, 5),)

    def test_of_nothing_is_refused(self) -> None:
        with pytest.raises(ValueError, match="no point is left: dx, 1 at a time, 10 a request"):
            plan(1, tier="dx")

    def test_of_too_many_points_is_refused(self) -> None:
        with pytest.raises(ValueError, match="1000 points, more than 200"):
            plan_of(["small"], range(1, 101), range(1, 11), point_bytes=MB, batch_bytes_max=None)

    def test_of_the_grid_has_its_sizes_and_its_points(self) -> None:
        assert [FILE_BYTES[tier] for tier in GRID_TIERS] == [525_312, 1.9e6, 5.9e6, 11e6]
        grid = plan_of(
            GRID_TIERS, GRID_CONCURRENCY, GRID_BATCHES, point_bytes=8_800 * MB, batch_bytes_max=None
        )
        assert len(grid.points) == 4 * 4 * 8
        assert grid.left_out == ()


class TestACorpus:
    @pytest.mark.parametrize("tier", FILE_BYTES)
    @pytest.mark.parametrize("batch", [1, 5, 7, 100, 150])
    def test_is_of_studies_of_whole_requests_within_the_bytes(self, tier: str, batch: int) -> None:
        point = Point(tier, 1, batch)
        corpus = corpus_of(point, 2_000 * MB, seed=3, uid_root=ROOT)
        assert corpus.size == FILE_BYTES[tier]
        assert corpus.bytes <= 2_000 * MB
        assert corpus.files % corpus.studies == 0
        assert corpus.files // corpus.studies % batch == 0

    def test_is_large_enough_for_every_point_of_the_plan(self) -> None:
        for tier in FILE_BYTES:
            for point in plan(500, tier=tier).points:
                corpus = corpus_of(point, 500 * MB, seed=0, uid_root=ROOT)
                assert corpus.files >= point.concurrency * point.batch_instances


class TestOptions:
    """Where each point's files come from."""

    PLAN = plan_of(["small"], [1, 2], [5, 10], point_bytes=10 * MB, batch_bytes_max=None)
    SINK = ToSink()

    def roots(self, target: Target) -> list[str]:
        options = Options(self.PLAN, 60.0, target, self.SINK, uid_root="2.25.1" + "0" * 38)
        return [options.corpus_of(point).uid_root[-4:] for point in self.PLAN.points]

    def test_to_a_store_are_new_at_each_point(self) -> None:
        assert self.roots(ToStore(())) == [".101", ".102", ".103", ".104"]

    def test_to_the_sink_are_the_same_for_requests_of_one_size(self) -> None:
        assert self.roots(self.SINK) == [".101", ".101", ".103", ".103"]

    def test_have_a_root_that_no_other_has(self) -> None:
        roots = {Options(self.PLAN, 60.0, self.SINK, self.SINK).uid_root for _ in range(100)}
        assert len(roots) == 100
        assert {len(root) for root in roots} == {44}
        assert all(root.startswith("2.25.") for root in roots)
