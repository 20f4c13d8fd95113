"""Flags over environment over TOML over defaults, made into one frozen Config.

No configuration file is read unless it is named. Credentials come from the environment only: a
TOML with one in it is refused. Every value remembers where it came from.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ingester.auth import Secret, basic_authorization, bearer_authorization, is_word
from ingester.dicomweb.profiles import PROFILES, ServerProfile
from ingester.errors import UsageError
from ingester.options import BY_NAME, OPTIONS, Value
from ingester.parsing import command_words, parse
from ingester.proxy import proxy_for
from ingester.real_path import real_path
from ingester.target import resolve_target
from ingester.written import CREDENTIAL_VARIABLES, from_environment, from_toml


@dataclass(frozen=True, slots=True)
class Config:
    """The effective configuration of a run. The fields are the options of ``options.py``."""

    url: str
    datastore: str | None
    region: str | None
    server: str
    operation: str
    auth: str
    token_file: str | None
    token_command: str | None
    auth_patience_s: float
    profile: str | None
    signing_service: str
    payload_signing: str
    proxy: str | None
    ca_bundle: str | None
    client_cert: str | None
    client_key: str | None
    insecure: bool
    follow_symlinks: bool
    recheck: bool
    readers: int | None
    scan_processes: int | None
    read_timeout_s: float
    inline_limit: int
    memory_budget: int
    checksums: str
    max_batch_bytes: int
    max_batch_instances: int
    batch_age_s: float
    idle_slot_s: float
    max_open_instances: int
    max_concurrency: int
    max_attempts: int
    backoff_base_s: float
    backoff_cap_s: float
    connect_timeout_s: float
    stall_timeout_s: float
    answer_timeout_s: float
    max_outage_s: float
    drain_timeout_s: float
    journal: str
    rebind: bool
    retry: tuple[str, ...]
    max_resend: float
    results: str | None
    name: str
    operator: str
    progress_interval_s: float
    log_file: str | None
    log_level: str
    event_loop: str
    authorization: Secret | None = field(default=None, repr=False)
    proxy_url: Secret | None = field(default=None, repr=False)
    origins: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def server_profile(self) -> ServerProfile:
        """What is known of the kind of server."""
        return PROFILES[self.server]

    @property
    def credentials_from(self) -> str:
        """Where credentials come from, as far as it is known before a run; "" for nowhere."""
        if self.auth == "sigv4":
            return "the AWS credentials chain"
        if self.auth == "bearer" and self.authorization is None:
            return "--token-command" if self.token_file is None else "--token-file"
        return "" if self.authorization is None else "the environment"

    @property
    def digest(self) -> str:
        """Short SHA-256 of the options' values: two runs with the same had the same settings."""
        values = [f"{option.name}={getattr(self, option.name)!r}" for option in OPTIONS]
        return hashlib.sha256("\n".join(values).encode()).hexdigest()[:16]


