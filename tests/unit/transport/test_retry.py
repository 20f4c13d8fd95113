from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingester.dicomweb.outcome import Outcome
from ingester.transport.actions import Action, GiveUp, Outage, Refused, Resend, Retry, Split, Stop
from ingester.transport.reply import Answer, NoAnswer
from ingester.transport.retry import LONGEST_WAIT_S, RetryPolicy, Situation, decide
from ingester.transport.signs import leaves_in_doubt
from ingester.transport.trial import MAX_WAITING, Trial

POLICY = RetryPolicy()
QUIET = Situation(
    attempts=1,
    doubts=0,
    auth_refusals=0,
    single=False,
    proven=True,
    others_succeed=True,
    retry_after_s=None,
    others_succeed_now=True,
)
SINGLE = QUIET._replace(single=True)
TRIAL = QUIET._replace(proven=False, others_succeed=False, others_succeed_now=False)
LAST = QUIET._replace(attempts=6)


def answered(status: int) -> Answer:
    return Answer(status, b"")


def refused_as(error_type: str, status: int = 400) -> Answer:
    return Answer(status, b"", error_type=error_type)


NOT_SENT = NoAnswer("not_sent", "ConnectionRefusedError")
NO_PROXY = NoAnswer("no_proxy", "HTTP 407")
LOST = NoAnswer("lost", "ServerDisconnectedError")

