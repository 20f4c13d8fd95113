"""pydicom is imported when the first file needs it; others that need it meanwhile wait for that."""

from pathlib import Path

from tests.support.process import start_python
from tests.unit.dicom.part10 import deflated, identity, pixels

READ_WHILE_IT_IS_IMPORTED = """
import sys
import threading
from importlib.abc import MetaPathFinder
from pathlib import Path

from ingester.dicom import inspect_part10

data = Path(sys.argv[1]).read_bytes()
found, threads = [], []

def read():
    try:
        found.append(type(inspect_part10(data, len(data), lambda: None)).__name__)
    except BaseException as exc:
        found.append(repr(exc))

class OneMoreForEachModule(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        in_main = threading.current_thread() is threading.main_thread()
        if in_main and name.startswith("pydicom."):
            threads.append(threading.Thread(target=read))
            threads[-1].start()
            threads[-1].join(0.01)

sys.meta_path.insert(0, OneMoreForEachModule())
read()
for thread in threads:
    thread.join()
print(len(threads) > 10, set(found))
"""


class TestFilesThatNeedPydicomAtOnce:
    def test_are_all_read_although_one_of_them_imports_it(self, tmp_path: Path) -> None:
        (tmp_path / "deflated.dcm").write_bytes(deflated(identity() + pixels()))
        with start_python("-c", READ_WHILE_IT_IS_IMPORTED, tmp_path / "deflated.dcm") as process:
            completed = process.wait()
        assert (completed.stdout, completed.stderr) == ("True {'Header'}\n", "")
