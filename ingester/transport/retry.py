"""What to do about an attempt that brought no usable manifest: a pure decision.

Takes the reply and what is known of the batch so far; gives one of the ``actions``. The table is
in the README under 'What happens when it goes wrong'. Waiting is full jitter over a doubling
back-off; Retry-After is the least wait.
"""

from __future__ import annotations

from random import Random
from typing import NamedTuple

from ingester.dicomweb.outcome import Outcome
from ingester.transport.actions import Action, GiveUp, Outage, Refused, Resend, Retry, Split, Stop
from ingester.transport.reply import Answer, NoAnswer
from ingester.transport.signs import (
    NO_TRUST,
    PROXY_AUTHENTICATION_REQUIRED,
    THROTTLED,
    UNAUTHORIZED,
    leaves_in_doubt,
    named,
)

CHECK_CREDENTIALS = (
    "check --auth, the credentials and what they may do, and with SigV4 the region and "
    "this machine's clock"
)
GIVE_CREDENTIALS = (
    "say which with --auth: basic (INGESTER_USERNAME and INGESTER_PASSWORD), "
    "bearer (INGESTER_TOKEN) or sigv4 (AWS credentials)"
)
NAME_THE_PROXY = "name it with --proxy, or with its credentials in HTTPS_PROXY or HTTP_PROXY"
ASK_WHO_RUNS_IT = "it is behind the proxy that was named: whoever runs the server must mend that"

TRIAL_CONNECT_ATTEMPTS = 5
"""With waits of 4, 8, 16 and 32 times the back-off base: 30 s by default."""

LONGEST_WAIT_S = 3600.0
"""A Retry-After beyond an hour is looked at again after one: the server's clock may be wrong."""

MAX_DOUBLINGS = 64
"""Any back-off is at its cap by then, and a float holds it."""


class RetryPolicy(NamedTuple):
    """How often and how long. Seconds."""

    max_attempts: int = 6
    backoff_base_s: float = 0.5
    backoff_cap_s: float = 60.0


class Situation(NamedTuple):
    """What is known of a batch when a reply to it came."""

    attempts: int  # this one included
    doubts: int  # attempts after which its files may have been stored, this one not included
    auth_refusals: int  # 401, 403 and 407, this one not included
    single: bool  # one file
    proven: bool  # this journal's setting has stored something
    others_succeed: bool  # some request succeeded since the first attempt of this batch
    retry_after_s: float | None
    conflict_is_transient: bool = False  # of the server's profile
    keys_are_good: bool = False  # some request succeeded that was sent after the first auth refusal
    others_succeed_now: bool = False  # some request succeeded since this attempt began
    is_to_blame: bool = False  # the server was seen to be well right before it refused this


def decide(
    reply: Answer | NoAnswer, situation: Situation, policy: RetryPolicy, random: Random
) -> Action:
    """The action for a reply that names none of the batch's instances."""
    if isinstance(reply, NoAnswer):
        return _without_answer(reply, situation, policy, random)
    status = reply.meant_status
    if 300 <= status < 400:
        return Stop(
            f"the server redirects (HTTP {status})",
            "redirects are never followed: give the address it points to as the base URL",
        )
    if status in (402, 406):
        return Stop(
            f"the server refuses every request (HTTP {status}){named(reply)}",
            "see the server's words",
        )
    if status in UNAUTHORIZED:
        return _unauthorized(reply, situation, policy, random)
    if status in (404, 405):
        if not situation.proven:
            return Stop(
                f"there is no STOW-RS service at this address (HTTP {status}){named(reply)}",
                "the base URL is what stands before /studies; of HealthImaging look at the "
                "data store's id and its region",
            )
        return _again(Retry, situation, policy, random)
    if status == 413:
        if situation.single:
            return GiveUp(Outcome.TOO_LARGE, "request_too_large")
        return Split(shrink=True)
    if status in THROTTLED:
        return _again(Retry, situation, policy, random, slow_all=True)
    if leaves_in_doubt(reply):
        return _in_doubt(situation, policy, random)
    if status == 409 and situation.conflict_is_transient:
        return _again_while_it_answers(situation, policy, random)
    if status < 300:
        return Refused(Outcome.IN_DOUBT, "not_confirmed")
    return Refused(Outcome.REJECTED, "refused")


