"""A data store in a region, as a configuration: nothing of AWS is reached here."""

from __future__ import annotations

import pytest

from ingester.config import load_config
from ingester.errors import UsageError

DATASTORE = "0123456789abcdef0123456789abcdef"
THERE = {"datastore": DATASTORE, "region": "eu-west-2"}


class TestADataStoreInARegion:
    def test_is_healthimaging_signed_as_its_documentation_does(self) -> None:
        config = load_config(THERE, {})
        assert config.url == (
            f"https://dicom-medical-imaging.eu-west-2.amazonaws.com/datastore/{DATASTORE}"
        )
        assert (config.server, config.auth, config.payload_signing) == (
            "healthimaging", "sigv4", "literal",
        )  # fmt: skip
        assert config.signing_service == "medical-imaging"
        assert config.operation == "StoreDICOM"
        assert config.server_profile.quoted_boundary
        assert config.max_batch_bytes < 1_000_000_000

    def test_says_where_each_value_came_from(self) -> None:
        origins = load_config(THERE, {}).origins
        assert origins["url"] == "flag --datastore and flag --region"
        assert origins["server"] == origins["auth"] == "default with --datastore"
        assert origins["payload_signing"] == "default"

    @pytest.mark.parametrize("mode", ["literal", "sha256", "unsigned", "aws-chunked"])
    def test_takes_each_payload_mode(self, mode: str) -> None:
        assert load_config({**THERE, "payload_signing": mode}, {}).payload_signing == mode

    def test_may_be_asked_for_by_environment_alone(self) -> None:
        environment = {"INGESTER_DATASTORE": DATASTORE, "INGESTER_REGION": "us-west-2"}
        config = load_config({}, environment)
        assert "us-west-2" in config.url
        assert config.origins["url"] == (
            "environment INGESTER_DATASTORE and environment INGESTER_REGION"
        )


class TestTheRegion:
    def test_comes_from_aws_region(self) -> None:
        environment = {"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "us-east-1"}
        config = load_config({"datastore": DATASTORE}, environment)
        assert config.region == "eu-west-1"
        assert config.origins["region"] == "environment AWS_REGION"

    def test_or_from_aws_default_region(self) -> None:
        config = load_config({"datastore": DATASTORE}, {"AWS_DEFAULT_REGION": "us-east-1"})
        assert config.url.startswith("https://dicom-medical-imaging.us-east-1.")
        assert config.origins["region"] == "environment AWS_DEFAULT_REGION"

    def test_of_the_flag_wins(self) -> None:
        assert load_config(THERE, {"AWS_REGION": "us-east-1"}).region == "eu-west-2"

    def test_is_not_looked_for_where_nothing_is_signed(self) -> None:
        assert load_config({"url": "https://pacs.example"}, {"AWS_REGION": "x"}).region is None

    def test_of_a_url_with_sigv4_comes_from_there_too(self) -> None:
        flags = {"url": "https://pacs.example/dicom", "auth": "sigv4"}
        assert load_config(flags, {"AWS_REGION": "eu-west-1"}).region == "eu-west-1"


class TestWhatCannotBe:
    @pytest.mark.parametrize(
        ("flags", "words"),
        [
            ({**THERE, "url": "https://pacs.example"}, "two targets"),
            ({**THERE, "datastore": DATASTORE.upper()}, "32 of"),
            ({**THERE, "datastore": DATASTORE[1:]}, "32 of"),
            ({**THERE, "datastore": "../" + DATASTORE[3:]}, "32 of"),
            ({"datastore": DATASTORE}, "needs its region"),
            ({**THERE, "region": "eu-west-2.evil.example/"}, "not an AWS region"),
            ({**THERE, "region": "EU-WEST-2"}, "not an AWS region"),
            ({**THERE, "region": "us-gov-west-1"}, "host name .* us-gov-west-1 is not documented"),
            ({**THERE, "region": "cn-north-1"}, "host name .* cn-north-1 is not documented"),
            ({**THERE, "payload_signing": "none"}, "payload_signing|payload-signing"),
            ({"url": "https://pacs.example", "auth": "sigv4"}, "needs a region"),
        ],
    )
    def test_is_wrong_use(self, flags: dict[str, object], words: str) -> None:
        with pytest.raises(UsageError, match=words):
            load_config(flags, {})


class TestTheVariablesOfTheTests:
    @pytest.mark.parametrize(
        "variable", ["INGESTER_REQUIRE_VERIFIER", "INGESTER_VERIFIER_DIR", "INGESTER_ROTATION_S"]
    )
    def test_are_no_options_and_no_mistake(self, variable: str) -> None:
        assert load_config(THERE, {variable: "1"}) == load_config(THERE, {})


class TestTheCertificateAuthorities:
    def test_of_openssl_is_taken_where_aws_has_none(self) -> None:
        config = load_config(THERE, {"SSL_CERT_FILE": "system.pem"})
        assert config.ca_bundle == "system.pem"
        assert config.origins["ca_bundle"] == "environment SSL_CERT_FILE"

    def test_come_from_aws_ca_bundle(self) -> None:
        config = load_config(THERE, {"AWS_CA_BUNDLE": "corporate.pem"})
        assert config.ca_bundle == "corporate.pem"
        assert config.origins["ca_bundle"] == "environment AWS_CA_BUNDLE"

    def test_of_the_flag_win(self) -> None:
        config = load_config({**THERE, "ca_bundle": "mine.pem"}, {"AWS_CA_BUNDLE": "x.pem"})
        assert config.ca_bundle == "mine.pem"
        assert config.origins["ca_bundle"] == "flag --ca-bundle"
