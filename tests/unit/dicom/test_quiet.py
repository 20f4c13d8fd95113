"""Reading hostile files neither warns, nor logs, nor keeps others from warning."""

import logging
import threading
import warnings

import pytest

from ingester.dicom import Header, inspect_part10
from ingester.dicom.quiet import quiet
from tests.unit.dicom.part10 import (
    EXPLICIT,
    IMPLICIT,
    element,
    group_2,
    identity,
    no_file,
    part10,
    pixels,
)

# pydicom warns of both: another VR than declared, and an unknown character set.
COMPLAINED_OF = (
    part10(identity(explicit=False) + pixels(explicit=False), group_2(EXPLICIT)),
    part10(identity() + pixels(), group_2(IMPLICIT)),
    part10(element(0x00080005, "CS", "NO SUCH SET") + identity() + pixels(), group_2("1.2.3")),
)


class TestWarningsOfPydicom:
    @pytest.mark.parametrize("data", COMPLAINED_OF)
    def test_do_not_leak_even_where_warnings_are_errors(self, data: bytes) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert isinstance(inspect_part10(data, len(data), no_file), Header)

    @pytest.mark.parametrize("data", COMPLAINED_OF)
    def test_are_not_recorded(self, data: bytes) -> None:
        with warnings.catch_warnings(record=True) as recorded:
            warnings.simplefilter("always")
            inspect_part10(data, len(data), no_file)
        assert recorded == []

    @pytest.mark.parametrize("data", COMPLAINED_OF)
    def test_are_not_logged(self, data: bytes, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.DEBUG, logger="pydicom"):
            inspect_part10(data, len(data), no_file)
        assert caplog.records == []

    def test_do_not_leak_from_threads_that_read_at_once(self) -> None:
        failures: list[object] = []

        def read() -> None:
            for data in COMPLAINED_OF * 20:
                found = inspect_part10(data, len(data), no_file)
                if not isinstance(found, Header):
                    failures.append(found)

        with warnings.catch_warnings(record=True) as recorded:
            warnings.simplefilter("always")
            threads = [threading.Thread(target=read) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert failures == []
        assert recorded == []


class TestWarningsOfOthers:
    def test_are_as_they_were_before_and_after(self) -> None:
        with quiet():
            pass
        with pytest.warns(UserWarning, match="of another library"):
            warnings.warn("of another library", UserWarning, stacklevel=1)

    def test_are_heard_while_another_thread_is_quiet(self) -> None:
        is_quiet, may_end = threading.Event(), threading.Event()

        def hold() -> None:
            with quiet():
                is_quiet.set()
                may_end.wait(60)

        with warnings.catch_warnings(record=True) as recorded:
            warnings.simplefilter("always")
            thread = threading.Thread(target=hold)
            thread.start()
            is_quiet.wait(60)
            warnings.warn("meanwhile", UserWarning, stacklevel=1)
            may_end.set()
            thread.join()
        assert [str(warning.message) for warning in recorded] == ["meanwhile"]

    def test_become_errors_again_where_that_was_asked_for(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with quiet():
                warnings.warn("unheard", UserWarning, stacklevel=1)
            with pytest.raises(UserWarning):
                warnings.warn("heard", UserWarning, stacklevel=1)

    def test_do_not_pile_up_filters(self) -> None:
        with warnings.catch_warnings():
            with quiet():
                once = len(warnings.filters)
            for _ in range(5):
                with quiet():
                    pass
            assert len(warnings.filters) == once

    def test_pydicoms_log_is_heard_outside(self, caplog: pytest.LogCaptureFixture) -> None:
        with quiet():
            logging.getLogger("pydicom").warning("unheard")
        logging.getLogger("pydicom").warning("heard")
        assert caplog.messages == ["heard"]
