"""Writes the files of the tiers, unless they are there."""

import argparse
import json

from benchmarks.tiers import TIERS
from ingester.bench.corpus_files import make, record_of


def main() -> None:
    """Makes the corpora of tiers and prints where they are, a JSON line each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.corpus_files", description=__doc__)
    parser.add_argument("directory")
    parser.add_argument("--tier", action="append", choices=sorted(TIERS), help="default: all")
    parser.add_argument("--scale", type=float, default=1.0, help="of the files and studies")
    options = parser.parse_args()
    for name in dict.fromkeys(options.tier or TIERS):
        corpus = TIERS[name].scaled(options.scale)
        made = {"path": make(corpus, options.directory), **record_of(corpus)}
        print(json.dumps(made), flush=True)


if __name__ == "__main__":
    main()
