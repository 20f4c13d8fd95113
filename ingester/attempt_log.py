"""What the log has of every request: numbers, and what was decided."""

from __future__ import annotations

import time
from typing import TypeVar

from ingester.logs import DEBUG, INFO, WARNING, log, request_id, wanted
from ingester.parcel import Parcel
from ingester.reconciliation import Reconciled
from ingester.transport.actions import GiveUp, Refused, Stop
from ingester.transport.reply import Answer, NoAnswer, Reply

Step = TypeVar("Step")


def log_attempt(parcel: Parcel, reply: Reply, step: Step, began: float) -> Step:
    """Log an attempt that began then (monotonic); a good one is for debugging only."""
    level = DEBUG if isinstance(step, Reconciled) else INFO
    if isinstance(step, Refused | GiveUp | Stop):
        level = WARNING
    if wanted(level):
        log(
            level,
            "request",
            request=parcel.sent,
            attempt=parcel.attempts,
            instances=len(parcel.instances),
            bytes=parcel.body.framing.content_length,
            seconds=round(time.monotonic() - began, 3),
            status=reply.status if isinstance(reply, Answer) else None,
            no_answer=reply.kind if isinstance(reply, NoAnswer) else None,
            detail=reply.detail if isinstance(reply, NoAnswer) else None,
            request_id=request_id(reply.request_id) if isinstance(reply, Answer) else None,
            then=type(step).__name__,
            wait_s=round(getattr(step, "wait_s", 0.0), 3) or None,
            reason_code=getattr(step, "reason_code", None),
        )
    return step
