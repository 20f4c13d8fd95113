"""Bad use gets one clear line, where it helps a hint, and exit code 2; nothing is started."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from tests.cli.said import complaint
from tests.support.dicom_files import write_corpus
from tests.support.process import run_ingester, start_python
from tests.support.scripted import ScriptedServer

THE_PROGRAM = """
import os, runpy
os.rmdir(os.getcwd())
runpy.run_module("ingester", run_name="__main__", alter_sys=True)
"""
IN_A_DIRECTORY_THAT_GOES = ("-P", "-c", THE_PROGRAM)  # as the installed command: not in its path
WITHOUT_PRIVILEGES = """
import ctypes, os, sys
for capability in (1, 2):  # to read what the modes deny, of the super-user: nobody else has them
    ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP
os.execv(sys.executable, [sys.executable, "-m", "ingester", *sys.argv[1:]])
"""
URL = "http://127.0.0.1:9/dicom-web"
TO = ("--url", URL)

CASES: dict[str, tuple[tuple[str, ...], str, str]] = {  # arguments, line, hint
    "a missing source": (
        ("run", "nowhere", *TO),
        r"no such source \(No such file or directory\): nowhere",
        "",
    ),
    "no source": (("run", *TO), "no source", "name a directory or a file, or --root NAME=DIR"),
    "a source without a name": (
        ("run", "", *TO),
        "a source is empty",
        r"is a variable not set\? Name a directory or a file",
    ),
    "no target": (
        ("run", "archive"),
        "no target",
        "name the store with --url https://host/path, or --datastore and --region",
    ),
    "two targets": (
        ("run", "archive", *TO, "--url", "http://other"),
        "two targets: --url",
        "name one",
    ),
    "an option given twice": (
        ("run", "archive", *TO, "--readers", "1", "--readers", "2"),
        "given twice: --readers",
        "name one",
    ),
    "a URL of another scheme": (
        ("run", "archive", "--url", "ftp://host/x"),
        r"flag --url: must be http://… or https://…",
        "",
    ),
    "a URL with the service in it": (
        ("run", "archive", "--url", "http://host/dicom-web/studies"),
        "flag --url: the base URL is what stands before /studies: http://host/dicom-web/studies",
        "",
    ),
    "an unknown verb": (("rum", "archive"), "no such verb: rum", r"did you mean run\?"),
    "a verb like no other": (("frobnicate",), "no such verb: frobnicate", "see ingester --help"),
    "an unknown flag": (
        ("run", "archive", *TO, "--max-concurency", "3"),
        ".*--max-concurency.*--max-concurrency.*",
        "see ingester run --help",
    ),
    "an unknown flag of the group": (("--versio",), ".*--versio.*", "see ingester --help"),
    "a flag without its value": (
        ("run", "archive", "--url"),
        ".*'--url' requires an argument.*",
        "see ingester.* --help",
    ),
    "a missing flag": (("emulate",), ".*--store.*", "see ingester emulate --help"),
    "too many arguments": (("status", "x"), ".*unexpected.*", "see ingester status --help"),
    "a size that is none": (
        ("run", "archive", *TO, "--max-batch-bytes", "16XB"),
        "flag --max-batch-bytes: must be a size such as 16MiB: '16XB'",
        "",
    ),
    "a size of nothing": (
        ("run", "archive", *TO, "--memory-budget", "0"),
        "flag --memory-budget: must be a number above zero: '0'",
        "",
    ),
    "too many readers": (
        ("run", "archive", *TO, "--readers", "1e20"),
        "flag --readers: must be at most 4096: '1e20'",
        "",
    ),
    "too many processes": (
        ("run", "archive", *TO, "--scan-processes", "4096"),
        "flag --scan-processes: must be at most 64: '4096'",
        "",
    ),
    "fewer than no processes": (
        ("run", "archive", *TO, "--scan-processes", "-1"),
        "flag --scan-processes: must be zero or a number above it: '-1'",
        "",
    ),
    "a service that is none": (
        ("run", "archive", *TO, "--signing-service", "\udcff"),
        r"flag --signing-service: not an AWS service: \\xdcff",
        "",
    ),
    "a service that is empty": (
        ("run", "archive", *TO, "--signing-service", ""),
        "flag --signing-service: not an AWS service: ",
        "",
    ),
    "a proxy that is no URL": (
        ("run", "archive", *TO, "--proxy", "http://[::"),
        "flag --proxy: a proxy must be http://host:port",
        "",
    ),
    "a proxy with a port that is none": (
        ("run", "archive", *TO, "--proxy", "http://host:many"),
        "flag --proxy: a proxy must be http://host:port",
        "",
    ),
    "a proxy with a blank in it": (
        ("run", "archive", *TO, "--proxy", "http://my proxy:3128"),
        "flag --proxy: a proxy must be http://host:port",
        "",
    ),
    "half a reader": (
        ("run", "archive", *TO, "--readers", "2.5"),
        "flag --readers: must be a whole number: '2.5'",
        "",
    ),
    "an endless time": (
        ("run", "archive", *TO, "--batch-age-s", "inf"),
        "flag --batch-age-s: must be a number: 'inf'",
        "",
    ),
    "an unknown choice": (
        ("run", "archive", *TO, "--server", "pacs"),
        "flag --server: must be one of generic, orthanc, healthimaging.*: 'pacs'",
        "",
    ),
    "an unknown outcome": (
        ("run", "archive", *TO, "--retry", "rejected,lost"),
        r"flag --retry: no outcome that is settled \(.*\): lost: 'rejected,lost'",
        "",
    ),
    "a root without a name": (
        ("run", "--root", "archive", *TO),
        "--root must be NAME=DIR: archive",
        "",
    ),
    "basic without credentials": (
        ("run", "archive", *TO, "--auth", "basic"),
        "--auth basic needs credentials",
        "set INGESTER_USERNAME and INGESTER_PASSWORD",
    ),
    "bearer without a token": (
        ("run", "archive", *TO, "--auth", "bearer"),
        "--auth bearer needs a token",
        "set INGESTER_TOKEN, or give --token-file or --token-command",
    ),
    "two sources of a token": (
        ("run", "archive", *TO, "--auth", "bearer", "--token-file", "t", "--token-command", "c"),
        "two sources of the bearer token: flag --token-file and flag --token-command",
        "keep one",
    ),
    "a token for nobody": (
        ("run", "archive", *TO, "--token-file", "t"),
        "flag --token-file: only --auth bearer takes a token",
        "add --auth bearer",
    ),
    "a token command that is none": (
        ("run", "archive", *TO, "--auth", "bearer", "--token-command", "give 's3cret"),
        "flag --token-command: must be a command line",
        "",
    ),
    "a key without a certificate": (
        ("run", "archive", "--url", "https://host", "--client-key", "k.pem"),
        "flag --client-key: a key without a certificate",
        "give --client-cert",
    ),
    "a client certificate without TLS": (
        ("run", "archive", *TO, "--client-cert", "c.pem"),
        f"flag --client-cert: the target is not https: {URL}",
        "",
    ),
    "no verification without TLS": (
        ("run", "archive", *TO, "--insecure"),
        f"flag --insecure: the target is not https: {URL}",
        "",
    ),
    "verification and none": (
        ("run", "archive", "--url", "https://host", "--insecure", "--ca-bundle", "ca.pem"),
        "both flag --insecure and flag --ca-bundle",
        "with a CA bundle the server's certificate is verified: take one of them away",
    ),
    "the log into the journal": (
        ("run", "archive", *TO, "--journal", "j.db", "--log-file", "j.db"),
        r"the log file is the journal: j\.db",
        "name another",
    ),
    "the log into the results": (
        ("run", "archive", *TO, "--results", "r", "--log-file", "./r"),
        r"the log file is the results file: \./r",
        "name another",
    ),
    "results into the journal": (
        ("run", "archive", *TO, "--journal", "j.db", "--results", "./j.db"),
        r"the results file is the journal: \./j\.db",
        "name another",
    ),
    "results into the journal's log": (
        ("run", "archive", *TO, "--journal", "j.db", "--results", "j.db-wal"),
        r"the results file is the journal: j\.db-wal",
        "name another",
    ),
    "results into the copy of the journal": (
        ("run", "archive", *TO, "--journal", "j.db", "--results", "j.db.schema1"),
        r"the results file is the journal: j\.db\.schema1",
        "name another",
    ),
    "a configuration that is not there": (
        ("run", "archive", *TO, "--config", "missing.toml"),
        r"the configuration cannot be read \(No such file or directory\): missing\.toml",
        "",
    ),
    "a CA bundle that is not there": (
        ("run", "archive", "--url", "https://127.0.0.1:9", "--ca-bundle", "missing.pem"),
        r"the CA bundle cannot be read \(No such file or directory\): missing\.pem",
        "",
    ),
    "a status before any journal": (
        ("status",),
        r"no such journal: ingester\.db",
        "name it with --journal",
    ),
    "a journal without a name": (
        ("run", "archive", *TO, "--journal", ""),
        "flag --journal: must be a path: ''",
        r"is a variable not set\?",
    ),
    "a configuration with a journal without a name": (
        ("config", *TO, "--journal", ""),
        "flag --journal: must be a path: ''",
        r"is a variable not set\?",
    ),
    "a data store id of another form": (
        ("emulate", "--store", "x", "--port", "0", "--datastore", "Mine"),
        r"a datastore id is 32 characters of \[0-9a-z\]",
        "",
    ),
    "a port that is none": (
        ("emulate", "--store", "x", "--port", "99999"),
        ".*--port.*99999.*",
        "see ingester emulate --help",
    ),
    "an emulator without a store": (
        ("emulate", "--store", "", "--port", "0"),
        "the store is empty",
        r"is a variable not set\? Name a directory with --store",
    ),
    "a time limit that is no number": (
        ("bench", "--time-limit-s", "nan"),
        ".*--time-limit-s.*nan is no number",
        "see ingester bench --help",
    ),
    "a latency that is no number": (
        ("bench", "--latency-ms", "nan"),
        ".*--latency-ms.*nan is no number",
        "see ingester bench --help",
    ),
    "a demo in a directory that is used": (
        ("demo", "--directory", "."),
        r"the directory is not empty: \.",
        "name another one",
    ),
}

TOMLS: dict[str, tuple[str, str, str]] = {  # text, line, hint
    "an unknown key": (
        "[scan]\n# max_concurency is none\n\n[upload]\nmax_concurency = 3\n",
        r"c\.toml:5: upload\.max_concurency: no such option",
        r"did you mean upload\.max_concurrency\?",
    ),
    "a path with a NUL": (
        '[journal]\njournal = "x\\u0000y"\n',
        r"c\.toml:2: journal\.journal: must not hold a NUL.*",
        "",
    ),
    "a key of another section": (
        "[scan]\nmax_concurrency = 3\n",
        r"c\.toml:2: scan\.max_concurrency: no such option",
        r"did you mean upload\.max_concurrency\?",
    ),
    "a key without its section": (
        'readers = 3\n[target]\nurl = "http://host"\n',
        r"c\.toml:1: readers: no such option",
        r"did you mean scan\.readers\?",
    ),
    "a value of another kind": (
        '[scan]\nreaders = "many"\n',
        r"c\.toml:2: scan\.readers: must be a number: 'many'",
        "",
    ),
    "what is not TOML": ("[scan\n", r"the configuration is not TOML \(.*line 1.*\): c\.toml", ""),
    "a password": (
        '[target]\npassword = "hunter2"\n',
        r"c\.toml:2: target\.password: credentials are not read from a file",
        "set INGESTER_USERNAME, INGESTER_PASSWORD, INGESTER_TOKEN in the environment",
    ),
    "a token in a section of its own": (
        '[secrets]\nvalue = "hunter2"\n',
        r"c\.toml:2: secrets\.value: credentials are not read from a file",
        "set .* in the environment",
    ),
    "a password in a table where a text belongs": (
        '[target.auth]\npassword = "hunter2"\n',
        r"c\.toml:1: target\.auth: must be a text",
        "",
    ),
    "a password in a list": (
        '[target]\nauth = ["basic", "hunter2"]\n',
        r"c\.toml:2: target\.auth: must be a text",
        "",
    ),
    "a password in the URL": (
        '[target]\nurl = "https://operator:hunter2@host/x"\n',
        r"c\.toml:2: target\.url: a URL must not hold credentials",
        "use --auth basic with INGESTER_USERNAME and INGESTER_PASSWORD",
    ),
}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A directory with an empty archive."""
    (tmp_path / "archive").mkdir()
    return tmp_path


