"""``ingester bench`` into a data store: signed, with new instances at each point, all below a root."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.healthimaging.emulated import REGION, emulator, environment_of
from tests.support.process import run_ingester


class TestABenchmarkOfADataStore:
    def test_sends_new_instances_at_each_point(self, tmp_path: Path) -> None:
        store, output, temporary = (tmp_path / name for name in ("store", "output", "temporary"))
        temporary.mkdir()
        with emulator(store) as running:
            assert running.emulator.credentials is not None
            keys = environment_of(running.emulator.credentials)
            completed = run_ingester(
                "bench", f"--url={running.url}", "--server=healthimaging", "--auth=sigv4",
                f"--region={REGION}", f"--ca-bundle={running.ca}", "--yes", "--json",
                "--tier=small", "--size-mb=1", "--concurrency=1,2", "--batch-instances=10",
                "--time-limit-s=600", f"--output={output}",
                env={**keys, "TMPDIR": str(temporary)}, timeout=110,
            )  # fmt: skip
        assert completed.returncode == 0, completed.stderr
        data = json.loads(completed.stdout)
        assert (data["target"]["kind"], data["target"]["server"]) == ("store", "healthimaging")
        assert [point["stored"] for point in data["points"]] == [30, 30]
        assert [point["sink_cores"] for point in data["points"]] == [None, None]
        kept = [path.relative_to(store).parts for path in store.rglob("*.dcm")]
        assert len(kept) == len({parts[-1] for parts in kept}) == 60
        assert all(part.startswith(f"{data['uid_root']}.") for parts in kept for part in parts)
        assert {parts[0] for parts in kept} == set(data["studies"])
        assert "DeleteImageSet" in data["how_to_delete"]
        assert data["how_to_delete"] in completed.stderr
        (tier,) = data["tiers"]
        assert tier["alone"]["mb_per_s"] > 0
        assert "this machine to itself" in completed.stderr
        assert list(temporary.iterdir()) == []
        for secret in keys.values():
            assert secret not in completed.stdout + completed.stderr
            assert secret not in (output / "bench.svg").read_text(encoding="utf-8")
        assert sorted(os.listdir(output)) == ["bench.json", "bench.svg"]
