"""Executors whose threads never hold the end of the process, nor a call that does not return.

A read on a hung mount does not return. ``ThreadPoolExecutor`` joins its threads when the
interpreter exits, so one stuck reader would keep a finished run alive for ever; these threads are
daemons, and the journal is closed before anybody stops waiting for them.

Nobody can interrupt such a read, so its thread is written off: whoever waits gets ReadTimeoutError,
another thread takes the next call, and what the late one brings is for nobody. A call says that it
gets on by ``progressed`` and hands over what it has by ``deliver``; both raise WrittenOff when it
is too late, so that it unwinds, gives back what it holds, and its thread ends.
"""

from __future__ import annotations

import errno
import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from functools import partial
from typing import Any, ParamSpec, TypeVar

from ingester.errors import NoThreadError

P = ParamSpec("P")
T = TypeVar("T")

LOOKS = 4
"""A call that made no progress between so many looks is stuck. Counted, not timed: a process that
was stopped for an hour has not looked meanwhile, and its reads are as young as before."""
IDLE_S = 5.0
"""A thread without work ends: there may be ten thousand sources."""


class ReadTimeoutError(OSError):
    """A call was given up: it made no progress, and its thread may still be in it."""

    def __init__(self) -> None:
        super().__init__(errno.ETIMEDOUT, "the file system does not answer")


class WrittenOff(BaseException):
    """Raised in the thread of a call that nobody waits for any more; not an error of the call."""


class _Call:
    """One call; ``lock`` makes its end, by itself or by a look, one moment for everybody."""

    __slots__ = ("beats", "executor", "future", "lock", "open", "quiet_looks", "run", "seen")

    def __init__(
        self, executor: DaemonExecutor, future: Future[Any], run: Callable[[], object]
    ) -> None:
        self.executor = executor
        self.future = future
        self.run = run
        self.lock = threading.Lock()
        self.open = True  # False: it has ended, or was written off
        self.beats = self.seen = self.quiet_looks = 0

    def beat(self) -> None:
        # Without the lock, twice for each file: one that is written off at this moment is told so
        # by its next beat, or when it delivers.
        self._check()
        self.beats += 1

    def add(self, items: list[T], item: T) -> None:
        with self.lock:
            self._check()
            self.beats += 1
            items.append(item)

    def _check(self) -> None:
        if not self.open:
            raise WrittenOff

    def look(self) -> bool:
        """Whether it is stuck; then nothing of it counts from now on."""
        with self.lock:
            if not self.open:
                return False
            self.quiet_looks = self.quiet_looks + 1 if self.beats == self.seen else 0
            self.seen = self.beats
            self.open = self.quiet_looks < LOOKS
            return not self.open

    def end(self, value: object, error: BaseException | None) -> bool:
        """Settle the future, unless the call was written off; returns whether it was not."""
        with self.lock:
            if not self.open:
                return False
            self.open = False
        if error is None:
            self.future.set_result(value)
        else:
            self.future.set_exception(error)
        return True


_here = threading.local()


def progressed() -> None:
    """Say that this thread's call gets on, by bytes that were read for instance.

    Raises:
        WrittenOff: nobody waits for the call any more.
    """
    call: _Call | None = getattr(_here, "call", None)
    if call is not None:
        call.beat()
        call.executor.answered += 1


def deliver(items: list[T], item: T) -> None:
    """Add to what this thread's call has got so far; raises as ``progressed``.

    ``items`` is complete when the call ends or is written off: never does a late one add to it.
    """
    call: _Call | None = getattr(_here, "call", None)
    if call is None:
        items.append(item)
    else:
        call.add(items, item)


def failed(error: OSError) -> None:
    """Tell this thread's executor that a file could not be read; raises as its ``on_failure``."""
    call: _Call | None = getattr(_here, "call", None)
    if call is not None:
        call.executor.on_failure(error)


def let_others_go_first() -> None:
    """This thread, or process, takes the processor from none that has it, and gets no less of it.

    What sends has the interpreter: where a thread that only waits for that takes its place, all
    stand still (benchmarks: 3 % of ``small``, 7 % of ``archive``).
    """
    with suppress(AttributeError, OSError):  # where the system knows no such thing
        if os.sched_getscheduler(0) == os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def start(thread: threading.Thread) -> None:
    """Start it. Raises NoThreadError."""
    try:
        thread.start()
    except RuntimeError as error:
        raise NoThreadError(
            "the system gives this process no thread",
            "raise the limit of processes and threads (ulimit -u, or that of the container), "
            "or that of memory",
        ) from error


