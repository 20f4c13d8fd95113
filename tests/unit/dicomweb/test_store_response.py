from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingester.dicomweb.store_response import (
    Refused,
    Stored,
    StoreResponse,
    Unconfirmed,
    Verdict,
    parse_store_response,
    reconcile,
)

STORED_TAG, FAILED_TAG, OTHER_TAG = "00081199", "00081198", "0008119A"


def item(uid: object = "1.2", **more: object) -> dict[str, object]:
    """An item of 1199 or 1198, with more elements by tag."""
    elements: dict[str, object] = {"00081155": {"vr": "UI", "Value": [uid]}}
    for tag, value in more.items():
        elements[tag.removeprefix("t")] = {"vr": "US", "Value": [value]}
    return elements


def answer(stored: object = None, failed: object = None, other: object = None) -> bytes:
    document: dict[str, object] = {"00081190": {"vr": "UR", "Value": ["http://store/studies/1"]}}
    for tag, items in ((STORED_TAG, stored), (FAILED_TAG, failed), (OTHER_TAG, other)):
        if items is not None:
            document[tag] = {"vr": "SQ", "Value": items}
    return json.dumps(document).encode()


def parsed(body: bytes) -> StoreResponse:
    response = parse_store_response(body)
    assert response is not None
    return response


class TestRealServers:
    """A row of the table of servers that were seen running, each."""

    def test_orthanc_says_1198_without_a_value(self) -> None:
        body = json.dumps(
            {STORED_TAG: {"vr": "SQ", "Value": [item("1"), item("2")]}, FAILED_TAG: {"vr": "SQ"}}
        )
        assert parsed(body.encode()) == StoreResponse({"1": None, "2": None}, {})

    def test_one_stored_and_one_failed_in_a_409(self) -> None:
        response = parsed(answer([item("1")], [item("2", t00081197=0x0110)]))
        assert response == StoreResponse({"1": None}, {"2": 0x0110})

    def test_the_good_one_stored_and_the_bad_one_in_no_list(self) -> None:
        verdicts, unknown = reconcile([("1", "1"), ("2", "2")], parsed(answer([item("1")], [])))
        assert verdicts == [Stored(None), Unconfirmed()]
        assert unknown == set()

    def test_a_failed_item_without_a_uid_names_nobody(self) -> None:
        response = parsed(answer([item("1")], [{"00081197": {"vr": "US", "Value": [0xC000]}}]))
        assert response == StoreResponse({"1": None}, {})

    @pytest.mark.parametrize(
        "body",
        [
            b'{"00081199":{"vr":"SQ"},"00081198":{"vr":"SQ"}}',
            b'{"00081199":{"vr":"SQ","Value":[]},"00081198":{"vr":"SQ","Value":[]}}',
            b'{"00081199":{}}',
            b'{"00081198":{"vr":"SQ","Value":null}}',
        ],
    )
    def test_a_200_with_both_lists_empty_confirms_nothing(self, body: bytes) -> None:
        response = parsed(body)
        assert response == StoreResponse({}, {})
        assert reconcile([("1", "")], response) == ([Unconfirmed()], set())

    def test_a_subset_with_no_failures_when_the_disk_is_full(self) -> None:
        sent = [(str(n), "") for n in range(5)]
        verdicts, _ = reconcile(sent, parsed(answer([item("0"), item("3")])))
        assert [isinstance(verdict, Stored) for verdict in verdicts] == [
            True,
            False,
            False,
            True,
            False,
        ]

    def test_aws_names_failures_under_0008_0018(self) -> None:
        body = answer(
            failed=[{"00080018": {"vr": "UI", "Value": ["1.5"]}, "00081197": {"Value": [272]}}]
        )
        assert parsed(body) == StoreResponse({}, {"1.5": 272})

    def test_failures_without_a_uid_are_counted_in_119a(self) -> None:
        assert parsed(answer(other=[{}, {}])) == StoreResponse({}, {})

    def test_a_thousand_files_in_one_answer(self) -> None:
        assert len(parsed(answer([item(f"1.{n}") for n in range(1000)])).stored) == 1000


