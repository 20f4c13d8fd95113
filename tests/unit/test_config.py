from __future__ import annotations

import dataclasses
import json
import pickle
import traceback
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingester.auth import Secret, basic_authorization, bearer_authorization
from ingester.config import Config, load_config, values_of
from ingester.dicomweb.outcome import SETTLED
from ingester.dicomweb.profiles import PROFILES
from ingester.errors import UsageError
from ingester.options import BY_NAME, OPTIONS
from ingester.parsing import parse
from ingester.target import normal_url

URL = "https://store.example/dicom"


def config(
    flags: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
    toml: Path | None = None,
) -> Config:
    given = {"url": URL} if flags is None else flags
    return load_config(given, environment or {}, None if toml is None else str(toml))


def refused(
    flags: Mapping[str, object] | None = None,
    environment: Mapping[str, str] | None = None,
    toml: Path | None = None,
) -> UsageError:
    with pytest.raises(UsageError) as caught:
        config(flags, environment, toml)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    return tmp_path / "ingester.toml"


class TestPrecedence:
    def test_is_flag_environment_file_default(self, toml: Path) -> None:
        toml.write_text(
            f'[target]\nurl = "{URL}"\n[scan]\nreaders = 7\n[group]\nbatch_age_s = 2\n[upload]\nmax_attempts = 9\n'
        )
        environment = {"INGESTER_BATCH_AGE_S": "3", "INGESTER_MAX_ATTEMPTS": "8", "PATH": "/bin"}
        found = config({"max_attempts": "4"}, environment, toml)
        assert (found.max_attempts, found.batch_age_s, found.readers, found.inline_limit) == (
            4,
            3.0,
            7,
            1 << 20,
        )
        assert found.origins["max_attempts"] == "flag --max-attempts"
        assert found.origins["batch_age_s"] == "environment INGESTER_BATCH_AGE_S"
        assert found.origins["readers"] == f"{toml}:4: scan.readers"
        assert found.origins["inline_limit"] == "default"

    def test_names_an_origin_for_every_value(self) -> None:
        found = config()
        assert list(found.origins) == [option.name for option in OPTIONS] == list(values_of(found))

    def test_of_what_is_not_given_is_the_servers_profile(self) -> None:
        found = config({"url": URL, "server": "healthimaging"})
        profile = PROFILES["healthimaging"]
        assert found.max_batch_instances == profile.max_batch_instances
        assert found.origins["max_batch_instances"] == "default of server healthimaging"
        assert found.server_profile is profile

    def test_keeps_a_whole_body_below_the_documented_limit(self) -> None:
        found = config(
            {
                "url": URL,
                "server": "healthimaging",
                "max_batch_bytes": "1GB",
                "max_batch_instances": "5000",
            }
        )
        assert found.max_batch_bytes + 256 * 5000 <= 999_999_999
        assert "lowered" in found.origins["max_batch_bytes"]

    @pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
    def test_a_flag_has_a_variable_and_a_key(self, option: object) -> None:
        assert option is BY_NAME[option.name]  # type: ignore[attr-defined]

    def test_reads_no_file_that_is_not_named(
        self, toml: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        toml.write_text("[scan]\nreaders = 9\n")
        monkeypatch.chdir(toml.parent)
        assert config().readers is None


class TestTheFile:
    def test_with_an_unknown_key_is_refused_with_its_line_and_a_suggestion(
        self, toml: Path
    ) -> None:
        toml.write_text("# a comment\n[scan]\n\nreader = 4\n")
        error = refused(toml=toml)
        assert str(error) == f"{toml}:4: scan.reader: no such option"
        assert error.hint == "did you mean scan.readers?"

    def test_with_a_key_in_the_wrong_section_names_the_right_one_and_the_line(
        self, toml: Path
    ) -> None:
        toml.write_text(f'[target]\nurl = "{URL}"\n[upload]\n  url = "x"\n')
        error = refused(toml=toml)
        assert str(error) == f"{toml}:4: upload.url: no such option"
        assert error.hint == "did you mean target.url?"

    def test_with_a_key_before_any_section(self, toml: Path) -> None:
        toml.write_text("\nreaders = 4\n[scan]\ninline_limit = 1\n")
        error = refused(toml=toml)
        assert str(error).startswith(f"{toml}:2: readers")
        assert error.hint == "did you mean scan.readers?"

    def test_may_write_its_keys_with_dots(self, toml: Path) -> None:
        toml.write_text(f'# x\ntarget.url = "{URL}"\n')
        found = config({}, toml=toml)
        assert (found.url, found.origins["url"]) == (URL, f"{toml}:2: target.url")

    @pytest.mark.parametrize(
        "key", ["password", "token", "username", "secret", "aws_access_key_id", "credentials"]
    )
    @pytest.mark.parametrize("section", ["target", "auth", "upload"])
    def test_with_a_credential_is_refused_without_showing_it(
        self, toml: Path, section: str, key: str
    ) -> None:
        toml.write_text(f'[{section}]\n{key} = "hunter2"\n')
        error = refused(toml=toml)
        assert "credentials are not read from a file" in str(error)
        assert "INGESTER_PASSWORD" in error.hint
        assert "hunter2" not in "".join(traceback.format_exception(error))

    @pytest.mark.parametrize(
        "text", ["[scan", "a = ", "readers = 4\nreaders = 5", "\x00", "a = " + "1" * 5000, "a = " + "[" * 5000],
        ids=range(6),
    )  # fmt: skip
    def test_that_is_not_toml_is_refused(self, toml: Path, text: str) -> None:
        toml.write_text(text)
        assert str(toml) in str(refused(toml=toml))

    def test_that_is_not_utf_8_is_refused(self, toml: Path) -> None:
        toml.write_bytes(b"[scan]\nname = '\xff'\n")
        assert "not UTF-8" in str(refused(toml=toml))

    def test_that_is_not_there_is_refused(self, toml: Path) -> None:
        assert "No such file" in str(refused(toml=toml))
        assert "Is a directory" in str(refused(toml=toml.parent))

    @pytest.mark.parametrize(
        "value", ['"x"', "true", "4.5", "0", "-1", "[4]", "nan", "inf", "1" + "0" * 400]
    )
    def test_with_a_value_that_cannot_be_says_where(self, toml: Path, value: str) -> None:
        toml.write_text(f"[scan]\nreaders = {value}\n")
        assert str(refused(toml=toml)).startswith(f"{toml}:2: scan.readers: must be")


class TestTheEnvironment:
    def test_with_an_unknown_variable_is_refused_with_a_suggestion(self) -> None:
        error = refused(environment={"INGESTER_READER": "4"})
        assert str(error) == "no such option in the environment: INGESTER_READER"
        assert error.hint == "did you mean INGESTER_READERS?"

    def test_never_shows_the_value_of_an_unknown_variable(self) -> None:
        error = refused(environment={"INGESTER_PASSWORT": "hunter2"})
        assert "hunter2" not in str(error) + error.hint

    def test_of_others_is_not_looked_at(self) -> None:
        assert config(environment={"READERS": "x", "AWS_REGION": "r"}).readers is None

    def test_says_which_variable_cannot_be(self) -> None:
        error = refused(environment={"INGESTER_READERS": "many"})
        assert str(error).startswith("environment INGESTER_READERS: must be a number")


class TestTheTarget:
    def test_must_be_named(self) -> None:
        assert "no target" in str(refused({}))

    @pytest.mark.parametrize(
        ("given_as", "normal"),
        [
            ("https://store.example/dicom", "https://store.example/dicom"),
            ("https://store.example/dicom/", "https://store.example/dicom"),
            ("HTTPS://Store.Example:443/Dicom//", "https://store.example/Dicom"),
            ("http://h:80", "http://h"),
            ("http://h:443", "http://h:443"),
            ("https://h:80/", "https://h:80"),
            ("http://[::1]:8042/dicom-web/", "http://[::1]:8042/dicom-web"),
            ("http://[2001:DB8::1]", "http://[2001:db8::1]"),
            ("http://127.0.0.1:8042", "http://127.0.0.1:8042"),
            ("http://h/a%20b", "http://h/a%20b"),
            ("  http://h/x  ", "http://h/x"),
            ("http://h/x\n", "http://h/x"),
            ("http://h/mystudies", "http://h/mystudies"),
        ],
    )
    def test_has_one_spelling(self, given_as: str, normal: str) -> None:
        assert normal_url(given_as, "flag") == normal
        assert normal_url(normal, "flag") == normal

    @pytest.mark.parametrize(
        "given_as",
        ["", "store", "store.example/dicom", "//h/x", "ftp://h", "file:///x", "http://", "http:///x", "http://:80", "http://h:99999",
         "http://h:x", "http://[::1", "http://h/x?y=1", "http://h/x#y", "http://h/studies", "http://h/a/studies/", "http://h/a b",
         "http://h o/x", "http://a..b", "http://.b", "http://" + "a" * 64, "http://h/\x01", "http://h/a\r\nX-Evil: 1", "http://h/é", "https:/h/x", "http://h\\x"],
    )  # fmt: skip
    def test_that_is_no_base_url_is_refused(self, given_as: str) -> None:
        assert str(refused({"url": given_as})).startswith("flag --url: ")

    @pytest.mark.parametrize(
        "given_as",
        ["https://user:hunter2@h/x", "https://hunter2@h", "https://:hunter2@h", "user:hunter2@h/x", "https//user:hunter2@h",
         "https:user:hunter2@h", "ftp://user:hunter2@h", "https://h/x?token=hunter2", "https://user:hunter2@h:port/x",
         "https://user:hunter2@h/a b", "https://user:hunter2@[h/x", "https:/user:hunter2@h/studies"],
    )  # fmt: skip
    def test_with_credentials_is_refused_without_showing_them(self, given_as: str) -> None:
        error = refused({"url": given_as})
        assert "hunter2" not in str(error) + error.hint

    @given(
        st.text(max_size=30) | st.from_regex(r"https?://[a-z\[\]:.@?#/ \\%]{0,20}", fullmatch=True)
    )
    def test_has_a_spelling_or_is_refused_whatever_is_given(self, given_as: str) -> None:
        try:
            normal = normal_url(given_as, "flag")
        except UsageError:
            return
        assert normal_url(normal, "flag") == normal
        assert normal.isascii()
        assert normal.isprintable()
        assert " " not in normal


class TestCredentials:
    BASIC: Mapping[str, str] = {"INGESTER_USERNAME": "aladdin", "INGESTER_PASSWORD": "opensesame"}

    def test_of_basic_are_the_example_of_rfc_7617(self) -> None:
        assert (
            basic_authorization("Aladdin", Secret("open sesame"))
            == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
        )
        assert basic_authorization("test", Secret("123£")) == "Basic dGVzdDoxMjPCow=="

    def test_of_basic_in_another_encoding_go_out_as_they_are(self) -> None:
        """As the environment of a Latin-1 terminal has them."""
        password = Secret(b"123\xa3".decode(errors="surrogateescape"))
        assert basic_authorization("test", password) == "Basic dGVzdDoxMjOj"

    def test_of_bearer_are_the_token_as_it_is(self) -> None:
        assert bearer_authorization(Secret("mF_9.B5f-4.1JqM")) == "Bearer mF_9.B5f-4.1JqM"

    def test_come_from_the_environment(self) -> None:
        found = config({"url": URL, "auth": "basic"}, self.BASIC)
        assert found.authorization == Secret("Basic YWxhZGRpbjpvcGVuc2VzYW1l")
        found = config({"url": URL, "auth": "bearer"}, {"INGESTER_TOKEN": "abc"})
        assert found.authorization == Secret("Bearer abc")

    def test_are_none_where_none_are_asked_for(self) -> None:
        assert config(environment=self.BASIC).authorization is None

    def test_may_have_an_empty_password(self) -> None:
        environment = {"INGESTER_USERNAME": "a", "INGESTER_PASSWORD": ""}
        assert config({"url": URL, "auth": "basic"}, environment).authorization is not None

    @pytest.mark.parametrize(
        ("auth", "environment"),
        [
            ("basic", {}),
            ("basic", {"INGESTER_USERNAME": "a"}),
            ("basic", {"INGESTER_USERNAME": "", "INGESTER_PASSWORD": "hunter2"}),
            ("basic", {"INGESTER_USERNAME": "a:hunter2", "INGESTER_PASSWORD": "hunter2"}),
            ("bearer", {}),
            ("bearer", {"INGESTER_TOKEN": ""}),
            ("bearer", {"INGESTER_TOKEN": "hunter2 x"}),
            ("bearer", {"INGESTER_TOKEN": "hunter2\r\nX-Evil: 1"}),
            ("bearer", {"INGESTER_TOKEN": "hunter2é"}),
        ],
    )
    def test_that_are_not_there_or_cannot_be_are_refused(
        self, auth: str, environment: dict[str, str]
    ) -> None:
        error = refused({"url": URL, "auth": auth}, environment)
        assert "hunter2" not in str(error) + error.hint

    def test_are_shown_by_no_representation(self) -> None:
        found = config({"url": URL, "auth": "basic"}, self.BASIC)
        digest = found.digest
        shown = f"{found!r} {found} {found.authorization} {found.authorization!r} {values_of(found)} {dict(found.origins)} {digest}"
        for word in ("opensesame", "YWxhZGRpbjpvcGVuc2VzYW1l", "aladdin"):
            assert word not in shown

    def test_are_equal_where_they_are_the_same(self) -> None:
        assert Secret("a") == Secret("a") != Secret("b")
        assert hash(Secret("a")) == hash(Secret("a"))
        assert Secret("a") != "a"

    def test_are_not_pickled(self) -> None:
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps(Secret("a"))


class TestAConfig:
    def test_is_frozen(self) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            config().url = "x"  # type: ignore[misc]

    def test_with_the_same_values_has_the_same_digest(self) -> None:
        assert config().digest == config({}, {"INGESTER_URL": URL + "/"}).digest
        assert config().digest != config({"url": URL, "readers": "5"}).digest


def value_of(name: str, given_as: object) -> object:
    return parse(BY_NAME[name], given_as, "here")


class TestValues:
    @pytest.mark.parametrize(
        ("given_as", "size"),
        [("1", 1), (1, 1), ("16MiB", 16 << 20), ("16 MiB", 16 << 20), ("1.5KiB", 1536), ("2GB", 2 * 10**9), ("3GiB", 3 << 30), ("5KB", 5000), ("7B", 7), (" 8MB ", 8_000_000)],
    )  # fmt: skip
    def test_sizes(self, given_as: object, size: int) -> None:
        assert value_of("max_batch_bytes", given_as) == size

    @pytest.mark.parametrize(
        "given_as",
        [
            "",
            "0",
            0,
            -1,
            "-1",
            "0.4B",
            "x",
            "1TB",
            "1 M",
            "1MiB2",
            "MiB",
            "1e3",
            True,
            1.5,
            None,
            [],
            "٣",
            "1" * 400 + "GB",
        ],
    )
    def test_that_are_no_sizes(self, given_as: object) -> None:
        with pytest.raises(UsageError, match="here: must be"):
            value_of("max_batch_bytes", given_as)

    @pytest.mark.parametrize(("given_as", "count"), [("4", 4), (4, 4), (4.0, 4)])
    def test_counts(self, given_as: object, count: int) -> None:
        found = value_of("readers", given_as)
        assert (found, type(found)) == (count, int)

    @pytest.mark.parametrize(
        "given_as", ["0", "-3", "4.5", 4.5, "x", "", "nan", "inf", "1e400", True, None, [], 10**400]
    )
    def test_that_are_no_counts(self, given_as: object) -> None:
        with pytest.raises(UsageError, match="here: must be"):
            value_of("readers", given_as)

    @pytest.mark.parametrize(("given_as", "seconds"), [("4", 4.0), (0.5, 0.5), ("1e1", 10.0)])
    def test_seconds(self, given_as: object, seconds: float) -> None:
        assert value_of("batch_age_s", given_as) == seconds

    @pytest.mark.parametrize("given_as", ["0", "-1", "nan", "inf", "5s", True])
    def test_that_are_no_seconds(self, given_as: object) -> None:
        with pytest.raises(UsageError, match="here: must be"):
            value_of("batch_age_s", given_as)

    @pytest.mark.parametrize(
        ("given_as", "percent"), [("1%", 1.0), (" 2.5 % ", 2.5), (0, 0.0), ("100", 100.0)]
    )
    def test_percentages(self, given_as: object, percent: float) -> None:
        assert value_of("max_resend", given_as) == percent

    @pytest.mark.parametrize("given_as", ["101", "-1", "%", "1%%", None])
    def test_that_are_no_percentages(self, given_as: object) -> None:
        with pytest.raises(UsageError, match="here: must be"):
            value_of("max_resend", given_as)

    @pytest.mark.parametrize(
        ("given_as", "value"),
        [
            (True, True),
            ("TRUE", True),
            ("1", True),
            ("on", True),
            ("No", False),
            ("off", False),
            (False, False),
        ],
    )
    def test_switches(self, given_as: object, value: bool) -> None:
        assert value_of("rebind", given_as) is value

    @pytest.mark.parametrize("given_as", ["", "maybe", 1, 0, None])
    def test_that_are_no_switches(self, given_as: object) -> None:
        with pytest.raises(UsageError, match="here: must be true or false"):
            value_of("rebind", given_as)

    def test_outcomes(self) -> None:
        assert value_of("retry", "rejected, invalid") == ("rejected", "invalid")
        assert value_of("retry", ["held"]) == ("held",)
        assert value_of("retry", "") == ()

    @pytest.mark.parametrize(
        "given_as", ["failed", "pending", "in_doubt", "x", "rejected,x", [5], 5]
    )
    def test_that_are_no_settled_outcomes(self, given_as: object) -> None:
        with pytest.raises(UsageError, match="here: "):
            value_of("retry", given_as)

    @pytest.mark.parametrize("outcome", sorted(SETTLED))
    def test_any_settled_outcome_may_be_sent_again(self, outcome: str) -> None:
        assert value_of("retry", outcome) == (outcome,)

    def test_choices_are_named_where_another_is_given(self) -> None:
        with pytest.raises(
            UsageError, match="must be one of generic, orthanc, healthimaging: 'pacs'"
        ):
            value_of("server", "pacs")

    @pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
    @given(
        given_as=st.text(max_size=12)
        | st.integers()
        | st.floats()
        | st.booleans()
        | st.none()
        | st.lists(st.text(max_size=3), max_size=2)
    )
    def test_are_values_or_wrong_use_whatever_is_given(
        self, option: object, given_as: object
    ) -> None:
        try:
            value = parse(option, given_as, "here")  # type: ignore[arg-type]
        except UsageError as error:
            assert str(error).startswith("here: ")  # noqa: PT017 - both ends are right
        else:
            assert json.dumps(value) is not None