TABLE: list[tuple[str, Answer | NoAnswer, Situation, type[object] | Action]] = [
    ("nothing was sent: again", NOT_SENT, QUIET, Retry),
    ("nothing was sent, for the last time, others succeed", NOT_SENT, LAST, GiveUp(Outcome.FAILED, "attempts_used_up")),
    ("nothing was sent, for the last time, nobody succeeds", NOT_SENT, LAST._replace(others_succeed_now=False), Outage),
    ("nothing was sent, on trial", NOT_SENT, TRIAL._replace(attempts=4), Retry),
    ("nothing was sent, on trial, five times", NOT_SENT, TRIAL._replace(attempts=5), Stop),
    ("no proxy, on trial", NO_PROXY, TRIAL._replace(attempts=4), Retry),
    ("no proxy, on trial, five times", NO_PROXY, TRIAL._replace(attempts=5), Stop),
    ("no proxy, for the last time, nobody succeeds", NO_PROXY, LAST._replace(others_succeed_now=False), Outage),
    ("TLS", NoAnswer("tls", "expired"), QUIET, Stop),
    ("TLS, on trial", NoAnswer("tls", "expired"), TRIAL, Stop),
    *[(f"redirect {status}", answered(status), QUIET, Stop) for status in (300, 301, 302, 303, 307, 308, 399)],
    ("402", answered(402), SINGLE, Stop),
    ("406", answered(406), SINGLE, Stop),
    ("404 on trial", answered(404), TRIAL, Stop),
    ("405 on trial", answered(405), TRIAL, Stop),
    ("404 after a success is an outage", answered(404), SINGLE, Retry),
    ("405 after a success is an outage", answered(405), QUIET, Retry),
    ("lost after the first byte: may be stored", LOST, QUIET, Resend),
    ("stalled", NoAnswer("stalled", ""), QUIET, Resend),
    ("no answer in time", NoAnswer("answer_timeout", ""), QUIET, Resend),
    ("an endless answer", NoAnswer("answer_too_long", ""), QUIET, Resend),
    *[(f"{status} leaves it in doubt", answered(status), QUIET, Resend) for status in (408, 500, 502, 504, 507, 599)],
    ("in doubt twice while others succeed", LOST, QUIET._replace(doubts=1), Split(shrink=False)),
    ("in doubt twice, nobody succeeds", LOST, QUIET._replace(doubts=1, others_succeed=False), Resend),
    ("in doubt twice, but alone", LOST, SINGLE._replace(doubts=1), Resend),
    ("in doubt to the end, alone", LOST, SINGLE._replace(attempts=6, doubts=5), GiveUp(Outcome.IN_DOUBT, "no_answer")),
    ("in doubt to the end, nobody succeeds", LOST, LAST._replace(doubts=5, others_succeed=False, others_succeed_now=False), Outage),
    ("the server is well before it and gone after it, twice", LOST, QUIET._replace(is_to_blame=True, others_succeed=False), Split(shrink=False)),
    ("the same, alone", LOST, SINGLE._replace(is_to_blame=True, others_succeed=False), GiveUp(Outcome.IN_DOUBT, "no_answer")),
    ("refused at last, but in doubt before", NOT_SENT, SINGLE._replace(attempts=6, doubts=1), GiveUp(Outcome.IN_DOUBT, "no_answer")),
    ("ConflictException", answered(409), SINGLE._replace(conflict_is_transient=True), Retry),
    ("ConflictException is never split", answered(409), LAST._replace(conflict_is_transient=True), Refused(Outcome.FAILED, "attempts_used_up")),
    *[(f"{status} without a manifest", answered(status), QUIET, Refused(Outcome.REJECTED, "refused")) for status in (400, 409, 410, 415, 422, 431, 451)],
    *[(f"{status} that confirms nothing", answered(status), QUIET, Refused(Outcome.IN_DOUBT, "not_confirmed")) for status in (200, 202, 204)],
    ("413", answered(413), QUIET, Split(shrink=True)),
    ("413 on trial", answered(413), TRIAL, Split(shrink=True)),
    ("413 alone", answered(413), SINGLE, GiveUp(Outcome.TOO_LARGE, "request_too_large")),
    ("401: once more", answered(401), QUIET, Retry),
    ("403: once more", answered(403), TRIAL, Retry),
    ("403 twice, others that were let in before succeed", answered(403), QUIET._replace(attempts=2, auth_refusals=1), Stop),
    ("403 twice with keys that are good", answered(403), QUIET._replace(attempts=2, auth_refusals=1, keys_are_good=True), Refused(Outcome.REJECTED, "refused")),
    ("407 twice, others that were let in before succeed", answered(407), SINGLE._replace(attempts=2, auth_refusals=1), Stop),
    ("407 twice while others succeed is no word about the file", answered(407), SINGLE._replace(attempts=2, auth_refusals=1, keys_are_good=True), Retry),
    ("407 to the end while others succeed", answered(407), LAST._replace(auth_refusals=5, keys_are_good=True), Refused(Outcome.FAILED, "attempts_used_up")),
    ("407 to the end, others succeeded meanwhile but not now", answered(407), LAST._replace(auth_refusals=5, keys_are_good=True, others_succeed_now=False), Refused(Outcome.FAILED, "attempts_used_up")),
    ("403 again, with other keys now", answered(403)._replace(mended=True), QUIET._replace(attempts=2, auth_refusals=1), Retry),
    ("401 twice, nobody succeeds", answered(401), QUIET._replace(attempts=2, auth_refusals=1, others_succeed=False), Stop),
    ("401 twice on trial", answered(401), TRIAL._replace(attempts=2, auth_refusals=1), Stop),
    *[(f"{status}", answered(status), QUIET, Retry) for status in (425, 429, 503)],
    *[(f"400 that is {name}", refused_as(name), QUIET, Retry) for name in ("ThrottlingException", "TooManyRequestsException")],
    *[(f"400 that is {name}: once more", refused_as(name), QUIET, Retry) for name in ("ExpiredTokenException", "RequestExpired", "InvalidSignatureException", "AccessDeniedException")],
    ("400 that is ExpiredTokenException, twice", refused_as("ExpiredTokenException"), QUIET._replace(attempts=2, auth_refusals=1), Stop),
    ("400 that is ThrottlingException to the end, nobody succeeds", refused_as("ThrottlingException"), LAST._replace(others_succeed_now=False), Outage),
    ("400 that is ValidationException", refused_as("ValidationException"), QUIET, Refused(Outcome.REJECTED, "refused")),
    ("413 that is called ThrottlingException", refused_as("ThrottlingException", 413), QUIET, Split(shrink=True)),
    ("429 to the end, nobody succeeds", answered(429), LAST._replace(others_succeed_now=False), Outage),
    ("503 to the end, right after a stored file was taken", answered(503), LAST._replace(others_succeed_now=False, is_to_blame=True), Split(shrink=False)),
    ("the same, alone", answered(503), LAST._replace(single=True, others_succeed_now=False, is_to_blame=True), GiveUp(Outcome.FAILED, "attempts_used_up")),
    ("404 to the end, nobody succeeds", answered(404), LAST._replace(others_succeed_now=False), Outage),
    ("ConflictException to the end, nobody succeeds", answered(409), LAST._replace(conflict_is_transient=True, others_succeed_now=False), Refused(Outcome.FAILED, "attempts_used_up")),
    ("503 to the end while others succeed", answered(503), LAST, GiveUp(Outcome.FAILED, "attempts_used_up")),
]  # fmt: skip