class TestForms:
    def test_the_data_set_may_be_wrapped_in_a_list(self) -> None:
        assert parsed(b"[" + answer([item("1")]) + b"]").stored == {"1": None}

    def test_uids_lose_their_padding(self) -> None:
        assert parsed(answer([item("1.2\0"), item("1.3 ")])).stored == {"1.2": None, "1.3": None}

    @pytest.mark.parametrize("given_as", [45056, "45056"])
    def test_numbers_may_be_text(self, given_as: object) -> None:
        assert parsed(answer([item("1", t00081196=given_as)])).stored == {"1": 0xB000}

    @pytest.mark.parametrize(
        "value",
        ["", "0x0110", "²", "٣", "-1", "1.5", 1.5, None, [], {}, True, "9" * 5000, "9" * 40],
    )
    def test_what_is_no_code_is_no_reason(self, value: object) -> None:
        assert parsed(answer(failed=[item("1", t00081197=value)])).failed == {"1": None}

    @pytest.mark.parametrize("value", [-1, 65536, 10**30])
    def test_a_reason_is_16_bits(self, value: int) -> None:
        """(0008,1197) and (0008,1196) are US: PS3.5 6.2."""
        assert parsed(answer(failed=[item("1", t00081197=value)])).failed == {"1": None}

    @pytest.mark.parametrize("uid", [None, 5, ["1"], {}, ""])
    def test_a_uid_that_is_no_text_names_nobody(self, uid: object) -> None:
        assert parsed(answer([item(uid)])) == StoreResponse({}, {})

    def test_a_byte_order_mark_before_it_is_passed_over(self) -> None:
        assert parsed("\ufeff".encode() + answer([item("1.2")])).stored == {"1.2": None}

    def test_a_warning_stays_with_a_uid_that_is_named_once_more(self) -> None:
        named = [item("1.2", t00081196=0xB110), item("1.2")]
        assert parsed(answer(named)).stored == {"1.2": 0xB110}

    def test_items_that_are_no_objects_are_passed_over(self) -> None:
        assert parsed(answer([None, "x", 5, [], item("1")])).stored == {"1": None}

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b" ",
            b"null",
            b"{}",
            b"[]",
            b"[{},{}]",
            b'"stored"',
            b'{"message":"not authorized"}',
            b"<html>413</html>",
            b'{"00081199":{"vr":"SQ","Value":[{"00081155":{"Val',
            b'{"00081199":{"vr":"SQ"}} trailing',
            b'\xff\xfe{"00081199":{}}',
            b'{"00081199":{"vr":"\xff"}}',
            b'{"00081199":' + b"[" * 200_000,
            b'{"00081199":' + b'{"Value":[' * 100_000,
            b"[" * 5000 + b"]" * 5000,
        ],
        ids=range(16),
    )
    def test_what_is_no_manifest_is_none(self, body: bytes) -> None:
        assert parse_store_response(body) is None

    @given(st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([STORED_TAG, FAILED_TAG, OTHER_TAG, "00081155", "00081197", "00081196", "00080018", "Value", "vr"]), inner, max_size=4),
        max_leaves=25,
    ))  # fmt: skip
    def test_no_json_is_a_crash(self, document: object) -> None:
        response = parse_store_response(json.dumps(document).encode())
        if response is not None:
            reconcile([("1", "2")], response)

    @given(st.binary(max_size=60))
    def test_no_bytes_are_a_crash(self, body: bytes) -> None:
        parse_store_response(body)


class TestReconcile:
    def test_an_instance_in_both_lists_is_refused(self) -> None:
        response = parsed(answer([item("1")], [item("1", t00081197=0xC000)]))
        assert reconcile([("1", "1")], response)[0] == [Refused(0xC000)]

    def test_a_uid_that_is_named_twice_is_stored_once(self) -> None:
        response = parsed(answer([item("1"), item("1", t00081196=0xB000)]))
        assert reconcile([("1", "")], response)[0] == [Stored(0xB000)]

    def test_uids_that_were_never_sent_are_told(self) -> None:
        response = parsed(answer([item("1"), item("9")], [item("8")]))
        assert reconcile([("1", "")], response) == ([Stored(None)], {"8", "9"})

    def test_a_meta_uid_that_differs_counts_as_well(self) -> None:
        response = parsed(answer([item("1.meta")]))
        assert reconcile([("1", "1.meta")], response) == ([Stored(None)], set())

    def test_an_empty_uid_is_nobodys(self) -> None:
        assert reconcile([("1", "")], StoreResponse({"": None}, {}))[0] == [Unconfirmed()]

    def test_a_neighbours_uid_in_the_meta_group_confirms_nothing(self) -> None:
        """A derived image that kept its original's meta group, next to that original."""
        original, derived = ("1", "1"), ("2", "1")
        response = parsed(answer([item("1")]))
        assert reconcile([derived, original], response)[0] == [Unconfirmed(), Stored(None)]

    def test_a_neighbours_uid_in_the_meta_group_refuses_nothing(self) -> None:
        original, derived = ("1", "1"), ("2", "1")
        response = parsed(answer([item("2")], [item("1", t00081197=0xC000)]))
        assert reconcile([derived, original], response)[0] == [Stored(None), Refused(0xC000)]

    def test_a_meta_uid_of_two_files_confirms_neither(self) -> None:
        response = parsed(answer([item("9")]))
        verdicts, unknown = reconcile([("1", "9"), ("2", "9")], response)
        assert verdicts == [Unconfirmed(), Unconfirmed()]
        assert unknown == set()

    @given(
        st.lists(st.tuples(st.sampled_from("1234"), st.sampled_from(["", *"1234567"])), unique_by=lambda uids: uids[0]),
        st.dictionaries(st.sampled_from("12345678"), st.none() | st.just(5)),
        st.dictionaries(st.sampled_from("12345678"), st.none() | st.just(7)),
    )  # fmt: skip
    def test_one_word_of_the_server_confirms_one_file(
        self,
        sent: list[tuple[str, str]],
        stored: dict[str, int | None],
        failed: dict[str, int | None],
    ) -> None:
        verdicts, unknown = reconcile(sent, StoreResponse(stored, failed))
        assert len(verdicts) == len(sent)
        confirmed = [
            uids for uids, verdict in zip(sent, verdicts, strict=True) if type(verdict) is Stored
        ]
        assert len(confirmed) <= len(stored)
        for uids in confirmed:
            assert uids[0] not in failed
            assert set(uids) & stored.keys()
        assert unknown == (stored.keys() | failed.keys()) - {uid for uids in sent for uid in uids}

    def test_gives_a_verdict_a_file_in_their_order(self) -> None:
        sent = [("1", ""), ("2", ""), ("3", "")]
        verdicts: list[Verdict] = reconcile(sent, StoreResponse({"3": 5}, {"1": 7}))[0]
        assert verdicts == [Refused(7), Unconfirmed(), Stored(5)]
