"""Real files through the scan stage's Scanner, a list at a time, with too small a budget for all."""

import os
import time
from random import Random

from ingester.budget import Budget
from ingester.items import Instance, Result
from ingester.scan import Scanner, ScanOptions
from tests.fuzz.crafted import CANARY, Crafted
from tests.fuzz.judge import CPU_LIMIT_S, OVERTIME_S, Verdict, limited_cpu, outcome
from tests.unit.road import ref_of, scanned_by

BUDGET_BYTES = 2 << 20


def complaints_of_stage(
    directory: bytes, random: Random, cases: list[Crafted], verdicts: list[Verdict]
) -> list[list[str]]:
    """What is wrong with what the scanner says of each of the files, where they really are files."""
    paths = [os.path.join(directory, b"%d" % number) for number in range(len(cases))]
    for path, case in zip(paths, cases, strict=True):
        with open(path, "wb") as file:
            file.write(case.data)
    options = ScanOptions(
        inline_limit_bytes=random.choice((0, 4_096, 1 << 20)), checksums=random.random() < 0.5
    )
    budget = Budget(random.choice((4_096, BUDGET_BYTES)))
    began = time.thread_time()
    with limited_cpu(OVERTIME_S * len(cases)):
        files = [ref_of(path, number) for number, path in enumerate(paths)]
        found = scanned_by(Scanner(options, budget), files)
    wrong: list[list[str]] = [[] for _ in cases]
    if time.thread_time() - began > CPU_LIMIT_S * len(cases):
        wrong[0].append("a list of files takes too long")
    if [one.file.file_id for one in found] != list(range(len(cases))):
        wrong[0].append("not one end for each file, in order")
    for one, case, verdict, problems in zip(found, cases, verdicts, wrong, strict=False):
        problems.extend(_about(one, case, verdict))
    if budget.in_use_bytes:
        wrong[0].append(f"{budget.in_use_bytes} cached bytes were not given back")
    for path in paths:
        os.unlink(path)
    return wrong


def _about(found: Instance | Result, case: Crafted, verdict: Verdict) -> list[str]:
    if isinstance(found, Result):
        said: tuple[str, ...] = (found.outcome.value, found.reason_code)
        wrong = ["says a value of the patient"] * (CANARY in found.reason)
        size = found.size
    else:
        said, wrong, size = outcome(found.header), [], found.size
        if found.buffer is not None:
            if bytes(found.buffer.view or b"") != case.data:
                wrong.append("other bytes are cached")
            found.buffer.give_back()
    if size != len(case.data):
        wrong.append(f"the size of {len(case.data)} is {size}")
    if said != verdict.said:
        wrong.append(f"the stage says {said} and not {verdict.said}")
    return wrong