def load_config(
    flags: Mapping[str, object],
    environment: Mapping[str, str],
    toml_path: str | None = None,
) -> Config:
    """Compose the configuration. ``flags`` holds what was given on the command line.

    Raises:
        UsageError: an unknown key or variable, a value that cannot be, no target, a secret in the
            TOML, credentials that are asked for and not there.
    """
    values: dict[str, Any] = {option.name: option.default for option in OPTIONS}
    origins = {option.name: "default" for option in OPTIONS}
    for name, given, where in (
        *from_toml(toml_path),
        *from_environment(environment),
        *((name, given, f"flag {BY_NAME[name].flag}") for name, given in flags.items()),
    ):
        values[name] = parse(BY_NAME[name], given, where)
        origins[name] = where
    resolve_target(values, origins, environment)
    _check_tls(values, origins)
    for variable in ("AWS_CA_BUNDLE", "SSL_CERT_FILE"):
        if values["ca_bundle"] is None and environment.get(variable) and not values["insecure"]:
            values["ca_bundle"] = environment[variable]
            origins["ca_bundle"] = f"environment {variable}"
    profile = PROFILES[values["server"]]
    for name in ("max_batch_bytes", "max_batch_instances", "max_concurrency"):
        if values[name] is None:
            values[name] = getattr(profile, name)
            origins[name] = f"default of server {profile.name}"
    if profile.max_body_bytes is not None:
        # The framing of a part is about 100 bytes: the whole body keeps below the limit.
        room = max(1, profile.max_body_bytes - 256 * values["max_batch_instances"])
        if values["max_batch_bytes"] > room:
            values["max_batch_bytes"] = room
            origins["max_batch_bytes"] += f", lowered: a request of {profile.name} holds no more"
    from ingester.journal.names import journal_files  # noqa: PLC0415 - not for --help

    for name, what in (("results", "results"), ("log_file", "log")):
        path = values[name]
        if path is not None and real_path(path) in journal_files(values["journal"]):
            raise UsageError(f"the {what} file is the journal: {path}", "name another")
    _check_log(values)
    return Config(
        **values,
        authorization=_authorization(values, origins, environment),
        proxy_url=proxy_for(values["url"], values["proxy"], origins["proxy"], environment),
        origins=origins,
    )


def _check_tls(values: Mapping[str, Any], origins: Mapping[str, str]) -> None:
    if values["insecure"] and values["ca_bundle"] is not None:
        raise UsageError(
            f"both {origins['insecure']} and {origins['ca_bundle']}",
            "with a CA bundle the server's certificate is verified: take one of them away",
        )
    if values["client_key"] is not None and values["client_cert"] is None:
        where = origins["client_key"]
        raise UsageError(f"{where}: a key without a certificate", "give --client-cert")
    for name in ("client_cert", "insecure"):
        if values[name] and not values["url"].startswith("https:"):
            raise UsageError(f"{origins[name]}: the target is not https: {values['url']}")


def _check_log(values: Mapping[str, Any]) -> None:
    results, log = values["results"], values["log_file"]
    if None not in (results, log) and real_path(results) == real_path(log):
        raise UsageError(f"the log file is the results file: {log}", "name another")


def _authorization(
    values: Mapping[str, Any], origins: Mapping[str, str], environment: Mapping[str, str]
) -> Secret | None:
    """The header, where it is in the environment. Checks the other sources of a token."""
    username, password, token = (environment.get(name) for name in CREDENTIAL_VARIABLES)
    auth = values["auth"]
    renewed = [
        origins[name] for name in ("token_file", "token_command") if values[name] is not None
    ]
    if auth == "bearer":
        if len(renewed) + bool(token) > 1:
            sources = [*renewed, "environment INGESTER_TOKEN"][:2]
            raise UsageError(
                f"two sources of the bearer token: {' and '.join(sources)}", "keep one"
            )
        if values["token_command"] is not None:
            command_words(values["token_command"], origins["token_command"])
        if renewed:
            return None
        if not token or not is_word(token):
            raise UsageError(
                "--auth bearer needs a token",
                "set INGESTER_TOKEN, or give --token-file or --token-command",
            )
        return Secret(bearer_authorization(Secret(token)))
    if renewed:
        raise UsageError(f"{renewed[0]}: only --auth bearer takes a token", "add --auth bearer")
    if auth == "basic":
        if not username or password is None:
            raise UsageError(
                "--auth basic needs credentials", "set INGESTER_USERNAME and INGESTER_PASSWORD"
            )
        if ":" in username:
            raise UsageError("INGESTER_USERNAME must not hold a colon (RFC 7617 2)")
        return Secret(basic_authorization(username, Secret(password)))
    return None


def values_of(config: Config) -> dict[str, Value]:
    """The options' values by name, in the order of the list."""
    return {option.name: getattr(config, option.name) for option in OPTIONS}


assert {option.name for option in OPTIONS} == {  # noqa: S101 - the two lists are one
    each.name for each in dataclasses.fields(Config)
} - {"authorization", "proxy_url", "origins"}
