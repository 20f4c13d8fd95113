"""What is measured against what, and the value that is wanted: data.

A row's subject and its rival are measured in one run, turn by turn with everything else of the
row's group. Scales make a run so long that the start of the interpreter is under 5 % of it, and
leave a group room in a page cache of 20 GB; curl's bodies are those of the tier as it is, sent so
many times over.
"""

from functools import partial
from typing import Final

from benchmarks.entries import Entry, Row
from benchmarks.rivals import BARE, BARE_NONE, BARE_PLAIN, Curl, DicomwebClient
from benchmarks.subjects import (
    PLAIN,
    PLAIN_NONE,
    PLAIN_RESUMED,
    SCAN,
    SLOW_SYNC,
    TLS,
    TLS_LITERAL,
    TLS_LITERAL_HALVES,
    TLS_LITERAL_NONE,
    TLS_SHA256_NONE,
    Subject,
)
from benchmarks.tiers import TIERS

SCALES: Final = {
    "ct": 10,
    "archive": 6,
    "scattered": 4,
    "small": 7,
    "cr": 8,
    "huge": 1,
    "million": 1,
}
MAX_RPS: Final = 20.0
LATENCY_MS: Final = 100.0
RSS_MIB: Final = 256.0


class Rows:
    """All rows, at some scale.

    Args:
        scale: of every tier, in place of `SCALES`.
        dicomweb_client_python: a Python that has dicomweb-client; None where its rows are not run.
    """

    def __init__(
        self, scale: float | None = None, dicomweb_client_python: str | None = None
    ) -> None:
        self._scales = {name: scale or factor for name, factor in SCALES.items()}
        self._rival = DicomwebClient(
            "dicomweb-client", tls=True, python=dicomweb_client_python or ""
        )

    def all(self) -> list[Row]:
        """In the order of the table."""
        return [*self._ct(), *self._archive(), *self._small(), *self._single(), *self._million()]

    def _entry(self, subject: Subject, tier: str) -> Entry:
        return Entry(subject, TIERS[tier].scaled(self._scales[tier]))

    def _against(
        self,
        tier: str,
        figure: str,
        name: str,
        says: str,
        subject: Subject,
        rival: Entry | None,
        target: float | None = None,
    ) -> Row:
        """A subject on its tier, in the group of the tier."""
        return Row(name, tier, says, figure, self._entry(subject, tier), rival, target)

    def _curl(self, tier: str, *, tls: bool = True, instances: int | None = None) -> Entry:
        rounds = max(1, round(self._scales[tier]))
        name = "curl-tls" if tls else "curl"
        corpus = TIERS[tier].scaled(self._scales[tier] / rounds)
        if instances is None:
            return Entry(Curl(name, tls, rounds=rounds), corpus)
        return Entry(
            Curl(f"{name}-{instances}", tls, max_instances=instances, rounds=rounds), corpus
        )

    def _ct(self) -> list[Row]:
        curl, curl_plain = self._curl("ct"), self._curl("ct", tls=False)
        to_curl = "curl, 32 MiB bodies"
        row = partial(self._against, "ct", "mb_per_s")
        return [
            row(
                "ct-tls-literal-none",
                f"TLS, signed `literal`, `--checksums none`; {to_curl}",
                TLS_LITERAL_NONE,
                curl,
                0.8,
            ),
            row("ct-tls-literal", f"TLS, signed `literal`; {to_curl}", TLS_LITERAL, curl, 0.6),
            row(
                "ct-tls-sha256-none",
                f"TLS, signed `sha256`, `--checksums none`; {to_curl}",
                TLS_SHA256_NONE,
                curl,
                0.6,
            ),
            row(
                "ct-bare-none", f"TLS, the bare sender without digests; {to_curl}", BARE_NONE, curl
            ),
            row("ct-bare", f"TLS, the bare sender; {to_curl}", BARE, curl),
            row("ct-plain", f"HTTP; {to_curl}", PLAIN, curl_plain, 0.75),
            row("ct-plain-none", f"HTTP, `--checksums none`; {to_curl}", PLAIN_NONE, curl_plain),
            row("ct-plain-bare", f"HTTP, the bare sender; {to_curl}", BARE_PLAIN, curl_plain),
            row(
                "ct-dicomweb-client",
                "TLS, signed `literal`; dicomweb-client, 8 processes",
                TLS_LITERAL,
                self._entry(self._rival, "ct"),
                6.0,
            ),
            _rss("ct", self._entry(TLS_LITERAL, "ct")),
        ]

    def _archive(self) -> list[Row]:
        signed, plain = self._entry(TLS_LITERAL, "archive"), self._entry(PLAIN, "archive")
        curl = self._curl("archive", instances=100)
        to_curl = "curl, bodies of 100 instances"
        row = partial(self._against, "archive", "instances_per_s")
        return [
            row("archive-tls-literal", f"TLS, signed `literal`; {to_curl}", TLS_LITERAL, curl, 0.6),
            row("archive-bare", f"TLS, the bare sender; {to_curl}", BARE, curl),
            row("archive-halves", f"two runs, each with half; {to_curl}", TLS_LITERAL_HALVES, curl),
            row(
                "archive-dicomweb-client",
                "TLS, signed `literal`; dicomweb-client, 8 processes",
                TLS_LITERAL,
                self._entry(self._rival, "archive"),
                6.0,
            ),
            Row(
                "scattered",
                "scattered",
                "every study in all directories; one study a directory",
                "instances_per_s",
                self._entry(TLS_LITERAL, "scattered"),
                Entry(TLS_LITERAL, TIERS["archive"].scaled(self._scales["scattered"])),
                0.7,
            ),
            Row(
                "latency",
                "archive",
                "the sink answers after 100 ms; after 0 ms",
                "instances_per_s",
                Entry(PLAIN, plain.corpus, latency_ms=LATENCY_MS),
                plain,
                0.85,
            ),
            row(
                "slow-sync",
                "each fsync takes 20 ms more; the disk as it is",
                SLOW_SYNC,
                plain,
                0.95,
            ),
            row("scan", "walk, reading, parsing and digests alone", SCAN, None, 15_000),
            _rss("archive", signed),
        ]

    def _small(self) -> list[Row]:
        limited = Entry(PLAIN, self._entry(PLAIN, "small").corpus, max_rps=MAX_RPS)
        curl = self._curl("small", instances=100)
        to_curl = "curl, bodies of 100 instances"
        row = partial(self._against, "small", "instances_per_s")
        return [
            row("small-tls-literal", f"TLS, signed `literal`; {to_curl}", TLS_LITERAL, curl, 0.35),
            row("small-bare", f"TLS, the bare sender; {to_curl}", BARE, curl),
            row("small-halves", f"two runs, each with half; {to_curl}", TLS_LITERAL_HALVES, curl),
            Row(
                "limit-used",
                "small",
                "the sink allows 20 requests/s: share used",
                "allowance_used",
                limited,
                target=0.97,
            ),
            Row(
                "limit-wasted",
                "small",
                "the same: share of bytes sent for nothing",
                "wasted_share",
                limited,
                target=0.03,
                at_most=True,
            ),
        ]

    def _single(self) -> list[Row]:
        curl = self._curl("cr")
        to_curl = "curl, bodies of one instance"
        row = partial(self._against, "cr", "mb_per_s")
        return [
            row("cr-tls-literal", f"TLS, signed `literal`; {to_curl}", TLS_LITERAL, curl, 0.7),
            row("cr-bare", f"TLS, the bare sender; {to_curl}", BARE, curl),
            row("cr-halves", f"two runs, each with half; {to_curl}", TLS_LITERAL_HALVES, curl),
            _rss("huge", self._entry(TLS, "huge")),
        ]

    def _million(self) -> list[Row]:
        million = self._entry(TLS, "million")
        part = Entry(TLS, TIERS["million"].scaled(self._scales["million"] / 100))
        return [
            Row(
                "million-cpu",
                "million",
                "CPU a file, start deducted; a corpus of a hundredth",
                "cpu_us_per_file",
                million,
                part,
                1.1,
                at_most=True,
            ),
            _rss("million", million),
            Row(
                "million-resumed",
                "resumed",
                "the same command again, with nothing left to do",
                "instances_per_s",
                self._entry(PLAIN_RESUMED, "million"),
                target=50_000,
            ),
        ]


def _rss(tier: str, entry: Entry) -> Row:
    return Row(
        f"{tier}-rss",
        tier,
        "peak resident memory, MiB",
        "peak_rss_mib",
        entry,
        target=RSS_MIB,
        at_most=True,
    )
