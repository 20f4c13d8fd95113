"""Stores a corpus with dicomweb-client, one study a request, in several processes.

Takes: the directory of the corpus's files (a directory a study), the URL of the store, the
authority to trust ("" for plain HTTP), and how many processes.
Gives: a JSON object with what was met and what the answers name as stored.

It is run by a Python that has dicomweb-client, and imports nothing else of this directory. Bodies
go out with a Content-Length (`chunk_size` above their size): the sink wants one, and chunks of 1 MB
only cost the client more.
"""

import json
import multiprocessing
import os
import sys

import pydicom
import requests  # type: ignore[import-untyped] # not installed with the project either
from dicomweb_client.api import (  # type: ignore[import-not-found] # not installed with the project
    DICOMwebClient,
)

_CHUNK_BYTES = 1 << 40
_TIMEOUT_S = 600


def store(job: tuple[str, str, str]) -> tuple[int, int]:
    """Stores the files of one directory; returns how many there were and how many are stored."""
    directory, url, ca = job
    session = requests.Session()
    session.trust_env = False
    session.verify = ca or True
    client = DICOMwebClient(url, session=session, chunk_size=_CHUNK_BYTES, timeout=_TIMEOUT_S)
    names = sorted(os.listdir(directory))
    datasets = [pydicom.dcmread(os.path.join(directory, name)) for name in names]
    answer = client.store_instances(datasets, str(datasets[0].StudyInstanceUID))
    return len(names), len(answer.ReferencedSOPSequence)


def main() -> None:
    """Stores all and prints what came of it."""
    files, url, ca, processes = sys.argv[1:5]
    jobs = [(os.path.join(files, name), url, ca) for name in sorted(os.listdir(files))]
    with multiprocessing.Pool(int(processes)) as pool:
        results = pool.map(store, jobs, chunksize=1)
        pool.close()
        pool.join()  # its processes are waited for: the kernel counts them with this one
    met, stored = (sum(counts) for counts in zip(*results, strict=True))
    print(json.dumps({"files": met, "outcomes": {"stored": stored}}))


if __name__ == "__main__":
    main()
