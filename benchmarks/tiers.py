"""The corpora that are measured: data."""

from dataclasses import replace
from typing import Final

from ingester.bench.corpora import Corpus

ARCHIVE: Final = Corpus("archive", files=20_000, size=100_000, studies=50)
TIERS: Final = {
    corpus.name: corpus
    for corpus in (
        # 512 x 512 x 16 bit and 1 KiB of header: a CT slice.
        Corpus("ct", files=2048, size=512 * 1024 + 1024, studies=16),
        # Per-file cost decides in real archives, whose mean file is near 100 KB.
        ARCHIVE,
        Corpus("small", files=20_000, size=32 * 1024, studies=50),
        Corpus("cr", files=200, size=6_000_000, studies=200),
        Corpus("huge", files=1, size=4 * 1024**3, studies=1, frames=256),
        Corpus("million", files=1_000_000, size=1024, studies=1000),
        replace(ARCHIVE, name="scattered", scattered=True),
    )
}