class DaemonExecutor(Executor):
    """At most ``threads`` daemon threads that run what is submitted, in order.

    Whoever calls ``look`` at equal intervals has the stuck calls written off.
    """

    def __init__(self, threads: int, name: str) -> None:
        self.answered = 0  # times that a file system gave what it was asked for
        self.stuck = 0  # threads that were written off and have not come back
        self._limit = threads
        self._name = name
        self._lock = threading.Lock()
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._running: set[_Call] = set()
        self._threads: set[threading.Thread] = set()
        self._idle = 0
        self._started = 0
        self._ended = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run ``fn`` in one of the threads."""
        future: Future[T] = Future()
        call = _Call(self, future, lambda: fn(*args, **kwargs))
        with self._lock:
            if self._ended:
                raise RuntimeError("the executor was shut down")
            self._calls.put(call)
            try:
                self._start_threads()
            except NoThreadError:  # nobody is there to run it, now or ever
                future.cancel()
                raise
        return future

    def on_failure(self, error: OSError) -> None:
        """A file could not be read, says a thread of this executor. Nothing here."""

    def look(self) -> int:
        """Write off every call without progress since the last LOOKS looks; how many.

        Raises NoThreadError, as what waits for its turn does then: no thread is there to run it.
        """
        with self._lock:
            running = list(self._running)
        stuck = [call for call in running if call.look()]
        for call in stuck:
            with self._lock:
                self._running.discard(call)
                self.stuck += 1
            call.future.set_exception(ReadTimeoutError())
        try:
            for _ in stuck:
                with self._lock:
                    self._start_threads()
        except NoThreadError as error:
            self.fail_waiting(partial(NoThreadError, *error.args))
            raise
        return len(stuck)

    def fail_waiting(self, error: Callable[[], BaseException]) -> None:
        """Let what was submitted and not begun end with an ``error()`` each.

        One for all would have the frames of all, and whoever clears them ends the others.
        """
        while True:
            try:
                call = self._calls.get_nowait()
            except queue.Empty:
                return
            if call is None:
                self._calls.put(None)
                return
            if call.future.set_running_or_notify_cancel():
                call.future.set_exception(error())

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the threads end after what was submitted. Never waits for a stuck one."""
        del wait, cancel_futures
        with self._lock:
            self._ended = True
            for _ in range(self._limit):
                self._calls.put(None)

    def _start_threads(self) -> None:
        """As many as there is work for; with the lock held.

        Raises NoThreadError where the system has none left for the first of them.
        """
        running = len(self._threads) - self.stuck
        if self._calls.qsize() > self._idle and running < self._limit:
            thread = threading.Thread(
                target=self._work, name=f"{self._name}-{self._started}", daemon=True
            )
            try:
                start(thread)
            except NoThreadError:
                if running:
                    return  # those that are there get to it
                raise
            self._started += 1
            self._threads.add(thread)

    def _work(self) -> None:
        let_others_go_first()
        while (call := self._next()) is not None:
            useful = self._run(call)
            del call  # or the last future would keep its value alive until the next call
            if not useful:
                break
        with self._lock:
            self._threads.discard(threading.current_thread())

    def _next(self) -> _Call | None:
        while True:
            with self._lock:
                self._idle += 1
            timed_out = False
            try:
                call = self._calls.get(timeout=IDLE_S)
            except queue.Empty:
                call, timed_out = None, True
            with self._lock:
                self._idle -= 1
                if call is None:
                    if timed_out and self._calls.qsize():
                        continue  # it came in this moment, and counts on this thread
                    # Under the lock: whoever submits next sees one thread less.
                    self._threads.discard(threading.current_thread())
                    return None
                self._start_threads()  # one who submitted meanwhile counted on this thread
                # Before it is among those that are looked at: a look may write it off at once, and
                # neither an ended future nor a cancelled one can begin, or be given an end.
                if call.future.set_running_or_notify_cancel():
                    self._running.add(call)
                    return call
                del call  # as in _work

    def _run(self, call: _Call) -> bool:
        """Returns whether the thread is still one of the executor's."""
        _here.call = call
        value, error = None, None
        try:
            call.beat()  # or it was written off before it began
            value = call.run()
        except BaseException as caught:  # noqa: BLE001 - handed to whoever awaits the future
            error = caught
        finally:
            _here.call = None
        useful = call.end(value, error)
        with self._lock:
            self._running.discard(call)
            if not useful:
                self.stuck -= 1
                self._threads.discard(threading.current_thread())
        return useful
