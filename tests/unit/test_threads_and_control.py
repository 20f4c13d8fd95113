from __future__ import annotations

import asyncio
import gc
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import weakref
from contextlib import suppress

import pytest

from ingester.control import StopControl
from ingester.errors import FatalError, JournalError, NoThreadError
from ingester.threads import (
    LOOKS,
    DaemonExecutor,
    ReadTimeoutError,
    WrittenOff,
    deliver,
    let_others_go_first,
    progressed,
)
from tests.support.waiting import wait_until


class TestADaemonExecutor:
    def test_runs_in_order_in_threads_of_its_name(self) -> None:
        executor = DaemonExecutor(1, "reader")
        ran: list[tuple[int, str]] = []
        futures = [
            executor.submit(lambda n=n: ran.append((n, threading.current_thread().name)))  # type: ignore[misc]
            for n in range(20)
        ]
        for future in futures:
            future.result(60)
        assert ran == [(n, "reader-0") for n in range(20)]
        executor.shutdown()

    def test_hands_over_what_was_raised(self) -> None:
        executor = DaemonExecutor(1, "x")
        with pytest.raises(ZeroDivisionError):
            executor.submit(lambda: 1 // 0).result(60)
        assert executor.submit(lambda: 5).result(60) == 5
        executor.shutdown()

    def test_survives_a_job_that_wants_to_end_the_process(self) -> None:
        executor = DaemonExecutor(1, "x")
        with pytest.raises(SystemExit):
            executor.submit(sys.exit).result(60)
        assert executor.submit(lambda: 5).result(60) == 5
        executor.shutdown()

    def test_never_starts_what_was_cancelled_before(self) -> None:
        executor, gate, ran = DaemonExecutor(1, "x"), threading.Event(), list[int]()
        first = executor.submit(gate.wait, 60)
        second = executor.submit(ran.append, 1)
        assert second.cancel()
        gate.set()
        assert first.result(60)
        executor.submit(ran.append, 2).result(60)
        assert ran == [2]
        executor.shutdown()

    def test_does_what_was_submitted_before_the_end_and_then_ends(self) -> None:
        executor, ran = DaemonExecutor(2, "x"), list[int]()
        for n in range(50):
            executor.submit(ran.append, n)
        executor.shutdown()
        for thread in list(executor._threads):
            thread.join(60)
            assert not thread.is_alive()
        assert sorted(ran) == list(range(50))

    def test_keeps_no_value_alive_while_it_has_nothing_to_do(self) -> None:
        class Large:
            pass

        executor = DaemonExecutor(1, "x")
        value = executor.submit(Large).result(60)
        gone = weakref.ref(value)
        del value
        wait_until(lambda: gc.collect() >= 0 and gone() is None)  # the thread lets go of it later
        executor.shutdown()

    def test_goes_on_where_the_system_had_no_thread_for_a_while(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def start(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        executor, gate, ran = DaemonExecutor(2, "x"), threading.Event(), list[int]()
        with monkeypatch.context() as without_threads:
            without_threads.setattr(threading.Thread, "start", start)
            with pytest.raises(NoThreadError, match="no thread"):
                executor.submit(ran.append, 1)
        first = executor.submit(gate.wait, 60)
        with monkeypatch.context() as without_threads:
            without_threads.setattr(threading.Thread, "start", start)
            second = executor.submit(ran.append, 2)  # the one that is there gets to it
        gate.set()
        assert first.result(10)
        second.result(10)
        assert ran == [2]
        executor.shutdown()

    def test_loses_nothing_that_comes_as_a_thread_ends_for_want_of_work(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("ingester.threads.IDLE_S", 0.1)
        executor = DaemonExecutor(1, "x")
        monkeypatch.setattr(executor, "_lock", threading.RLock())
        executor.submit(int).result(10)
        wait_until(lambda: executor._idle == 1)
        with executor._lock:
            time.sleep(0.3)  # it waits no longer for work, and for us to say that it leaves
            last = executor.submit(int, 5)
            executor.shutdown()
        assert last.result(10) == 5

    def test_never_holds_the_end_of_the_process(self) -> None:
        program = (
            "import time; from ingester.threads import DaemonExecutor as D;"
            "D(1, 'x').submit(time.sleep, 600); time.sleep(0.05); print('end')"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, timeout=60, check=True
        )
        assert done.stdout == b"end\n"


class Stuck:
    """A call that is stuck until it is let go, and what comes of it."""

    def __init__(self, executor: DaemonExecutor) -> None:
        self.began, self.go, self.ended = threading.Event(), threading.Event(), threading.Event()
        self.items: list[str] = []
        self.raised: BaseException | None = None
        self.future = executor.submit(self._run)
        assert self.began.wait(10)

    def _run(self) -> str:
        deliver(self.items, "first")
        self.began.set()
        self.go.wait(20)
        try:
            deliver(self.items, "second")
        except WrittenOff as error:
            self.raised = error
            raise
        finally:
            self.ended.set()
        return "done"


class TestACallThatDoesNotComeBack:
    def test_is_written_off_after_so_many_looks(self) -> None:
        executor = DaemonExecutor(1, "x")
        stuck = Stuck(executor)
        assert [executor.look() for _ in range(LOOKS)] == [0] * LOOKS  # the first one sees progress
        assert not stuck.future.done()
        assert executor.look() == 1
        with pytest.raises(ReadTimeoutError):
            stuck.future.result(10)
        assert (executor.look(), executor.stuck) == (0, 1)

    def test_may_be_given_up_in_the_moment_in_which_it_begins(self) -> None:
        executor = DaemonExecutor(1, "x")
        for n in range(100):
            future = executor.submit(int, n)
            while not future.done():
                executor.look()
            with suppress(ReadTimeoutError):
                assert future.result() == n
        # Whatever was given up came back: no thread is lost, and none has broken.
        assert executor.submit(lambda: 5).result(10) == 5
        wait_until(lambda: executor.stuck == 0)

    def test_that_ends_all_the_same_costs_no_thread(self) -> None:
        executor = DaemonExecutor(1, "x")
        for _ in range(20):
            with pytest.raises(ReadTimeoutError):
                executor.submit(lambda: [executor.look() for _ in range(LOOKS + 2)]).result(10)
        assert executor.submit(lambda: 5).result(10) == 5
        wait_until(lambda: executor.stuck == 0)

    def test_leaves_its_place_to_another_thread(self) -> None:
        executor = DaemonExecutor(1, "x")
        stuck = Stuck(executor)
        waiting = executor.submit(lambda: 5)
        for _ in range(LOOKS + 1):
            executor.look()
        assert waiting.result(10) == 5
        assert not stuck.ended.is_set()

    def test_and_leaves_no_thread_to_be_had_ends_and_so_does_what_waits(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def start(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        executor = DaemonExecutor(2, "x")
        stuck = [Stuck(executor) for _ in range(2)]
        waiting = executor.submit(lambda: 5)
        monkeypatch.setattr(threading.Thread, "start", start)
        assert [executor.look() for _ in range(LOOKS)] == [0] * LOOKS
        with pytest.raises(NoThreadError):
            executor.look()
        for each in stuck:
            with pytest.raises(ReadTimeoutError):
                each.future.result(1)
        with pytest.raises(NoThreadError):
            waiting.result(1)

    def test_brings_nothing_when_it_comes_back_too_late(self) -> None:
        executor = DaemonExecutor(1, "x")
        stuck = Stuck(executor)
        for _ in range(LOOKS + 1):
            executor.look()
        stuck.go.set()
        assert stuck.ended.wait(10)
        assert isinstance(stuck.raised, WrittenOff)
        assert stuck.items == ["first"]
        with pytest.raises(ReadTimeoutError):
            stuck.future.result(10)
        assert executor.submit(lambda: 5).result(10) == 5

    def test_is_not_one_that_comes_back_in_time(self) -> None:
        executor = DaemonExecutor(1, "x")
        stuck = Stuck(executor)
        for _ in range(LOOKS):
            executor.look()
        stuck.go.set()
        assert stuck.future.result(10) == "done"
        assert stuck.items == ["first", "second"]
        assert executor.look() == 0

    def test_is_not_one_that_waits_for_its_turn(self) -> None:
        executor, gate = DaemonExecutor(1, "x"), threading.Event()
        turns: queue.SimpleQueue[None] = queue.SimpleQueue()

        def slow() -> None:
            while not gate.is_set():
                progressed()
                turns.put(None)
                gate.wait(0.001)

        executor.submit(slow)
        waiting = executor.submit(lambda: 5)
        for _ in range(3 * LOOKS):
            while not turns.empty():
                turns.get()
            turns.get(timeout=10)  # it got on since the last look
            assert executor.look() == 0
        gate.set()
        assert waiting.result(10) == 5

    def test_is_told_to_nobody_outside_of_a_thread(self) -> None:
        progressed()
        items: list[int] = []
        deliver(items, 1)
        assert items == [1]


class TestAStop:
    async def test_is_not_asked_for_at_first(self) -> None:
        stop = StopControl()
        assert (stop.requested, stop.abandoned, stop.cause) == (False, False, None)

    async def test_request_leaves_what_is_on_the_wire(self) -> None:
        stop = StopControl()
        stop.request(signal.SIGTERM)
        assert (stop.requested, stop.abandoned, stop.cause) == (True, False, signal.SIGTERM)

    async def test_abandon_asks_for_both(self) -> None:
        stop = StopControl()
        stop.abandon(signal.SIGINT)
        assert (stop.requested, stop.abandoned) == (True, True)

    async def test_first_signal_is_the_cause(self) -> None:
        stop = StopControl()
        stop.request(signal.SIGTERM)
        stop.abandon(signal.SIGINT)
        assert stop.cause is signal.SIGTERM

    async def test_a_fatal_cause_wins_over_a_signal(self) -> None:
        stop, fatal = StopControl(), FatalError("gone")
        stop.request(signal.SIGTERM)
        stop.request(fatal)
        stop.request(JournalError("later"))
        stop.request(signal.SIGINT)
        assert stop.cause is fatal

    async def test_wakes_who_sleeps(self) -> None:
        stop = StopControl()
        sleeper = asyncio.create_task(stop.sleep(600))
        await asyncio.sleep(0)
        stop.request(signal.SIGTERM)
        await asyncio.wait_for(sleeper, 60)

    @pytest.mark.parametrize("seconds", [0.0, -1.0])
    async def test_lets_nobody_sleep_backwards(self, seconds: float) -> None:
        await asyncio.wait_for(StopControl().sleep(seconds), 60)

    async def test_sleep_lasts_its_time(self) -> None:
        since = time.monotonic()
        await StopControl().sleep(0.03)
        assert time.monotonic() - since >= 0.029

    async def test_drain_that_takes_too_long_is_abandoned(self) -> None:
        stop = StopControl()
        await stop.wait_abandoned(0.01)
        assert stop.abandoned

    async def test_sleeper_that_is_cancelled_is_cancelled(self) -> None:
        sleeper = asyncio.create_task(StopControl().sleep(600))
        await asyncio.sleep(0)
        sleeper.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sleeper


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="only Linux has it")
class TestTheProcessor:
    """What sends has the interpreter: a thread that takes its place has nothing to do but wait."""

    def test_is_taken_from_nobody_by_a_thread_that_reads(self) -> None:
        executor = DaemonExecutor(1, "reader")
        assert executor.submit(os.sched_getscheduler, 0).result() == os.SCHED_BATCH
        executor.shutdown()
        assert os.sched_getscheduler(0) == os.SCHED_OTHER

    def test_is_left_to_others_as_the_operator_said(self) -> None:
        """Of ``chrt --idle`` the readers are idle, too."""
        executor = DaemonExecutor(1, "reader")

        def again() -> int:
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
            let_others_go_first()
            return os.sched_getscheduler(0)

        assert executor.submit(again).result() == os.SCHED_IDLE
        executor.shutdown()
