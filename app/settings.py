"""All settings, read once from `FETTLE_*` variables and passed in; nothing else reads the environment."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

ORIGIN = re.compile(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:]+\](:[0-9]{1,5})?")


def _never(value: object) -> object:
    """None for the words that say so: a variable of the environment can't be null."""
    return None if isinstance(value, str) and value.strip().lower() in {"", "null", "none", "never"} else value


RetentionDays = Annotated[Annotated[float, Field(gt=0, le=36_500, allow_inf_nan=False)] | None, BeforeValidator(_never)]


class Settings(BaseSettings):
    """The service's settings. Names carry their units; every one is also a variable `FETTLE_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="FETTLE_", frozen=True, extra="ignore")

    data_dir: Path = Field(default=Path("fettle-data"), description="Holds fettle.db, artifacts/, datasets/ and logs/.")
    database_url: str = Field(default="", description="Empty: SQLite in the data directory. Or postgresql+psycopg://…")
    artifact_url: str = Field(default="", description="An fsspec location; empty: artifacts/ in the data directory.")
    dataset_url: str = Field(default="", description="An fsspec location; empty: datasets/ in the data directory.")
    dataset_roots: str = Field(
        default="", description="Comma-separated file:///… or s3://… that data sets may be registered from."
    )

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8000
    allow_open: bool = Field(default=False, description="Serve without API keys on an address that is not loopback.")
    key_secret: SecretStr | None = Field(
        default=None,
        min_length=32,
        description="What API keys are hashed under, the same for all API processes; if left out, made in the data "
        "directory.",
    )
    metrics_open: bool = Field(default=False, description="Serve `/metrics` without an API key.")

    device: str = Field(default="auto", pattern=r"^(auto|cpu|gpu(:\d{1,3})?)$")
    families: str = Field(
        default="", description="Comma-separated families that a worker offers; empty: all it can train."
    )
    worker_labels: str = Field(default="", description="Comma-separated key=value pairs that a worker offers.")

    database_wait_s: Annotated[float, Field(ge=0, le=86_400)] = Field(
        default=60.0, description="How long a process waits at its start for a database that isn't there or migrated."
    )
    log_format: str = Field(
        default="text", pattern=r"^(text|json)$", description="Log lines as `text` (`key=value`) or `json`."
    )
    log_level: str = Field(
        default="info", pattern=r"^(debug|info|warning|error)$", description="The least that is logged."
    )

    lease_ttl_s: Annotated[float, Field(ge=0.5, le=3600)] = Field(
        default=30.0, description="A lease that is not renewed for this long is given to another worker."
    )
    drain_grace_s: Annotated[float, Field(ge=0, le=3600)] = Field(
        default=20.0, description="A draining worker lets its trials run this long before it gives them back."
    )
    checkpoint_interval_s: Annotated[float, Field(gt=0)] = Field(
        default=30.0, description="A trial that trains for this long leaves a checkpoint this often."
    )
    hang_timeout_s: Annotated[float, Field(gt=0)] = Field(
        default=900.0, description="A trainer silent for this long inside a trial is taken for hung and replaced."
    )
    trainer_max_trials: Annotated[int, Field(ge=1)] = Field(
        default=5000, description="A trainer is recycled after this many trials."
    )
    trainer_max_memory_mb: Annotated[int, Field(ge=256)] = Field(
        default=8192, description="A trainer whose resident memory passes this is recycled between trials."
    )
    trainer_kill_memory_mb: Annotated[int, Field(ge=256)] | None = Field(
        default=None,
        description="A trainer that passes this inside a trial is killed; where it isn't set, its share of what the "
        "machine or container has, less 15 % of it or 1,000 MB for all else.",
    )
    workers_on_machine: Annotated[int, Field(ge=1)] = Field(
        default=1, description="How many workers share that memory; `fettle up` tells it to those that it starts."
    )

    device_memory_mb: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="What a trial may need of its device's memory; found out where it isn't set."
    )

    max_body_bytes: Annotated[int, Field(ge=1024)] = Field(default=1_000_000, description="Largest JSON request body.")
    max_upload_bytes: Annotated[int, Field(ge=1024)] = Field(
        default=200_000_000, description="Largest file of an uploaded or registered data set."
    )
    max_unpacked_bytes: Annotated[int, Field(ge=1024)] = Field(
        default=1_000_000_000, description="Most bytes that such a file may unpack to."
    )
    max_dataset_rows: Annotated[int, Field(ge=1)] = Field(
        default=10_000_000, description="Most rows of such a data set."
    )
    dataset_cache_bytes: Annotated[int, Field(ge=0)] = Field(
        default=20_000_000_000,
        description="What a worker keeps of uploads in its data directory; the newest one stays.",
    )
    max_definition_bytes: Annotated[int, Field(ge=1024)] = Field(
        default=500_000, description="Largest definition, as JSON with all defaults filled in."
    )
    max_waiting_trials: Annotated[int, Field(ge=1)] = Field(
        default=10_000, description="Most trials of a study that were enqueued and wait."
    )
    max_trials: Annotated[int, Field(ge=1)] = 100_000
    max_epochs: Annotated[int, Field(ge=1)] = 10_000
    max_parallel_trials: Annotated[int, Field(ge=1)] = 1_000
    max_parameters: Annotated[int, Field(ge=1)] = Field(
        default=200, description="Most searched hyperparameters of a study."
    )
    max_model_parameters: Annotated[int, Field(ge=1)] = Field(
        default=100_000_000, description="Most weights of the largest model in a study's space."
    )
    header_timeout_s: Annotated[float, Field(gt=0, le=600)] = Field(
        default=10.0, description="A connection that has not sent a request's headers by then is closed."
    )
    body_timeout_s: Annotated[float, Field(gt=0, le=3600)] = Field(
        default=30.0, description="What a request's body may take, and a second more for each 10,000 bytes of it."
    )
    write_timeout_s: Annotated[float, Field(gt=0, le=3600)] = Field(
        default=30.0, description="A client that takes nothing of an answer or a stream for this long is cut off."
    )
    max_connections: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="Most open connections of one API process; 256 fewer than it may have descriptors where it isn't "
        "set, and never more.",
    )
    max_connections_per_address: Annotated[int, Field(ge=1)] = Field(
        default=250, description="Most of them from one address that is not loopback, nor a trusted proxy's."
    )
    max_streams: Annotated[int, Field(ge=1)] = Field(default=2_000, description="Most open streams of one API process.")
    max_streams_per_key: Annotated[int, Field(ge=1)] = Field(
        default=100,
        description="Most of them for one key, or for one address that is not loopback where there is none.",
    )
    rate_reads_per_minute: Annotated[int, Field(ge=0)] = Field(
        default=12_000, description="Reads of one key, or of one such address, by one API process; 0: no limit."
    )
    rate_writes_per_minute: Annotated[int, Field(ge=0)] = Field(
        default=6_000, description="Writes, counted likewise: studies, trials, what outside programs tell."
    )
    rate_heavy_per_minute: Annotated[int, Field(ge=0)] = Field(
        default=240,
        description="Calls that compute, likewise: new studies, validation, best trials, importances, plots, exports, "
        "reports, uploads.",
    )
    rate_failures_per_minute: Annotated[int, Field(ge=0)] = Field(
        default=30, description="Refused keys from one address before it has to wait; 0: no limit."
    )
    trusted_proxies: str = Field(
        default="", description="Comma-separated addresses or networks whose X-Forwarded-For is believed."
    )
    allowed_hosts: str = Field(
        default="", description="Comma-separated host names that the API is reached by, such as tune.example.org."
    )
    cors_origins: str = Field(
        default="", description="Comma-separated origins whose pages may call the API, such as https://app.example.org."
    )
    stream_poll_s: Annotated[float, Field(gt=0, le=10)] = Field(
        default=0.1, description="How often a stream's tailer reads the log."
    )
    stream_ping_s: Annotated[float, Field(gt=0, le=15)] = Field(
        default=10.0, description="Longest silence on an open stream."
    )

    webhook_allowed_networks: str = Field(
        default="", description="Comma-separated networks (CIDR) that webhooks may reach beside public addresses."
    )
    webhook_timeout_s: Annotated[float, Field(gt=0, le=60)] = Field(
        default=10.0, description="A receiver of webhooks that takes longer to answer has failed."
    )
    webhook_retry_s: Annotated[float, Field(gt=0, le=3600)] = Field(
        default=2.0, description="Wait before the second try of a webhook; each further one waits twice as long."
    )
    webhook_disable_after_s: Annotated[float, Field(gt=0)] = Field(
        default=432_000.0, description="A webhook that has failed for this long is disabled (five days)."
    )

    event_retention_days: RetentionDays = Field(
        default=None, description="Events of studies that ended longer ago are deleted, but for the last; null: never."
    )
    metric_retention_days: RetentionDays = Field(
        default=None, description="The same for what trials reported by epoch; their results stay."
    )
    log_retention_days: RetentionDays = Field(default=None, description="The same for trials' logs.")
    artifact_retention_days: RetentionDays = Field(
        default=None, description="The same for trials' files: models and checkpoints."
    )
    orphan_retention_days: RetentionDays = Field(
        default=None,
        description="Files of attempts that nothing points to are deleted once they are older. "
        "Only where no other service has the same locations; null: never.",
    )
    worker_retention_days: RetentionDays = Field(
        default=30.0, description="Workers that were not heard of for longer are forgotten; null: never."
    )

    @field_validator("webhook_allowed_networks")
    @classmethod
    def _known_networks(cls, value: str) -> str:
        for part in filter(None, (p.strip() for p in value.split(","))):
            ipaddress.ip_network(part)
        return value

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: str) -> str:
        if value and not value.startswith(("sqlite:///", "postgresql://", "postgresql+psycopg://")):
            raise ValueError("Expected sqlite:///…, postgresql://… or postgresql+psycopg://…")
        return value

    @field_validator("key_secret", mode="before")
    @classmethod
    def _given(cls, value: object) -> object:
        return None if value == "" else value  # as compose files pass on a variable that isn't set

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: str) -> str:
        for origin in _listed(value):
            if not ORIGIN.fullmatch(origin):
                raise ValueError("Expected origins such as https://app.example.org, without a path, never *.")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies(cls, value: str) -> str:
        for address in _listed(value):
            try:
                ipaddress.ip_network(address, strict=False)
            except ValueError:
                raise ValueError("Expected addresses or networks, such as 10.0.0.0/8.") from None
        return value

    @property
    def proxies(self) -> list[str]:
        """The addresses and networks whose `X-Forwarded-For` is believed."""
        return _listed(self.trusted_proxies)

    @property
    def hosts(self) -> frozenset[str]:
        """The host names that the API is said to be reached by, in lower case."""
        return frozenset(host.lower() for host in _listed(self.allowed_hosts))

    @property
    def origins(self) -> list[str]:
        """The origins whose pages may call the API."""
        return _listed(self.cors_origins)

    @property
    def resolved_database_url(self) -> str:
        """The database's URL: the one given, or SQLite in the data directory."""
        return self.database_url or f"sqlite:///{(self.data_dir / 'fettle.db').absolute()}"

    @property
    def resolved_artifact_url(self) -> str:
        """Where artifacts lie: the fsspec location given, or a folder of the data directory."""
        return self.artifact_url or str((self.data_dir / "artifacts").absolute())

    @property
    def resolved_dataset_url(self) -> str:
        """Where uploaded data sets lie: the fsspec location given, or a folder of the data directory."""
        return self.dataset_url or str((self.data_dir / "datasets").absolute())

    @property
    def is_loopback(self) -> bool:
        """Whether the host is reachable from this machine alone."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def _listed(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]
