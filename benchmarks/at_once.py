"""Runs commands at the same time, and adds up what they say they did.

Takes: commands, each a JSON list; each prints a JSON object with `files` and `outcomes`.
Gives: such an object, on stdout, and the status of the first that did not end with 0.
"""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """Run what the command line has."""
    files, outcomes, status = 0, Counter[str](), 0
    started = [subprocess.Popen(json.loads(each), stdout=subprocess.PIPE) for each in arguments]
    for process in started:
        stdout, _ = process.communicate()
        status = status or process.returncode
        if process.returncode == 0:
            summary = json.loads(stdout)
            files += summary["files"]
            outcomes.update(summary["outcomes"])
    print(json.dumps({"files": files, "outcomes": outcomes}))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
