from __future__ import annotations

import mmap
import os
import random
import resource

import pytest

from ingester.arena import SEGMENT_BYTES, Arena, Segments

PAGE = max(4096, mmap.PAGESIZE)


def pages_of(arena: Arena) -> int:
    assert arena.fd is not None
    return os.fstat(arena.fd).st_blocks * 512 // PAGE


class TestARegion:
    def test_is_seen_by_whoever_has_the_descriptor(self) -> None:
        arena = Arena()
        region = arena.region(3 * PAGE)
        region.view[:5] = b"first"
        assert arena.fd is not None
        assert region.place is not None
        segment, offset = Segments(arena.fd).at(region.place)
        assert segment[offset : offset + 5] == b"first"
        segment[offset + 3 * PAGE - 1] = 7
        assert region.view[-1] == 7

    def test_shares_no_byte_with_another(self) -> None:
        arena, chance = Arena(), random.Random(1)
        regions = {}
        for number in range(300):
            region = arena.region(PAGE * chance.randint(1, 64))
            region.view[:] = bytes([number % 251]) * len(region)
            regions[number] = region
            if chance.random() < 0.4:
                del regions[chance.choice(list(regions))]
        for number, region in regions.items():
            assert bytes(region.view) == bytes([number % 251]) * len(region)

    def test_never_reaches_over_the_end_of_a_segment(self) -> None:
        arena = Arena()
        size = SEGMENT_BYTES // 4 + PAGE
        regions = [arena.region(size) for _ in range(7)]
        for region in regions:
            assert region.place is not None
            assert region.place % SEGMENT_BYTES + size <= SEGMENT_BYTES
            region.view[-1] = 1

    def test_of_more_than_a_segment_is_memory_of_this_process_alone(self) -> None:
        region = Arena().region(SEGMENT_BYTES + PAGE)
        assert (region.place, len(region)) == (None, SEGMENT_BYTES + PAGE)

    def test_is_ordinary_memory_where_files_may_not_be_so_large(self) -> None:
        """`ulimit -f` speaks of shared memory, too."""
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (SEGMENT_BYTES - 1, before[1]))
        try:
            region = Arena().region(PAGE)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        region.view[:] = b"x" * PAGE
        assert region.place is None


class TestThePlaceOfARegion:
    def test_is_free_when_nobody_has_a_view_any_more(self) -> None:
        """A transport that was aborted may hold the rest of one."""
        arena = Arena()
        region = arena.region(PAGE)
        rest = region.view[1000:]
        rest[:] = bytes(PAGE - 1000)
        place = region.place
        del region
        other = arena.region(PAGE)
        other.view[:] = b"x" * PAGE
        assert other.place != place
        assert bytes(rest) == bytes(PAGE - 1000)
        del rest
        assert arena.region(PAGE).place == place

    @pytest.mark.skipif(not hasattr(mmap, "MADV_REMOVE"), reason="Linux")
    def test_costs_no_memory_when_it_is_free(self) -> None:
        arena = Arena()
        regions = [arena.region(16 * PAGE) for _ in range(8)]
        for region in regions:
            region.view[:] = b"x" * (16 * PAGE)
        del region
        assert pages_of(arena) == 128
        regions.clear()
        assert pages_of(arena) == 0