class TestBadUse:
    @pytest.mark.parametrize("case", CASES)
    def test_of_the_command_line(self, case: str, here: Path) -> None:
        arguments, line, hint = CASES[case]
        completed = run_ingester(*arguments, cwd=here)
        assert completed.returncode == 2
        said = complaint(completed)
        assert re.fullmatch(line, said[0]), said
        assert re.fullmatch(hint, said[1]), said

    @pytest.mark.parametrize("case", TOMLS)
    def test_of_the_configuration_file(self, case: str, here: Path) -> None:
        text, line, hint = TOMLS[case]
        (here / "c.toml").write_text(text, encoding="utf-8")
        completed = run_ingester("run", "archive", "--config", "c.toml", cwd=here)
        assert completed.returncode == 2
        said = complaint(completed)
        assert re.fullmatch(line, said[0]), said
        assert re.fullmatch(hint, said[1]), said
        assert "hunter2" not in completed.stderr

    @pytest.mark.parametrize(
        "url",
        [
            "https://operator:hunter2@host/x",
            "https://operator:hunter2@host:bad/x",
            "operator:hunter2@host/x",
            "https:/operator:hunter2@host/x",
            "https://host/x?token=hunter2",
        ],
    )
    def test_of_a_url_with_credentials_does_not_repeat_them(self, url: str, here: Path) -> None:
        completed = run_ingester("run", "archive", "--url", url, cwd=here)
        assert completed.returncode == 2
        assert complaint(completed)[0].startswith("flag --url: ")
        assert "hunter2" not in completed.stderr

    def test_of_the_environment(self, here: Path) -> None:
        for env, line, hint in (
            ({"INGESTER_URLL": "x"}, "INGESTER_URLL", "did you mean INGESTER_URL?"),
            ({"INGESTER_READERS": "many"}, "environment INGESTER_READERS: must be a number", ""),
            (
                {"INGESTER_JOURNAL": ""},
                "environment INGESTER_JOURNAL: must be a path",
                "is a variable not set?",
            ),
        ):
            completed = run_ingester("run", "archive", *TO, env=env, cwd=here)
            assert completed.returncode == 2
            said = complaint(completed)
            assert line in said[0]
            assert said[1] == hint

    def test_starts_nothing(self, here: Path) -> None:
        run_ingester("run", "archive", *TO, "--readers", "0", cwd=here)
        assert [path.name for path in here.iterdir()] == ["archive"]

    def test_cannot_forge_a_line_or_a_terminal_sequence(self, here: Path) -> None:
        name = "nowhere\ningester: all is stored\r\x1b[2J\u202e"
        completed = run_ingester("run", name, *TO, cwd=here)
        assert completed.returncode == 2
        assert complaint(completed)[0].endswith(
            r"nowhere\x0aingester: all is stored\x0d\x1b[2J\x202e"
        )

    def test_of_a_verb_cannot_forge_a_line_either(self, here: Path) -> None:
        for arguments in (("ru\nn",), ("run", "--ur\nl"), ("status", "x\x1b[2J")):
            completed = run_ingester(*arguments, cwd=here)
            assert completed.returncode == 2
            complaint(completed)
            assert "\x1b" not in completed.stderr


