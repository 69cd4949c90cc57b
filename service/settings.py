"""Settings of the service: one typed table, read once from flags and EIGENLENS_* variables, misspellings refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from eigenlens.index.faiss_engine.gpu import Device
from eigenlens.service.errors import SettingsError
from eigenlens.service.telemetry.logs import LogFormat

_PREFIX = "EIGENLENS_"
# Of the commands that ask a service.
_OF_CLIENTS = {"EIGENLENS_URL", "EIGENLENS_KEY"}


class Settings(BaseSettings):
    """Every field is a flag of `eigenlens serve` and an environment variable; a flag wins."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, extra="forbid")

    gallery: Path = Field(description="directory of the gallery to serve")
    host: str = Field("127.0.0.1", description="address to listen on; other machines can reach 0.0.0.0")
    port: int = Field(8080, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    admin_key_file: Path | None = Field(
        None, description="file of the admin key, created on first start; GALLERY/admin.key when absent"
    )
    keys_file: Path | None = Field(
        None, description="file of the keys that `eigenlens keys` makes; GALLERY/keys.json when absent"
    )
    search_needs_key: bool = Field(False, description="whether searching and reading need a key with the scope search")
    rate_limit: PositiveFloat | None = Field(
        None, description="requests a second of one key, or of one address without a key; no limit when absent"
    )
    rate_burst: PositiveInt = Field(20, description="requests that a client may send at once below its rate limit")
    cors_origins: str = Field(
        "", description="origins whose pages may call the API from a browser, separated by commas; none when empty"
    )
    import_root: Path | None = Field(
        None, description="folder of this machine below which POST /v1/admin/import may take images; none when absent"
    )
    workers: PositiveInt = Field(1, description="processes that answer requests, over the one gallery")
    max_image_bytes: PositiveInt = Field(16 * 2**20, description="largest image that is accepted, in bytes")
    max_batch_bytes: PositiveInt = Field(64 * 2**20, description="largest request that brings several images, in bytes")
    max_pixels: PositiveInt = Field(64_000_000, description="most pixels of an image that is decoded")
    max_k: PositiveInt = Field(1000, description="most results of one search")
    max_waiting: PositiveInt = Field(64, description="searches in progress at most; more are answered 429 at once")
    compute_threads: PositiveInt = Field(
        default_factory=lambda given: max(1, processors() // given.get("workers", 1)) + 1,
        description="searches that compute at the same time, in each worker; one waits for the interpreter, as a rule",
    )
    max_batch: PositiveInt | None = Field(
        None,
        description="photographs that are encoded together at most; as many as make the encoder faster, tried at "
        "start, and at least 4, when absent",
    )
    log_format: LogFormat = Field("text", description="of log lines: text, or json with an object on each line")
    log_requests: bool = Field(False, description="whether every answered request is logged")
    runtime: Literal["auto", "onnxruntime", "openvino"] = Field(
        "auto", description="what runs the encoder; auto: the faster of those that are installed, tried at start"
    )
    search_device: Device = Field(
        "auto", description="what searches and builds indexes: cpu, gpu, or auto for a GPU where FAISS sees one"
    )
    deadline_s: PositiveFloat = Field(
        2.0, description="time in which an accepted search is answered or given up (429), in seconds"
    )
    upload_timeout_s: PositiveFloat = Field(20.0, description="time a client may take to send a request, in seconds")

    @model_validator(mode="after")
    def _refuse_unknown(self) -> Self:
        known = {f"{_PREFIX}{name}".upper() for name in type(self).model_fields} | _OF_CLIENTS
        unknown = sorted(v for v in os.environ if v.startswith(_PREFIX) and v not in known)
        if unknown:
            raise ValueError(f"unknown settings {', '.join(unknown)}; there are {', '.join(sorted(known))}")
        return self

    @property
    def key_file(self) -> Path:
        """Where the admin key lies."""
        return self.admin_key_file or self.gallery / "admin.key"

    @property
    def keys_path(self) -> Path:
        """Where the keys lie that were made by command."""
        return self.keys_file or self.gallery / "keys.json"


def processors() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0))


def load_settings(**given: Any) -> Settings:
    """Settings from flags that were given, the environment and defaults. Raises: SettingsError, naming the setting."""
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors())
        raise SettingsError(f"wrong settings: {problems}") from error
