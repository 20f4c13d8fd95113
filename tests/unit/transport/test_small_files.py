"""Small files are copied together: what goes out, and whose bytes are free then."""

from __future__ import annotations

from ingester.budget import Budget, Buffer
from ingester.transport.small_files import SMALL_BYTES, TOGETHER_BYTES, SmallFiles


def cached(budget: Budget, content: bytes) -> Buffer:
    buffer = budget.take(len(content))
    assert buffer is not None
    assert buffer.view is not None
    buffer.view[:] = content
    return buffer


class TestSmallFiles:
    def test_go_out_in_order_with_what_precedes_each_and_the_end(self) -> None:
        budget, small = Budget(1 << 20), SmallFiles()
        small.add(b"<1>", cached(budget, b"one"))
        small.add(b"<2>", cached(budget, b"second"))
        assert (len(small), small.take(b"<end>")) == (2, b"<1>one<2>second<end>")
        assert (len(small), small.take(b"<end>")) == (0, b"<end>")

    def test_lend_nothing_once_they_are_taken(self) -> None:
        budget, small = Budget(1 << 20), SmallFiles()
        buffer = cached(budget, b"one")
        small.add(b"", buffer)
        taken = small.take()
        assert budget.in_use_bytes == 0
        assert len(buffer) == 0
        cached(budget, b"two")
        assert taken == b"one"

    def test_that_are_not_written_keep_their_bytes(self) -> None:
        budget, small = Budget(1 << 20), SmallFiles()
        buffer = cached(budget, b"one")
        small.add(b"", buffer)
        small.clear()
        assert small.take() == b""
        assert bytes(buffer.view or b"") == b"one"

    def test_are_enough_at_the_bound(self) -> None:
        budget, small = Budget(16 << 20), SmallFiles()
        lead = bytes(100)
        while small.size < TOGETHER_BYTES:
            assert small.add(lead, cached(budget, bytes(SMALL_BYTES - 100)))
        assert len(small.take()) == TOGETHER_BYTES
        assert small.size == 0


class TestAFile:
    def test_is_small_by_its_bytes_and_only_where_they_are_there(self) -> None:
        budget, small = Budget(16 << 20), SmallFiles()
        assert small.add(b"", cached(budget, bytes(1)))
        assert small.add(b"", cached(budget, bytes(SMALL_BYTES)))
        assert not small.add(b"", cached(budget, bytes(SMALL_BYTES + 1)))
        assert not small.add(b"", cached(budget, b""))
        gone = cached(budget, bytes(5))
        gone.give_back()
        assert not small.add(b"", gone)
        assert len(small) == 2