class TestTheFailureTable:
    @pytest.mark.parametrize(
        ("reply", "situation", "then"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
    )
    def test_says(self, reply: Answer | NoAnswer, situation: Situation, then: object) -> None:
        action = decide(reply, situation, POLICY, Random(1))
        if isinstance(then, type):
            assert isinstance(action, then)
        else:
            assert action == then

    @pytest.mark.parametrize("reply", [answered(404), answered(307), answered(402), NOT_SENT])
    def test_a_stop_names_what_happened_and_what_to_do(self, reply: Answer | NoAnswer) -> None:
        action = decide(reply, TRIAL._replace(attempts=6), POLICY, Random(1))
        assert isinstance(action, Stop)
        assert action.message
        assert action.hint

    @given(
        st.integers(200, 599) | st.sampled_from(["not_sent", "lost", "stalled", "answer_timeout", "answer_too_long", "tls", "tls_name", "tls_time", "no_proxy"]),
        st.builds(
            Situation, st.integers(1, 5000), st.integers(0, 10), st.integers(0, 3), st.booleans(), st.booleans(), st.booleans(),
            st.none() | st.floats(0, 1e12), st.booleans(),
        ),
        st.integers(1, 10_000),
    )  # fmt: skip
    def test_has_a_row_for_everything(
        self, what: int | str, situation: Situation, max_attempts: int
    ) -> None:
        reply = answered(what) if isinstance(what, int) else NoAnswer(what, "")  # type: ignore[arg-type]
        policy = RetryPolicy(max_attempts=max_attempts)
        action = decide(reply, situation, policy, Random(1))
        if isinstance(action, Retry | Resend):
            assert action.wait_s >= 0
        if isinstance(action, Retry | Refused):
            assert not leaves_in_doubt(reply)
        if isinstance(action, Split):
            assert not situation.single
        if not situation.proven:
            assert not (isinstance(action, GiveUp) and action.outcome is Outcome.REJECTED)


class TestBackOff:
    def test_is_full_jitter_over_a_doubling_ceiling(self) -> None:
        for attempts, ceiling in ((1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (5, 8.0)):
            waits = [
                action.wait_s
                for seed in range(300)
                if isinstance(action := decide(answered(429), QUIET._replace(attempts=attempts), POLICY, Random(seed)), Retry)
            ]  # fmt: skip
            assert len(waits) == 300
            assert max(waits) <= ceiling
            assert max(waits) > ceiling * 0.9
            assert min(waits) < ceiling * 0.1

    @pytest.mark.parametrize("attempts", [8, 60, 1100, 100_000])
    def test_is_capped_however_often_it_is_tried(self, attempts: int) -> None:
        """Somebody who wants to sit out an outage asks for many attempts."""
        policy = RetryPolicy(max_attempts=1_000_000)
        action = decide(NOT_SENT, QUIET._replace(attempts=attempts), policy, Random(3))
        assert isinstance(action, Retry)
        assert 0 <= action.wait_s <= 60

    @pytest.mark.parametrize(
        "reply",
        [answered(429), answered(503), answered(425), answered(500), LOST, NOT_SENT, answered(404)],
    )
    def test_retry_after_is_the_least_wait(self, reply: Answer | NoAnswer) -> None:
        for seed in range(50):
            action = decide(
                reply, QUIET._replace(attempts=5, retry_after_s=7.0), POLICY, Random(seed)
            )
            assert isinstance(action, Retry | Resend)
            assert 7 <= action.wait_s <= 8

    @pytest.mark.parametrize("status", [425, 429, 503])
    def test_of_a_server_that_is_too_busy_holds_for_all(self, status: int) -> None:
        action = decide(answered(status), QUIET._replace(retry_after_s=7.0), POLICY, Random(1))
        assert isinstance(action, Retry)
        assert action.hold_all_s == 7
        action = decide(answered(status), QUIET, POLICY, Random(1))
        assert isinstance(action, Retry)
        assert action.hold_all_s == action.wait_s > 0

    @pytest.mark.parametrize("reply", [answered(404), NOT_SENT, answered(409)])
    def test_of_one_batch_holds_nobody_else(self, reply: Answer | NoAnswer) -> None:
        action = decide(reply, QUIET._replace(conflict_is_transient=True), POLICY, Random(1))
        assert isinstance(action, Retry)
        assert action.hold_all_s == 0

    def test_waits_for_a_server_that_is_not_there_add_up_to_30_s_on_trial(self) -> None:
        waits: list[float] = []
        for attempts in range(1, 6):
            action = decide(NOT_SENT, TRIAL._replace(attempts=attempts), POLICY, Random(attempts))
            if isinstance(action, Stop):
                break
            assert isinstance(action, Retry)
            waits.append(action.wait_s)
        assert len(waits) == 4
        assert sum(waits) == 30

    def test_nobody_waits_longer_than_an_hour_for_a_word_of_the_server(self) -> None:
        """Its clock may be wrong: it is asked again, as by those who are held."""
        action = decide(answered(503), QUIET._replace(retry_after_s=1e9), POLICY, Random(1))
        assert isinstance(action, Retry)
        assert action.wait_s <= LONGEST_WAIT_S


class TestWhatLeavesADoubt:
    @pytest.mark.parametrize(
        ("reply", "doubt"),
        [
            (NOT_SENT, False),
            (NoAnswer("tls", ""), False),
            (NO_PROXY, False),
            (NoAnswer("tls_name", ""), False),
            (NoAnswer("tls_time", ""), False),
            (LOST, True),
            (NoAnswer("stalled", ""), True),
            (NoAnswer("answer_timeout", ""), True),
            (NoAnswer("answer_too_long", ""), True),
            *[(answered(status), False) for status in (200, 400, 401, 409, 413, 429, 503)],
            *[(answered(status), True) for status in (408, 500, 501, 502, 504, 599)],
        ],
    )
    def test_is(self, reply: Answer | NoAnswer, doubt: bool) -> None:
        assert leaves_in_doubt(reply) is doubt


class TestTheTrial:
    def test_a_refusal_is_taken_at_its_word_after_another_success(self) -> None:
        trial: Trial[str] = Trial(proven=True)
        sent_at = trial.successes
        assert not trial.may_act(sent_at)
        trial.succeeded()
        assert trial.may_act(sent_at)
        assert not trial.may_act(trial.successes)

    def test_nothing_is_acted_upon_before_the_first_success(self) -> None:
        trial: Trial[str] = Trial(proven=False)
        assert not trial.may_act(0)
        assert trial.end_of_input() == []
        assert not trial.may_act(0)

    def test_five_unrelated_batches_wait_and_the_sixth_is_too_many(self) -> None:
        trial: Trial[int] = Trial(proven=False)
        assert [trial.wait(n, f"1.{n}") for n in range(6)] == [True] * MAX_WAITING + [False]

    def test_batches_of_one_study_are_related(self) -> None:
        trial: Trial[int] = Trial(proven=True)
        assert all(trial.wait(n, "1.2") for n in range(10))
        assert len(trial) == 10

    def test_a_success_releases_all_that_wait_in_their_order(self) -> None:
        trial: Trial[int] = Trial(proven=False)
        for n in range(4):
            trial.wait(n, f"1.{n}")
        assert trial.succeeded() == [0, 1, 2, 3]
        assert (len(trial), trial.proven, trial.successes) == (0, True, 1)
        assert all(trial.wait(n, f"1.{n}") for n in range(5))

    def test_the_end_of_the_input_releases_them_where_the_setting_is_proven(self) -> None:
        trial: Trial[int] = Trial(proven=True)
        trial.wait(1, "1.1")
        assert trial.end_of_input() == [1]
        assert trial.may_act(trial.successes)

    def test_the_end_of_the_input_keeps_them_where_it_is_not(self) -> None:
        trial: Trial[int] = Trial(proven=False)
        trial.wait(1, "1.1")
        assert trial.end_of_input() == []
        assert len(trial) == 1
