"""From a Config to the stages of a run and the channels between them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine, Sequence
from concurrent.futures import Executor
from contextlib import asynccontextmanager, suppress
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
from ingester.catalog import WalkOptions
from ingester.channel import Channel
from ingester.config import Config
from ingester.control import StopControl
from ingester.dicomweb.profiles import conflict_words
from ingester.group import Group, GroupOptions, ToGroup
from ingester.items import Directory, FileRef, Instance, Root, ToUpload
from ingester.journal import Journal, KnownFiles
from ingester.journal.names import journal_files
from ingester.known_good import FindKnownGood
from ingester.ledger import Ledger
from ingester.outages import PATIENCE_IN_BACKOFFS
from ingester.parcel import Parcel
from ingester.parsing import command_words
from ingester.proxy import split_proxy
from ingester.readers import Readers
from ingester.scan import Found, Scanner, ScanOptions
from ingester.scan_stage import ScanStage
from ingester.threads import DaemonExecutor
from ingester.tls import ssl_context
from ingester.transport.admission import Admission
from ingester.transport.authorizer import Authorizer, Bearer, FixedHeaders, SigV4
from ingester.transport.pause import Pause
from ingester.transport.retry import RetryPolicy
from ingester.transport.sender import Sender, SenderOptions
from ingester.upload import Upload
from ingester.version import VERSION
from ingester.walk import Walk, WalkReport

FILES_HELD = 4096
"""Between walk and scan: half a KiB each."""
MAX_LANES = 8
"""Roots that are walked at a time."""
INSTANCES_HELD = 512
"""Between scan and group, and one list more. Their bytes are counted by the budget."""
CHUNK_BYTES = 256 << 10
"""Of aws-chunked: a thread hop each, and far above the 8 KiB a chunk needs."""
RESENDS_ALWAYS_ALLOWED = 100
"""A share of a small journal is less than one file."""

Task = Coroutine[Any, Any, None]


@dataclass(frozen=True, slots=True)
class Stages:
    """The stages of one run, wired and not yet started."""

    files: tuple[Channel[list[FileRef]], ...]  # of each lane of the walk
    scanned: Channel[ToGroup]
    batches: Channel[ToUpload | Parcel]
    group: Group
    upload: Upload
    producers: tuple[Task, ...]
    workers: tuple[Task, ...]
    scan_workers: int
    threads: tuple[DaemonExecutor | Readers, ...]


def build_stages(
    config: Config,
    roots: Sequence[Root],
    *,
    journal: Journal,
    known: KnownFiles,
    ledger: Ledger,
    sender: Sender,
    readers: Readers,
    budget: Budget,
    stop: StopControl,
    report: WalkReport,
    stored_before: int,
) -> Stages:
    """Make everything between the sources and the journal. ``stored_before``: files in store."""
    limits = BatchLimits(config.max_batch_bytes, config.max_batch_instances, config.batch_age_s)
    lanes = [roots[n::MAX_LANES] for n in range(min(len(roots), MAX_LANES))]
    files = tuple(Channel[list[FileRef]](FILES_HELD // len(lanes)) for _ in lanes)
    scanned: Channel[ToGroup] = Channel(INSTANCES_HELD)
    batches: Channel[ToUpload | Parcel] = Channel(config.max_concurrency)
    walk_options = WalkOptions(config.follow_symlinks, own_files(config), config.recheck)
    walk = Walk(walk_options, known, readers, ledger, report, len(lanes))
    scan_options = ScanOptions(
        inline_limit_bytes=config.inline_limit,
        checksums=config.checksums == "sha256",
        max_file_bytes=config.server_profile.max_body_bytes,
        too_large_hint=config.server_profile.too_large_hint,
        max_resends=max(RESENDS_ALWAYS_ALLOWED, int(stored_before * config.max_resend / 100)),
    )
    scanner = Scanner(scan_options, budget, readers.pool)
    scanning = [
        channel
        for lane, channel in zip(lanes, files, strict=True)
        for _ in range(max(readers.of(root).threads for root in lane))
    ]
    scan = ScanStage(scanner, readers, ledger, scanned, scan_options, scanning)
    lookups = DaemonExecutor(1, "lookup")
    admission = Admission(config.max_concurrency, stop)
    upload = Upload(
        UploadOptions(
            config.server_profile,
            RetryPolicy(config.max_attempts, config.backoff_base_s, config.backoff_cap_s),
            per_study=config.operation == "StoreDICOMStudy",
            checksums=config.checksums == "sha256",
            max_outage_s=config.max_outage_s,
        ),
        batches, sender, admission, ledger, limits, stop, readers, SystemRandom(),
        known_good_finder(journal, scanner, roots, readers, lookups), proven=stored_before > 0,
    )  # fmt: skip
    group = Group(
        GroupOptions(
            config.max_open_instances, conflict_words(config.server_profile), config.idle_slot_s
        ),
        limits, scanned, batches, ledger, journal.find_holders, journal.find_copies,
        lookups, readers,
        upload.idle_s, budget.is_crowded,
    )  # fmt: skip
    return Stages(
        files,
        scanned,
        batches,
        group,
        upload,
        producers=(
            *(walk.lane(lane, channel) for lane, channel in zip(lanes, files, strict=True)),
            *(scan.worker(channel) for channel in scanning),
            group.run(),
        ),
        workers=tuple(upload.worker() for _ in range(config.max_concurrency)),
        scan_workers=len(scanning),
        threads=(lookups, readers),
    )


def known_good_finder(
    journal: Journal, scanner: Scanner, roots: Sequence[Root], readers: Readers, thread: Executor
) -> FindKnownGood:
    """Finds a small file of these roots that the store has, as it was sent, to try the store."""

    async def find() -> Instance | None:
        loop = asyncio.get_running_loop()
        for file, sha256 in await loop.run_in_executor(thread, journal.stored_samples):
            here = in_a_root(file, roots)
            if here is None:
                continue
            found: list[Found] = []
            reader = readers.of(here.directory.root)
            with suppress(OSError):  # its root does not answer: another file may
                await loop.run_in_executor(reader, scanner.scan, [here], found)
            for instance in found:
                if isinstance(instance, Instance):
                    if instance.buffer is not None:
                        instance.buffer.give_back()
                    if _is_as_sent(instance, file, sha256):
                        return instance._replace(buffer=None, sha256=sha256)
        return None

    return find


def _is_as_sent(instance: Instance, sent: FileRef, sha256: bytes | None) -> bool:
    """Of a file that was not read whole a digest is compared when it is sent again."""
    if sha256 is not None and instance.sha256 is not None:
        return instance.sha256 == sha256
    identity = instance.identity
    return (identity.size, identity.mtime_ns) == (sent.size, sent.mtime_ns)


def in_a_root(file: FileRef, roots: Sequence[Root]) -> FileRef | None:
    """The same file below a root of this run: it may have been loaded from another source."""
    for root in roots:
        if file.path.startswith(os.path.join(root.path, b"")):
            rel_path = os.path.dirname(file.path)[len(os.path.join(root.path, b"")) :]
            directory = Directory(file.directory.dir_id, root, rel_path)
            return file._replace(directory=directory)
    return None


def sender_options(config: Config) -> SenderOptions:
    """How the target is spoken to. Raises UsageError for TLS files that cannot be used."""
    proxy, proxy_authorization = split_proxy(config.proxy_url)
    return SenderOptions(
        base_url=config.url,
        user_agent=f"ingester/{VERSION}",
        proxy=proxy,
        proxy_authorization=proxy_authorization,
        ssl_context=ssl_context(config),
        max_connections=config.max_concurrency,
        keep_alive_s=config.server_profile.keep_alive_s,
        connect_timeout_s=config.connect_timeout_s,
        stall_timeout_s=config.stall_timeout_s,
        answer_timeout_s=config.answer_timeout_s,
        refusal_patience_s=PATIENCE_IN_BACKOFFS * config.backoff_base_s,
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
    kept = (config.results, config.log_file)
    own = {os.path.realpath(path) for path in kept if path is not None}
    return frozenset(map(os.fsencode, own | journal_files(config.journal)))
