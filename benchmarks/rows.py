"""What is measured against what, and the value that is wanted: data.

A row's subject and its rival are measured in one run, turn by turn with everything else of the
row's group. Scales make a run so long that the start of the interpreter is under 5 % of it; curl's
bodies are those of the tier as it is, sent so many times over.
"""

from typing import Final

from benchmarks.entries import Entry, Row
from benchmarks.rivals import Curl, DicomwebClient
from benchmarks.subjects import (
    PLAIN,
    PLAIN_NONE,
    PLAIN_RESUMED,
    SCAN,
    SLOW_SYNC,
    TLS,
    TLS_LITERAL,
    TLS_LITERAL_NONE,
    TLS_SHA256_NONE,
    Subject,
)
from benchmarks.tiers import TIERS

SCALES: Final = {
    "ct": 10,
    "archive": 4,
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
        signed = self._entry(TLS_LITERAL, "ct")
        curl, curl_plain = self._curl("ct"), self._curl("ct", tls=False)
        rows = [
            (
                "tls-literal-none",
                self._entry(TLS_LITERAL_NONE, "ct"),
                curl,
                0.8,
                "TLS, signed `literal`, `--checksums none`; curl, 32 MiB bodies",
            ),
            ("tls-literal", signed, curl, 0.6, "TLS, signed `literal`; curl, 32 MiB bodies"),
            (
                "tls-sha256-none",
                self._entry(TLS_SHA256_NONE, "ct"),
                curl,
                0.6,
                "TLS, signed `sha256`, `--checksums none`; curl, 32 MiB bodies",
            ),
            ("plain", self._entry(PLAIN, "ct"), curl_plain, 0.75, "HTTP; curl, 32 MiB bodies"),
            (
                "plain-none",
                self._entry(PLAIN_NONE, "ct"),
                curl_plain,
                None,
                "HTTP, `--checksums none`; curl, 32 MiB bodies",
            ),
            (
                "dicomweb-client",
                signed,
                self._entry(self._rival, "ct"),
                6.0,
                "TLS, signed `literal`; dicomweb-client, 8 processes",
            ),
        ]
        return [
            Row(f"ct-{name}", "ct", says, "mb_per_s", subject, rival, target)
            for name, subject, rival, target, says in rows
        ] + [_rss("ct", signed)]

    def _archive(self) -> list[Row]:
        signed, plain = self._entry(TLS_LITERAL, "archive"), self._entry(PLAIN, "archive")
        slow = Entry(PLAIN, plain.corpus, latency_ms=LATENCY_MS)
        rows = [
            (
                "archive-tls-literal",
                signed,
                self._curl("archive", instances=100),
                0.6,
                "TLS, signed `literal`; curl, bodies of 100 instances",
            ),
            (
                "archive-dicomweb-client",
                signed,
                self._entry(self._rival, "archive"),
                6.0,
                "TLS, signed `literal`; dicomweb-client, 8 processes",
            ),
            (
                "scattered",
                self._entry(TLS_LITERAL, "scattered"),
                signed,
                0.7,
                "every study in all directories; one study a directory",
            ),
            ("latency", slow, plain, 0.85, "the sink answers after 100 ms; after 0 ms"),
            (
                "slow-sync",
                self._entry(SLOW_SYNC, "archive"),
                plain,
                0.95,
                "each fsync takes 20 ms more; the disk as it is",
            ),
        ]
        return [
            Row(name, "archive", says, "instances_per_s", subject, rival, target)
            for name, subject, rival, target, says in rows
        ] + [
            Row(
                "scan",
                "archive",
                "walk, reading, parsing and digests alone",
                "instances_per_s",
                self._entry(SCAN, "archive"),
                target=15_000,
            ),
            _rss("archive", signed),
        ]

    def _small(self) -> list[Row]:
        limited = Entry(PLAIN, self._entry(PLAIN, "small").corpus, max_rps=MAX_RPS)
        curl = self._curl("small", instances=100)
        return [
            Row(
                "small-tls-literal",
                "small",
                "TLS, signed `literal`; curl, bodies of 100 instances",
                "instances_per_s",
                self._entry(TLS_LITERAL, "small"),
                curl,
                0.35,
            ),
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
        return [
            Row(
                "cr-tls-literal",
                "cr",
                "TLS, signed `literal`; curl, bodies of one instance",
                "mb_per_s",
                self._entry(TLS_LITERAL, "cr"),
                self._curl("cr"),
                0.7,
            ),
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
