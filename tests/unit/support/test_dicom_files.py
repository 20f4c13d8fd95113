"""The files that tests ingest are what their makers say: pydicom is the judge."""

import hashlib
from io import BytesIO
from pathlib import Path

import pydicom
import pytest

from tests.support.dicom_files import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    JPEG_2000_LOSSLESS,
    instance_bytes,
    make_uid,
    pydicom_test_files,
    write_corpus,
    write_study,
)
from tests.support.stow import read_instance

TRANSFER_SYNTAXES = [
    IMPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    JPEG_2000_LOSSLESS,
]


@pytest.mark.parametrize("transfer_syntax", TRANSFER_SYNTAXES)
@pytest.mark.parametrize("payload_bytes", [0, 1, 5000])
def test_an_instance_reads_as_it_was_asked_for(transfer_syntax: str, payload_bytes: int) -> None:
    data = instance_bytes(
        study="2.25.1",
        series="2.25.2",
        sop="2.25.33",
        patient_id="P7",
        modality="MR",
        payload_bytes=payload_bytes,
        transfer_syntax=transfer_syntax,
    )
    dataset = pydicom.dcmread(BytesIO(data))
    assert dataset.file_meta.TransferSyntaxUID == transfer_syntax
    assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID == "2.25.33"
    assert (dataset.StudyInstanceUID, dataset.SeriesInstanceUID) == ("2.25.1", "2.25.2")
    assert (dataset.PatientID, dataset.Modality) == ("P7", "MR")
    assert read_instance(data)[1:] == (
        "2.25.33",
        "1.2.840.10008.5.1.4.1.1.2",
        "2.25.1",
        "2.25.2",
    )
    assert ("PixelData" in dataset) == (payload_bytes > 0)
    if payload_bytes and transfer_syntax != JPEG_2000_LOSSLESS:
        assert payload_bytes <= len(dataset.PixelData) == dataset.Rows * dataset.Columns * 2


def test_a_corpus_agrees_with_pydicom(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path, 3, 4, payload_bytes=300, seed=5, n_series=2)
    assert len(corpus) == len(corpus.sop_instance_uids) == 12
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(corpus.files)
    series = set()
    for path, file in corpus.files.items():
        data = path.read_bytes()
        dataset = pydicom.dcmread(path)
        assert (dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID) == (
            file.study,
            file.series,
            file.sop,
        )
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (file.sha256, file.size)
        series.add(file.series)
    assert len(series) == 6


def test_a_seed_gives_the_same_files_again_and_another_seed_others(tmp_path: Path) -> None:
    first = write_study(tmp_path / "a", 2, seed=1)
    again = write_study(tmp_path / "b", 2, seed=1)
    other = write_study(tmp_path / "c", 2, seed=2)
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    assert not {path.read_bytes() for path in first} & {path.read_bytes() for path in other}


def test_uids_are_valid() -> None:
    uids = {make_uid("a", number) for number in range(1000)}
    assert len(uids) == 1000
    assert all(pydicom.uid.UID(uid).is_valid for uid in uids)


def test_pydicoms_own_files_are_there() -> None:
    names = {path.name for path in pydicom_test_files()}
    assert {"CT_small.dcm", "MR_truncated.dcm", "DICOMDIR", "README.txt"} <= names


def test_every_file_can_be_asked_for_its_identity() -> None:
    """Broken ones give empty UIDs: the scripted server must not break over them."""
    by_name = {path.name: read_instance(path.read_bytes()) for path in pydicom_test_files()}
    assert by_name["CT_small.dcm"].sop == "1.3.6.1.4.1.5962.1.1.1.1.1.20040119072730.12322"
    assert by_name["README.txt"][1:] == ("", "", "", "")
