"""Whole runs on one journal while the server does anything and files change; then one in peace.

Some are stopped, so that the next one skips the directories that are complete.

After each run what must always hold is looked at (``Job.run`` does that), and what the store has by
the rule of its kind for second copies. The run in peace must complete the job.
"""

from pathlib import Path

from ingester.dicomweb.outcome import Evidence, Outcome
from tests.chance.world import World
from tests.pipeline.job import Ran
from tests.support.scripted import ScriptedServer

UNREST = (0.7, 0.5, 0.3)
COMPLETE = {"stored", "stored_with_warning", "already_stored", "duplicate"}


def assert_claims_hold(world: World, ran: Ran) -> None:
    """A file that is said to be stored is what the store has under its UIDs."""
    for name, row in ran.rows.items():
        if row.outcome not in (Outcome.STORED, Outcome.STORED_WITH_WARNING) or row.sha256 is None:
            continue
        copies = world.server.stored[row.sop_instance_uid]
        what = f"{name}: {row.outcome} by {row.evidence}, the store has other bytes"
        if world.kind == "orthanc":  # it keeps the first, whatever it says
            assert row.sha256.hex() == copies[0], what
        elif world.refuses_second or row.evidence is Evidence.QIDO:
            assert row.sha256.hex() in copies, what
    if ran.exit_code == 0:
        assert set(ran.outcomes) <= COMPLETE


class TestAnyFaults:
    def test_lose_nothing_and_nothing_is_claimed_falsely(
        self, chance_seed: int, tmp_path: Path, server: ScriptedServer
    ) -> None:
        world = World(chance_seed, server, tmp_path)
        for world.unrest in UNREST:
            world.edits = chance_seed % 2 == 0
            assert_claims_hold(world, world.job.run(world.options(), check=False))
        world.unrest, world.edits = 0.0, False
        ran = world.job.run(world.options(), check=False)
        assert_claims_hold(world, ran)
        assert ran.exit_code in (0, 3), ran.cause
        assert "pending" not in ran.outcomes
        met = {name for name, row in ran.rows.items() if row.seen_run_id == ran.summary.run_id}
        files = (path for path in world.job.archive.rglob("*") if path.is_file())
        assert met == {str(path.relative_to(world.job.archive)) for path in files}
        again = world.job.run(world.options(), check=False)
        assert again.summary.skipped_directories == 0  # the run before came to its end
        assert_claims_hold(world, again)
        if world.refuses_second:  # what it has and will not take again cannot be told from others
            return
        assert "in_doubt" not in ran.outcomes
        assert "failed" not in ran.outcomes
