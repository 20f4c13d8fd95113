"""Outcomes, profiles and look-ups: small tables, each with its rules."""

from __future__ import annotations

import json

import pytest
from yarl import URL

from ingester.dicomweb.outcome import (
    HOLDS_ITS_CLAIM,
    IN_THE_STORE,
    INCOMPLETE,
    PIXEL_WARNINGS,
    SETTLED,
    Evidence,
    Outcome,
)
from ingester.dicomweb.profiles import (
    GENERIC,
    HEALTHIMAGING,
    ORTHANC,
    PROFILES,
    SecondCopy,
    ServerProfile,
    conflict_words,
    disposition_of,
)
from ingester.dicomweb.qido import instance_query, sop_instance_uids, study_query


class TestOutcomes:
    def test_have_the_names_of_the_contract(self) -> None:
        assert " ".join(Outcome) == (
            "stored stored_with_warning already_stored duplicate conflict held rejected failed"
            " in_doubt invalid not_dicom too_large unreadable skipped pending"
        )

    def test_evidence_has_the_names_of_the_contract(self) -> None:
        assert list(Evidence) == ["manifest", "qido", "bytes"]

    def test_are_settled_or_sent_again(self) -> None:
        assert set(Outcome) - SETTLED == {
            Outcome.FAILED,
            Outcome.IN_DOUBT,
            Outcome.UNREADABLE,
            Outcome.PENDING,
        }

    def test_in_the_store_is_settled_and_holds_its_claim(self) -> None:
        assert IN_THE_STORE < SETTLED
        assert IN_THE_STORE | {Outcome.IN_DOUBT} == HOLDS_ITS_CLAIM

    def test_in_the_store_is_never_incomplete(self) -> None:
        assert IN_THE_STORE.isdisjoint(INCOMPLETE)

    def test_that_do_not_count_against_a_run(self) -> None:
        """Pending has its own exit code: 1, a signal or a limit."""
        assert set(Outcome) - INCOMPLETE - IN_THE_STORE == {
            Outcome.NOT_DICOM,
            Outcome.DUPLICATE,
            Outcome.SKIPPED,
            Outcome.PENDING,
        }

    def test_pixel_warnings_are_those_of_the_contract(self) -> None:
        """B201, B202 and BFFF, in AWS's decimals too, say nothing of the pixels."""
        assert {0xB100, 0xB110, 0xB111, 0xB112, 0xB120} == PIXEL_WARNINGS


AZURE = ServerProfile(
    "azure", 1, 1, 1, 1.0,
    max_body_bytes=4_000_000_000,
    already_stored=frozenset({45070}),
    retry_later=frozenset({45071}),
    identity=("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"),
    second_copy=SecondCopy.REFUSES,
    ask_on_doubt=True,
)  # fmt: skip
"""One that is not there yet: the shape must hold it."""


class TestProfiles:
    @pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
    def test_are_found_by_their_name(self, profile: ServerProfile) -> None:
        assert PROFILES[profile.name] is profile
        assert profile.max_batch_bytes > 0 < profile.max_batch_instances
        assert profile.max_concurrency > 0 < profile.keep_alive_s

    def test_orthanc_is_left_before_it_drops_an_idle_connection(self) -> None:
        assert ORTHANC.keep_alive_s < 1

    def test_healthimaging_is_given_less_than_a_gigabyte(self) -> None:
        assert HEALTHIMAGING.max_body_bytes is not None
        assert HEALTHIMAGING.max_body_bytes < 1_000_000_000
        assert HEALTHIMAGING.single_part
        assert HEALTHIMAGING.quoted_boundary

    @pytest.mark.parametrize(
        ("code", "disposition"),
        [
            (None, "alone_once"),
            (0x0110, "alone_once"),
            (0xA700, "retry_later"),
            (0xA7FF, "retry_later"),
            (0xA6FF, "rejected"),
            (0xA800, "rejected"),
            (0xA900, "rejected"),
            (0xC000, "rejected"),
            (0xC122, "rejected"),
            (0x0122, "rejected"),
            (45070, "rejected"),
        ],
    )
    def test_a_failure_reason_asks_for(self, code: int | None, disposition: str) -> None:
        assert disposition_of(GENERIC, code) == disposition

    @pytest.mark.parametrize(
        ("code", "disposition"),
        [(45070, "already_stored"), (45071, "retry_later"), (0xA701, "retry_later")],
    )
    def test_a_server_may_have_reasons_of_its_own(self, code: int, disposition: str) -> None:
        assert disposition_of(AZURE, code) == disposition

    @pytest.mark.parametrize(
        ("profile", "end"),
        [
            (GENERIC, "StudyInstanceUID, SOPInstanceUID generic keeps either"),
            (ORTHANC, "orthanc keeps the first and says that it has stored the second"),
            (HEALTHIMAGING, "healthimaging keeps the last, as a version more"),
            (AZURE, "azure keeps the first and refuses the second"),
        ],
        ids=lambda value: getattr(value, "name", ""),
    )
    def test_say_which_of_two_files_the_store_has(self, profile: ServerProfile, end: str) -> None:
        words = conflict_words(profile)
        assert words.endswith(end)
        start = f"another data set has these UIDs: of two files with the same {profile.identity[0]}"
        assert words.startswith(start)


class TestQido:
    def test_asks_for_one_instance_of_a_study(self) -> None:
        assert (
            instance_query("1.2", "1.2.3") == "/studies/1.2/instances?SOPInstanceUID=1.2.3&limit=1"
        )

    def test_asks_for_pages_of_a_study(self) -> None:
        assert study_query("1.2", 2000) == "/studies/1.2/instances?limit=1000&offset=2000"

    def test_quotes_what_a_broken_archive_calls_a_uid(self) -> None:
        url = URL("http://store" + instance_query("1/../2?x", "a&b=c#d"), encoded=True)
        assert url.raw_path == "/studies/1%2F..%2F2%3Fx/instances"
        assert dict(url.query) == {"SOPInstanceUID": "a&b=c#d", "limit": "1"}

    def test_finds_the_uids_of_an_answer(self) -> None:
        body = json.dumps(
            [{"00080018": {"vr": "UI", "Value": ["1.2 "]}}, {"00080018": {"Value": ["1.3\0"]}}]
        )
        assert sop_instance_uids(body.encode(), "1") == {"1.2", "1.3"}

    def test_leaves_out_what_is_of_another_study(self) -> None:
        items = [
            {"00080018": {"Value": [sop]}, "0020000D": {"Value": [study]}}
            for sop, study in (("1.2", "1\0"), ("1.3", "2"))
        ]
        assert sop_instance_uids(json.dumps(items).encode(), "1") == {"1.2"}

    @pytest.mark.parametrize(
        "body", [b"", b"  \r\n", b"[]", b"[{}, null, 5]", b'[{"00080018":{"Value":[null]}}]']
    )
    def test_may_find_none(self, body: bytes) -> None:
        assert sop_instance_uids(body, "1") == set()

    @pytest.mark.parametrize(
        "body", [b"{}", b"null", b"<html>", b"[", b"[" * 100_000, b"\xff", b'"1.2"']
    )
    def test_knows_an_answer_that_says_nothing(self, body: bytes) -> None:
        assert sop_instance_uids(body, "1") is None
