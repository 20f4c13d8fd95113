"""Every option of a run, once: its name, section, kind, default and help.

Flags, environment variables, TOML keys, ``ingester config`` and the README's table are all made
from this list.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "text", "path", "size", "count", "count or 0", "seconds", "percent", "switch", "outcomes"
]
Value = str | int | float | bool | tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Option:
    """One option. ``default`` None: it has none, or the server profile's counts."""

    name: str
    section: str
    kind: Kind
    default: Value
    help: str
    choices: tuple[str, ...] = ()
    most: int = 1_000_000_000  # of a count

    @property
    def flag(self) -> str:
        """As it is written on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """As it is written in the environment."""
        return "INGESTER_" + self.name.upper()

    @property
    def key(self) -> str:
        """As it is written in the TOML."""
        return f"{self.section}.{self.name}"


MIB = 1 << 20
MEMORY_BUDGET_BYTES = 96 * MIB
"""Half of it costs 7 % of `ct`; twice as much gains nothing (benchmarks/README.md, the defaults)."""
INLINE_LIMIT_BYTES = MIB
"""A quarter of it costs 18 % of `ct`, 8 MiB cost 17 % of `cr` and 160 MiB of memory (the same)."""

MOST_AT_ONCE = 4096
"""Threads or requests: a slip of the finger must not bring the machine down."""
MOST_PROCESSES = 64
"""The same of processes, with 15 MiB each: 4,096 of them take the machine for minutes."""

OPTIONS: tuple[Option, ...] = (
    Option("url", "target", "text", None, "Base URL of the DICOMweb store: STOW-RS is at URL/studies."),
    Option("datastore", "target", "text", None, "AWS HealthImaging data store id, instead of a URL; with --region."),
    Option("region", "target", "text", None, "AWS region of the data store or of the signatures; else AWS_REGION, AWS_DEFAULT_REGION."),
    Option("server", "target", "text", None, "Kind of server: healthimaging with --datastore, else generic.", ("generic", "orthanc", "healthimaging")),
    Option("operation", "target", "text", "StoreDICOM", "StoreDICOM posts to /studies, StoreDICOMStudy to /studies/{StudyInstanceUID}.", ("StoreDICOM", "StoreDICOMStudy")),
    Option("auth", "target", "text", None, "Authentication: sigv4 with --datastore, else none. basic takes INGESTER_USERNAME and INGESTER_PASSWORD, bearer a token, sigv4 the AWS credentials chain.", ("none", "basic", "bearer", "sigv4")),
    Option("token_file", "target", "path", None, "File with the bearer token, read again when it changes; instead of INGESTER_TOKEN."),
    Option("token_command", "target", "text", None, "Command line that prints the bearer token or JSON with it, run again before it expires; instead of INGESTER_TOKEN."),
    Option("auth_patience_s", "target", "seconds", 60.0, "When keys or a token have expired, longest wait for others before the run stops."),
    Option("profile", "target", "text", None, "Profile of the AWS configuration to take credentials from."),
    Option("signing_service", "target", "text", "medical-imaging", "Service name in AWS signatures."),
    Option("payload_signing", "target", "text", "literal", "What an AWS signature says of the body; literal is what AWS documents.", ("literal", "sha256", "unsigned", "aws-chunked")),
    Option("proxy", "target", "text", None, "HTTP proxy, http://host:port; else HTTPS_PROXY or HTTP_PROXY, and NO_PROXY."),
    Option("ca_bundle", "target", "path", None, "PEM file of the certificate authorities to trust instead of the system's."),
    Option("client_cert", "target", "path", None, "PEM file of the certificate to show to the server, perhaps with its key."),
    Option("client_key", "target", "path", None, "PEM file of its key, without a password."),
    Option("insecure", "target", "switch", False, "Do not verify the server's certificate: whoever answers gets the patients' data."),
    Option("follow_symlinks", "walk", "switch", False, "Follow symbolic links, never round a loop."),
    Option("recheck", "walk", "switch", False, "When an interrupted run is resumed, look at every file again, also in directories that are complete and unchanged."),
    Option("readers", "scan", "count", None, "Reader threads of each source; else 4, on a network file system 16.", most=MOST_AT_ONCE),
    Option("scan_processes", "scan", "count or 0", None, "Processes that read for the reader threads; else one for each core up to 4, once there is work enough. 0: none.", most=MOST_PROCESSES),
    Option("read_timeout_s", "scan", "seconds", 60.0, "Longest time a read or a listing may bring nothing before it is given up."),
    Option("inline_limit", "scan", "size", INLINE_LIMIT_BYTES, "Files up to this size are read whole and cached until they are sent."),
    Option("memory_budget", "scan", "size", MEMORY_BUDGET_BYTES, "Bytes of files cached at a time."),
    Option("checksums", "scan", "text", "sha256", "sha256 records a digest of every file. none: only of files changed within 2 s of the read; others that are touched are sent again.", ("sha256", "none")),
    Option("max_batch_bytes", "group", "size", None, "Bytes of files in one request."),
    Option("max_batch_instances", "group", "count", None, "Files in one request."),
    Option("batch_age_s", "group", "seconds", 5.0, "Send an incomplete batch after so long."),
    Option("idle_slot_s", "group", "seconds", 0.2, "Send the largest incomplete batch when one more request could have been under way for so long."),
    Option("max_open_instances", "group", "count", 50_000, "Files in open batches or waiting for one with their UIDs."),
    Option("max_concurrency", "upload", "count", None, "Most requests under way at a time; the run begins with 4 and finds what the server takes.", most=MOST_AT_ONCE),
    Option("max_attempts", "upload", "count", 6, "Times a request is sent before its files fail."),
    Option("backoff_base_s", "upload", "seconds", 0.5, "First wait before a retry, at most; it doubles."),
    Option("backoff_cap_s", "upload", "seconds", 60.0, "Longest wait before a retry, unless the server asks for more."),
    Option("connect_timeout_s", "upload", "seconds", 10.0, "Longest wait for a connection."),
    Option("stall_timeout_s", "upload", "seconds", 60.0, "Longest time the server may take no byte of a body."),
    Option("answer_timeout_s", "upload", "seconds", 600.0, "Longest wait for an answer after the last byte of a body."),
    Option("max_outage_s", "upload", "seconds", 43_200.0, "Longest time to wait for a server that takes nothing, trying it now and then."),
    Option("drain_timeout_s", "upload", "seconds", 20.0, "After a signal, longest wait for the requests under way."),
    Option("journal", "journal", "path", "ingester.db", "The record of what became of each file. The same journal resumes."),
    Option("rebind", "journal", "switch", False, "The journal's store has a new address: bind the journal to it."),
    Option("retry", "journal", "outcomes", (), "Outcomes to be sent again although they are settled, with commas between."),
    Option("max_resend", "journal", "percent", 1.0, "Stop when more than this share of what is stored has changed (and more than 100 files)."),
    Option("results", "journal", "path", None, "Append a JSON line for each file decided to this file."),
    Option("name", "journal", "text", "", "A name for this run."),
    Option("operator", "journal", "text", "", "Who runs it."),
    Option("progress_interval_s", "output", "seconds", 10.0, "Time between two progress lines; on a terminal the panel is drawn each second."),
    Option("log_file", "output", "path", None, "Append a JSON line for each decision to this file; it names no file, no patient and no credential."),
    Option("log_level", "output", "text", "info", "What the log has; debug has every request.", ("debug", "info", "warning")),
    Option("event_loop", "output", "text", "auto", "auto takes uvloop where it is installed.", ("auto", "uvloop", "asyncio")),
)  # fmt: skip

BY_NAME = {option.name: option for option in OPTIONS}
