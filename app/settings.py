"""All settings, read once from `FETTLE_*` variables and passed in; nothing else reads the environment."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


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
    max_trials: Annotated[int, Field(ge=1)] = 100_000
    max_epochs: Annotated[int, Field(ge=1)] = 10_000
    max_parallel_trials: Annotated[int, Field(ge=1)] = 1_000
    max_parameters: Annotated[int, Field(ge=1)] = Field(
        default=200, description="Most searched hyperparameters of a study."
    )
    max_model_parameters: Annotated[int, Field(ge=1)] = Field(
        default=100_000_000, description="Most weights of the largest model in a study's space."
    )
    stream_poll_s: Annotated[float, Field(gt=0, le=10)] = Field(
        default=0.1, description="How often a stream's tailer reads the log."
    )
    stream_ping_s: Annotated[float, Field(gt=0, le=15)] = Field(
        default=10.0, description="Longest silence on an open stream."
    )

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