class TestAJournalOfAnotherTarget:
    def test_is_bad_use_with_both_named(self, here: Path) -> None:
        assert run_ingester("run", "archive", *TO, cwd=here).returncode == 0
        completed = run_ingester("run", "archive", "--url", "http://127.0.0.1:9/b", cwd=here)
        assert completed.returncode == 2
        line, hint = complaint(completed)
        assert f"({URL}, not http://127.0.0.1:9/b)" in line
        assert "--rebind" in hint

    def test_is_taken_over_when_told_so(self, here: Path) -> None:
        assert run_ingester("run", "archive", *TO, cwd=here).returncode == 0
        other = ("--url", "http://127.0.0.1:9/b", "--rebind")
        assert run_ingester("run", "archive", *other, cwd=here).returncode == 0

    def test_stays_that_target_s_where_the_command_that_says_so_is_bad_use(
        self, here: Path
    ) -> None:
        assert run_ingester("run", "archive", *TO, cwd=here).returncode == 0
        other = ("--url", "http://127.0.0.1:9/b", "--rebind")
        assert run_ingester("run", "nowhere", *other, cwd=here).returncode == 2
        assert run_ingester("run", "archive", *TO, cwd=here).returncode == 0

    def test_is_of_none_where_the_first_command_was_bad_use(self, here: Path) -> None:
        misspelt = ("--url", "http://127.0.0.1:9/dicom-wbe")
        assert run_ingester("run", "nowhere", *misspelt, cwd=here).returncode == 2
        assert "target none yet" in run_ingester("status", cwd=here).stdout
        assert json.loads(run_ingester("status", "--json", cwd=here).stdout)["target"] is None
        assert run_ingester("run", "archive", *TO, cwd=here).returncode == 0


