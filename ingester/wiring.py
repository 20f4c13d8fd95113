"""From a Config to the stages of a run and the channels between them."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import SystemRandom
from typing import Any

from ingester.attempts import UploadOptions
from ingester.auth.chain import Resolve
from ingester.auth.credentials import CredentialSource
from ingester.auth.sigv4 import PayloadMode, Signer
from ingester.auth.tokens import token_source
from ingester.batches import BatchLimits
from ingester.budget import Budget
from ingester.channel import Channel
from ingester.config import Config
from ingester.control import StopControl
from ingester.group import Group, GroupOptions, ToGroup
from ingester.items import FileRef, Root, ToUpload
from ingester.journal import Journal, KnownFiles
from ingester.ledger import Ledger
from ingester.parcel import Parcel
from ingester.parsing import command_words
from ingester.scan import Scanner, ScanOptions, ScanStage
from ingester.threads import DaemonExecutor
from ingester.tls import ssl_context
from ingester.transport.authorizer import Authorizer, Bearer, FixedHeaders, SigV4
from ingester.transport.pause import Pause
from ingester.transport.retry import RetryPolicy
from ingester.transport.sender import Sender, SenderOptions
from ingester.upload import Upload
from ingester.version import VERSION
from ingester.walk import Walker, WalkOptions, WalkReport, walk

FILES_HELD = 4096
"""Between walk and scan: half a KiB each."""
INSTANCES_HELD = 512
"""Between scan and group. Their bytes are counted by the budget."""
CHUNK_BYTES = 256 << 10
"""Of aws-chunked: a thread hop each, and far above the 8 KiB a chunk needs."""
RESENDS_ALWAYS_ALLOWED = 100
"""A share of a small journal is less than one file."""

Task = Coroutine[Any, Any, None]


@dataclass(frozen=True, slots=True)
class Stages:
    """The stages of one run, wired and not yet started."""

    files: Channel[list[FileRef]]
    scanned: Channel[ToGroup]
    batches: Channel[ToUpload | Parcel]
    group: Group
    upload: Upload
    producers: tuple[Task, ...]
    workers: tuple[Task, ...]
    threads: tuple[DaemonExecutor, ...]


def build_stages(
    config: Config,
    roots: Sequence[tuple[Root, int]],
    *,
    journal: Journal,
    known: KnownFiles,
    ledger: Ledger,
    sender: Sender,
    readers: DaemonExecutor,
    stop: StopControl,
    report: WalkReport,
    stored_before: int,
) -> Stages:
    """Make everything between the sources and the journal. ``stored_before``: files in store."""
    limits = BatchLimits(config.max_batch_bytes, config.max_batch_instances, config.batch_age_s)
    files: Channel[list[FileRef]] = Channel(FILES_HELD)
    scanned: Channel[ToGroup] = Channel(INSTANCES_HELD)
    batches: Channel[ToUpload | Parcel] = Channel(config.max_concurrency)
    walker = Walker(roots, WalkOptions(config.follow_symlinks, own_files(config)), known)
    scan_options = ScanOptions(
        inline_limit_bytes=config.inline_limit,
        checksums=config.checksums == "sha256",
        max_file_bytes=config.server_profile.max_body_bytes,
        too_large_hint=config.server_profile.too_large_hint,
        max_resends=max(RESENDS_ALWAYS_ALLOWED, int(stored_before * config.max_resend / 100)),
    )
    scanner = Scanner(scan_options, Budget(config.memory_budget))
    scan = ScanStage(scanner, readers, ledger, files, scanned, scan_options)
    walk_thread = DaemonExecutor(1, "walk")
    lookups = DaemonExecutor(1, "lookup")
    group = Group(
        GroupOptions(config.max_open_instances),
        limits, scanned, batches, ledger, journal.find_holders, lookups, readers,
    )  # fmt: skip
    upload = Upload(
        UploadOptions(
            config.server_profile,
            RetryPolicy(config.max_attempts, config.backoff_base_s, config.backoff_cap_s),
            per_study=config.operation == "StoreDICOMStudy",
            checksums=config.checksums == "sha256",
        ),
        batches, sender, ledger, limits, stop, readers, SystemRandom(),
        proven=stored_before > 0,
    )  # fmt: skip
    return Stages(
        files,
        scanned,
        batches,
        group,
        upload,
        producers=(
            walk(walker, walk_thread, ledger, files, report),
            *(scan.worker() for _ in range(config.readers)),
            group.run(),
        ),
        workers=tuple(upload.worker() for _ in range(config.max_concurrency)),
        threads=(walk_thread, lookups, readers),
    )


def sender_options(config: Config) -> SenderOptions:
    """How the target is spoken to. Raises UsageError for TLS files that cannot be used."""
    return SenderOptions(
        base_url=config.url,
        user_agent=f"ingester/{VERSION}",
        proxy=config.proxy_url,
        ssl_context=ssl_context(config),
        max_connections=config.max_concurrency,
        keep_alive_s=config.server_profile.keep_alive_s,
        connect_timeout_s=config.connect_timeout_s,
        stall_timeout_s=config.stall_timeout_s,
        answer_timeout_s=config.answer_timeout_s,
    )


@asynccontextmanager
async def open_authorizer(
    config: Config, stop: StopControl, resolve: Resolve | None = None
) -> AsyncIterator[Authorizer]:
    """What authorizes the requests of a run.

    ``resolve`` gives AWS credentials instead of botocore's chain. Raises FatalError or UsageError
    where there are none.
    """
    if config.auth == "sigv4":
        mode = PayloadMode(config.payload_signing)
        region = config.region or ""
        async with CredentialSource(config.profile, resolve=resolve) as keys:
            signer = Signer(region, config.signing_service, mode, chunk_bytes=CHUNK_BYTES)
            pause = Pause(keys, config.auth_patience_s, stop)
            yield SigV4(signer, keys, pause, chunk_bytes=CHUNK_BYTES)
    elif config.auth == "bearer":
        command = config.token_command
        words = None if command is None else command_words(command, "--token-command")
        source = token_source(config.authorization, config.token_file, words)
        async with source as tokens:
            yield Bearer(tokens, Pause(tokens, config.auth_patience_s, stop))
    else:
        basic = config.authorization
        yield FixedHeaders({} if basic is None else {"Authorization": basic.reveal()})


def own_files(config: Config) -> frozenset[bytes]:
    """What the run writes itself, and must not meet inside a source."""
    journal = os.fsencode(os.path.realpath(config.journal))
    own = {journal + suffix for suffix in (b"", b"-wal", b"-shm", b"-journal", b".lock")}
    kept = (config.results, config.log_file)
    own |= {os.fsencode(os.path.realpath(path)) for path in kept if path is not None}
    return frozenset(own)
