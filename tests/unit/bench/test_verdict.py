"""The sentence on the bottleneck names the slowest of what was measured, with its figures."""

from dataclasses import replace

import pytest

from ingester.bench.verdict import Evidence, Rate, verdict_of

SINK = Evidence(
    sent=Rate(4100, 410),
    own="server or network",
    cores=2,
    client_cores=0.6,
    sink_cores=0.3,
    scanned_per_s=15_000,
    read=Rate(9000, 900),
    read_cold=True,
    busy=0.5,
)
STORE = replace(SINK, sent=Rate(310, 31), sink_cores=None, client_cores=0.2, alone=Rate(4100, 410))


def changed(seen: Evidence, **changes: object) -> Evidence:
    return replace(seen, **changes)  # type: ignore[arg-type] # of the fields' own kinds


class TestTheVerdict:
    @pytest.mark.parametrize(
        ("seen", "kind"),
        [
            (changed(SINK, read=Rate(900, 90)), "disk"),
            (changed(SINK, read=Rate(900, 90), read_cold=False), "server or network"),
            (changed(SINK, own="journal"), "disk"),
            (changed(SINK, scanned_per_s=5000), "parsing"),
            (changed(SINK, own="reading files"), "parsing"),
            (changed(SINK, busy=0.95), "cpu"),
            (changed(SINK, client_cores=0.95), "cpu"),
            (changed(SINK, client_cores=0.95, busy=None), "cpu"),
            (changed(SINK, own="cpu"), "cpu"),
            (changed(SINK, own="grouping"), "cpu"),
            (changed(SINK, sink_cores=0.95), "server"),
            (changed(SINK, latency_ms=100.0), "server"),
            (SINK, "server or network"),
            (changed(SINK, own="listing directories"), "none"),
            (STORE, "server or network"),
            (changed(STORE, own="cpu", busy=0.99), "server or network"),
            (changed(STORE, read=Rate(300, 30)), "disk"),
            (changed(STORE, sent=Rate(3900, 390), busy=0.99), "cpu"),
            (changed(STORE, sent=Rate(3900, 390), own="reading files"), "parsing"),
        ],
    )
    def test_is_what_is_slowest(self, seen: Evidence, kind: str) -> None:
        verdict = verdict_of(seen)
        assert verdict.kind == kind
        assert str(seen.sent) in verdict.sentence
        assert verdict.sentence.count("bottleneck") == 1
        assert verdict.sentence.endswith(".")

    def test_compares_a_store_with_this_machine(self) -> None:
        assert verdict_of(STORE).sentence == (
            "The store, or the network to it, is the bottleneck: it took 310 instances/s (31 MB/s) "
            "at best, and this machine sends 4,100 instances/s (410 MB/s) to a server that stores "
            "nothing; the run waited for it for 30% of the time or more; of 2 cores the client used "
            "0.2."
        )
        quiet = verdict_of(changed(STORE, own="cpu", client_cores=None)).sentence
        assert quiet.endswith("to a server that stores nothing.")

    def test_says_what_the_disk_and_the_parsing_gave(self) -> None:
        slow = verdict_of(changed(SINK, read=Rate(95, 9.5)))
        assert "95 instances/s (9.5 MB/s)" in slow.sentence
        assert "parses 5,000 instances/s from memory" in (
            verdict_of(changed(SINK, scanned_per_s=5000)).sentence
        )

    def test_says_how_busy_the_machine_was(self) -> None:
        sentence = verdict_of(changed(SINK, busy=0.97)).sentence
        assert "busy for 97%; of 2 cores the client used 0.6 and the server 0.3;" in sentence

    def test_claims_nothing_of_the_client_s_cpu_where_it_is_not_known(self) -> None:
        for own in ("cpu", "server or network", "listing directories"):
            assert "core" not in verdict_of(changed(SINK, own=own, client_cores=None)).sentence