def _without_answer(
    reply: NoAnswer, situation: Situation, policy: RetryPolicy, random: Random
) -> Action:
    if reply.kind in NO_TRUST:
        what, hint = NO_TRUST[reply.kind]
        return Stop(f"{what} ({reply.detail})", hint)
    if reply.maybe_stored:
        return _in_doubt(situation, policy, random)
    if situation.proven:
        return _again(Retry, situation, policy, random)
    if situation.attempts >= TRIAL_CONNECT_ATTEMPTS and reply.kind == "no_proxy":
        return Stop(
            f"there is no connection through the proxy ({reply.detail})",
            "check --proxy (or HTTP_PROXY, HTTPS_PROXY), that the proxy is running, and what it "
            "asks for and lets through",
        )
    if situation.attempts >= TRIAL_CONNECT_ATTEMPTS:
        return Stop(
            f"the server cannot be reached ({reply.detail})",
            "check the address, the port, and that the server is running",
        )
    return Retry(min(policy.backoff_cap_s, policy.backoff_base_s * 2 * 2**situation.attempts))


def _unauthorized(
    answer: Answer, situation: Situation, policy: RetryPolicy, random: Random
) -> Action:
    mended = answer.mended and situation.attempts < policy.max_attempts
    if mended or situation.auth_refusals == 0:
        return Retry(_backoff_s(situation, policy, random))
    if not situation.keys_are_good:
        what, hint = "the server refuses the credentials", CHECK_CREDENTIALS
        if answer.status == PROXY_AUTHENTICATION_REQUIRED:
            what, hint = "a proxy on the way asks for credentials", NAME_THE_PROXY
            if answer.tunnelled:
                what, hint = "something behind --url asks for proxy credentials", ASK_WHO_RUNS_IT
        elif not answer.credentials_sent:
            what, hint = "the server asks for credentials and none were sent", GIVE_CREDENTIALS
        return Stop(
            f"{what} (HTTP {answer.status}){named(answer)}",
            hint,
            unless_known_good=situation.proven and answer.status == 403,
        )
    if answer.status == PROXY_AUTHENTICATION_REQUIRED:  # others pass: no word about the files
        return _again_while_it_answers(situation, policy, random)
    return Refused(Outcome.REJECTED, "refused")


def _in_doubt(situation: Situation, policy: RetryPolicy, random: Random) -> Action:
    if situation.is_to_blame:
        return GiveUp(Outcome.IN_DOUBT, "no_answer") if situation.single else Split()
    if situation.doubts >= 1 and situation.others_succeed and not situation.single:
        return Split()
    return _again(Resend, situation._replace(doubts=situation.doubts + 1), policy, random)


def _again(
    action: type[Retry | Resend],
    situation: Situation,
    policy: RetryPolicy,
    random: Random,
    *,
    slow_all: bool = False,
) -> Action:
    if situation.attempts >= policy.max_attempts or situation.is_to_blame:
        return _used_up(situation)
    asked_s = min(situation.retry_after_s or 0.0, LONGEST_WAIT_S)
    wait_s = max(_backoff_s(situation, policy, random), asked_s)
    if action is Resend:
        return Resend(wait_s)
    return Retry(wait_s, hold_all_s=(asked_s or wait_s) if slow_all else 0.0)


def _again_while_it_answers(situation: Situation, policy: RetryPolicy, random: Random) -> Action:
    """Of a refusal that is neither of the files nor a sign that the server is away."""
    action = _again(Retry, situation, policy, random)
    used_up = isinstance(action, Outage | GiveUp)
    return Refused(Outcome.FAILED, "attempts_used_up") if used_up else action


def _used_up(situation: Situation) -> Action:
    if not (situation.others_succeed_now or situation.is_to_blame):
        return Outage(f"the server took nothing in {situation.attempts} attempts")
    if not situation.doubts:
        if situation.is_to_blame and not situation.single:
            return Split()
        return GiveUp(Outcome.FAILED, "attempts_used_up")
    return GiveUp(Outcome.IN_DOUBT, "no_answer") if situation.single else Split()


def _backoff_s(situation: Situation, policy: RetryPolicy, random: Random) -> float:
    doublings = min(situation.attempts - 1, MAX_DOUBLINGS)
    ceiling = min(policy.backoff_cap_s, policy.backoff_base_s * 2**doublings)
    return random.uniform(0.0, ceiling)
