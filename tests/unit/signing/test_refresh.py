"""One fetch at a time, for any number who ask: with a source that a test holds in its hand."""

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from ingester.auth.credentials import CredentialSource, wait_s
from ingester.auth.refreshing import MAX_STUCK, NoCredentials
from tests.unit.signing.made import until


@dataclass(frozen=True)
class Given:
    """Keys as botocore gives them."""

    access_key: str
    secret_key: str = "secret"
    token: str | None = None


@dataclass
class Source:
    """A chain whose n-th resolution gives key n, once it may."""

    life_s: float | None = None
    same: bool = False
    held_from: int = 1  # the first that waits for the gate
    gate: threading.Event = field(default_factory=threading.Event)
    resolved: int = 0
    asked: int = 0
    under_way: int = 0
    most_under_way: int = 0

    def __call__(self) -> "Source":
        self.resolved += 1
        return self

    @property
    def _expiry_time(self) -> datetime | None:
        if self.life_s is None:
            return None
        return datetime.now(UTC) + timedelta(seconds=self.life_s)

    def get_frozen_credentials(self) -> Given:
        self.asked += 1
        mine = self.asked
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        if mine >= self.held_from:
            self.gate.wait(100)
        self.under_way -= 1
        return Given("KEY" if self.same else f"KEY{mine}")


@pytest.fixture
def chain() -> Iterator[Source]:
    made = Source()
    made.gate.set()
    yield made
    made.gate.set()


async def test_many_who_were_refused_wait_for_one_fetch(chain: Source) -> None:
    async with CredentialSource(resolve=chain) as source:
        first = source.snapshot()
        chain.gate.clear()
        waiting = [asyncio.create_task(source.refresh_now(first, 60)) for _ in range(50)]
        await asyncio.sleep(0.05)
        waiting[0].cancel()
        await asyncio.sleep(0)
        chain.gate.set()
        got = await asyncio.gather(*waiting[1:])
        assert all(keys is source.snapshot() for keys in got)
        assert source.snapshot().access_key == "KEY2"
        assert chain.resolved == 2


async def test_whoever_was_refused_with_older_keys_gets_the_newer_at_once(chain: Source) -> None:
    async with CredentialSource(resolve=chain) as source:
        first = source.snapshot()
        second = await source.refresh_now(first, 60)
        chain.gate.clear()
        assert await source.refresh_now(first, 0) is second
        assert chain.resolved == 2


async def test_the_same_keys_again_are_none_and_are_not_asked_for_at_each_refusal(
    chain: Source,
) -> None:
    chain.same = True
    async with CredentialSource(resolve=chain) as source:
        first = source.snapshot()
        for _ in range(5):
            assert await source.refresh_now(first, 60) is None
        assert source.snapshot() is first
        assert chain.resolved == 2


async def test_a_refusal_during_a_poll_goes_through_the_chain_after_it(chain: Source) -> None:
    chain.life_s, chain.same, chain.held_from = 0.4, True, 2
    chain.gate.clear()
    async with CredentialSource(resolve=chain) as source:
        first = source.snapshot()
        await until(lambda: chain.asked == 2)
        assert chain.resolved == 1
        waiting = asyncio.create_task(source.refresh_now(first, 60))
        await asyncio.sleep(0.05)
        chain.gate.set()
        assert await waiting is None
        assert chain.resolved == 2
        assert chain.most_under_way == 1


async def test_a_dead_source_costs_a_few_threads_only(chain: Source) -> None:
    async with CredentialSource(resolve=chain) as source:
        first = source.snapshot()
        source._hang_timeout_s = 0.02
        chain.gate.clear()
        for _ in range(3 * MAX_STUCK):
            assert await source.refresh_now(first, 1) is None
        await until(lambda: chain.under_way == MAX_STUCK)
        assert source.snapshot() is first
        chain.gate.set()
        await until(lambda: source.snapshot() is not first and not chain.under_way)
        source._hang_timeout_s = 60
        await until(lambda: not source._stuck)
        last = source.snapshot()
        assert await source.refresh_now(last, 60) not in {None, last}


async def test_where_the_system_has_no_thread_for_a_while_it_is_asked_later(
    chain: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async with CredentialSource(resolve=chain) as source:
        first = source.snapshot()
        source._hang_timeout_s = 0.02
        with monkeypatch.context() as without_threads:
            without_threads.setattr(threading.Thread, "start", start)
            for _ in range(2 * MAX_STUCK):
                assert await source.refresh_now(first, 1) is None
                await asyncio.sleep(0.05)
        assert await source.refresh_now(first, 60) not in {None, first}


async def test_no_thread_for_the_first_keys_is_told_with_what_to_do(
    chain: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(NoCredentials, match="there is no thread to ask for the ") as caught:
        await CredentialSource(resolve=chain).start()
    assert caught.value.hint.startswith("raise the limit of processes and threads (ulimit -u")


async def test_keys_that_come_late_do_not_replace_younger_ones(chain: Source) -> None:
    async with CredentialSource(resolve=chain) as source:
        first = source.snapshot()
        source._hang_timeout_s = 0.05
        late = chain.gate = threading.Event()
        assert await source.refresh_now(first, 1) is None
        await until(lambda: chain.under_way == 1)
        chain.gate = threading.Event()
        chain.gate.set()
        source._hang_timeout_s = 60
        younger = await source.refresh_now(first, 60)
        late.set()
        await until(lambda: not source._stuck)
        assert source.snapshot() is younger
        assert source.snapshot().access_key == "KEY3"


async def test_keys_that_come_late_are_better_than_none(chain: Source) -> None:
    async with CredentialSource(resolve=chain) as source:
        first = source.snapshot()
        source._hang_timeout_s = 0.05
        chain.gate.clear()
        assert await source.refresh_now(first, 1) is None
        chain.gate.set()
        await until(lambda: source.snapshot() is not first)


async def test_after_the_end_nothing_is_asked(chain: Source) -> None:
    chain.life_s = 0.4
    async with CredentialSource(resolve=chain) as source:
        last = source.snapshot()
    await until(lambda: not any(each.name == "credentials" for each in threading.enumerate()))
    asked = chain.asked
    await asyncio.sleep(0.4)
    assert chain.asked == asked
    assert source.snapshot() is last
    assert await source.refresh_now(last, 1) is None


@pytest.mark.parametrize(
    ("remaining_s", "failures", "expected_s"),
    [
        (3, 0, 1.5),
        (3600, 0, 60),
        (0.1, 0, 0.2),
        (-5, 0, 0.2),
        (3600, 1, 1),
        (3600, 3, 4),
        (-5, 7, 60),
        (0, 10**6, 60),
    ],
)
def test_it_is_asked_after_half_of_the_life_or_backs_off(
    remaining_s: float, failures: int, expected_s: float
) -> None:
    assert wait_s(remaining_s, failures) == expected_s