class TestAWorkingDirectoryThatIsGone:
    """As of a shell whose directory somebody has removed."""

    @pytest.mark.parametrize(
        ("arguments", "named"),
        [
            (("{archive}",), "ingester.db"),
            (("{archive}", "--journal", "j.db"), "j.db"),
            (("{archive}", "--journal", "{archive}.db", "--results", "r.jsonl"), "r.jsonl"),
            (("{archive}", "--results", "{archive}.jsonl"), "ingester.db"),
            (("{archive}", "--journal", "{archive}.db", "--log-file", "l.jsonl"), "l.jsonl"),
            (("archive", "--journal", "{archive}.db"), "archive"),
        ],
    )
    def test_is_named_with_what_is_relative_to_it(
        self, arguments: tuple[str, ...], named: str, tmp_path: Path
    ) -> None:
        write_corpus(tmp_path / "archive", studies=1, instances_per_study=1)
        (tmp_path / "gone").mkdir()
        given = [each.format(archive=tmp_path / "archive") for each in arguments]
        with start_python(
            *IN_A_DIRECTORY_THAT_GOES, "run", *given, *TO, cwd=tmp_path / "gone"
        ) as process:
            completed = process.wait()
        assert (completed.returncode, completed.stdout) == (2, "")
        assert complaint(completed) == (
            f"the working directory is gone, and a path begins there: {named}",
            "change to a directory that is there, or give absolute paths",
        )

    def test_is_named_before_anything_is_measured(self, tmp_path: Path) -> None:
        (tmp_path / "gone").mkdir()
        arguments = ("bench", "--size-mb", "1", "--concurrency", "1", "--batch-instances", "10")
        with start_python(*IN_A_DIRECTORY_THAT_GOES, *arguments, cwd=tmp_path / "gone") as process:
            completed = process.wait()
        assert (completed.returncode, completed.stdout) == (2, "")
        assert complaint(completed) == (
            "the working directory is gone, and a path begins there: .",
            "change to a directory that is there, or give absolute paths",
        )


@pytest.mark.skipif(sys.platform != "linux", reason="the super-user of others may read all")
class TestASourceThatMayNotBeRead:
    @pytest.mark.parametrize("denied", ["above/archive", "above"])
    @pytest.mark.parametrize("known", [False, True])
    def test_is_not_called_gone(self, tmp_path: Path, denied: str, known: bool) -> None:
        """Its own mode denies it, or that of a directory above it; 1 if the journal knows it."""
        archive = tmp_path / "above" / "archive"
        write_corpus(archive, studies=1, instances_per_study=1)
        if known:
            with ScriptedServer() as server:
                to = ("--url", server.url)
                assert run_ingester("run", archive, *to, cwd=tmp_path).returncode == 0
        else:
            to = TO
        (tmp_path / denied).chmod(0)
        try:
            with start_python("-c", WITHOUT_PRIVILEGES, "run", archive, *to, cwd=tmp_path) as run:
                completed = run.wait()
        finally:
            (tmp_path / denied).chmod(0o700)
        assert completed.returncode == (1 if known else 2)
        line, hint = complaint(completed)
        assert line == f"a source cannot be read (Permission denied): {archive}"
        assert hint.startswith("let this user list and enter it, and enter each directory above it")
