"""Settings of the service: one typed table, read once from flags and EIGENLENS_* variables; refuses unknown names."""

from __future__ import annotations

import difflib
import os
import re
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from eigenlens.index.faiss_engine.gpu import Device
from eigenlens.model.images.decode import DEFAULT_MAX_PIXELS
from eigenlens.model.images.sources import DEFAULT_MAX_IMAGE_BYTES
from eigenlens.processors import processors
from eigenlens.service.errors import SettingsError
from eigenlens.service.gallery.limits import Limits
from eigenlens.service.telemetry.logs import LogFormat

_PREFIX = "EIGENLENS_"
# Errors that are there only because another setting is wrong.
_FOLLOWING = {"default_factory_not_called"}
# Variables of the commands that call a service, which the service itself ignores.
_OF_CLIENTS = {"EIGENLENS_URL", "EIGENLENS_KEY"}


class Settings(BaseSettings):
    """Every field is a flag of `eigenlens serve` and an environment variable; a flag overrides the variable."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, extra="forbid")

    gallery: Path = Field(description="directory of the gallery to serve")
    store: str | None = Field(
        None,
        repr=False,
        description="address of the PostgreSQL that has the gallery's images, such as postgresql://user@host/database, "
        "which several services may share; give it as the variable, since a flag shows its password to other users; "
        "default: SQLite in the gallery's directory",
    )
    backend_url: str | None = Field(
        None,
        description="address of the Qdrant that has the gallery's codes, where they were built with the backend "
        "qdrant, such as http://qdrant.example:6333; default: none",
    )
    backend_api_key: str | None = Field(
        None,
        repr=False,
        description="API key or token of that Qdrant; give it as the variable, since a flag shows it to other users; "
        "default: none",
    )
    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 is open to other machines")
    port: int = Field(8080, ge=0, le=65535, description="port to listen on; 0 picks a free one")
    root_path: str = Field(
        "", description="path below which a reverse proxy publishes the service, such as /photos; default: none"
    )
    trusted_proxies: str = Field(
        "",
        description="addresses or networks of reverse proxies, separated by commas, whose X-Forwarded-For and "
        "X-Forwarded-Proto are believed; default: none",
    )
    tls_certificate: Path | None = Field(
        None, description="file of the certificate and its chain, PEM, to answer HTTPS with; default: plain HTTP"
    )
    tls_key: Path | None = Field(None, description="file of the certificate's key, PEM, without a password")
    admin_key_file: Path | None = Field(
        None, description="file of the admin key, created on first start; default: GALLERY/admin.key"
    )
    keys_file: Path | None = Field(
        None, description="file of the keys that `eigenlens keys` makes; default: GALLERY/keys.json"
    )
    search_needs_key: bool = Field(False, description="whether searching and reading need a key with the scope search")
    rate_limit: PositiveFloat | None = Field(
        None, description="requests a second per key, or per address without a key; default: no limit"
    )
    rate_burst: PositiveInt = Field(20, description="requests that a client may send at once within its rate limit")
    cors_origins: str = Field(
        "", description="origins whose pages may call the API from a browser, separated by commas; default: none"
    )
    import_root: Path | None = Field(
        None,
        description="folder of this machine below which POST /v1/admin/import may import; default: none",
    )
    workers: PositiveInt = Field(1, description="processes that answer requests, all over the same gallery")
    max_image_bytes: PositiveInt = Field(
        DEFAULT_MAX_IMAGE_BYTES, description="largest image that is accepted, in bytes"
    )
    max_batch_bytes: PositiveInt = Field(64 * 2**20, description="largest request with several images, in bytes")
    max_pixels: PositiveInt = Field(DEFAULT_MAX_PIXELS, description="largest image that is decoded, in pixels")
    max_k: PositiveInt = Field(1000, description="largest number of results of one search")
    max_waiting: PositiveInt = Field(
        64, description="largest number of searches in progress; more are answered 429 at once"
    )
    compute_threads: PositiveInt = Field(
        default_factory=lambda values: max(1, processors() // values.get("workers", 1)) + 1,
        description="threads that run searches, in each worker; one usually waits for Python's interpreter; "
        "default: processors, or the container's quota of them, divided by `workers`, plus one",
    )
    max_batch: PositiveInt | None = Field(
        None,
        description="largest number of photographs encoded together; default: as many as make the encoder faster, "
        "tried at start, and at least 4",
    )
    log_format: LogFormat = Field("text", description="format of the log: text, or json with one object per line")
    log_requests: bool = Field(False, description="whether every answered request is logged")
    runtime: Literal["auto", "onnxruntime", "openvino"] = Field(
        "auto", description="what runs the encoder; auto: the fastest that is installed, tried at start"
    )
    search_device: Device = Field(
        "auto", description="what searches and builds indexes: cpu, gpu, or auto for the GPU if FAISS sees one"
    )
    deadline_s: PositiveFloat = Field(
        2.0, description="time after which an accepted search that is not answered gets 429, in seconds"
    )
    recall_share: float = Field(
        0.05,
        ge=0,
        le=1,
        description="share of searches that are repeated exactly to tell the recall they reached, only while the "
        "service is idle and with at most a hundredth of a core; 0 repeats none",
    )
    recent_queries: NonNegativeInt = Field(
        2000,
        description="codes of recent searches (no images) that are kept in memory for recalibration; 0 keeps none",
    )
    upload_timeout_s: PositiveFloat = Field(
        20.0, description="time in which something of a request has to arrive, in seconds"
    )

    @model_validator(mode="after")
    def _refuse_unknown(self) -> Self:
        known = {f"{_PREFIX}{name}".upper() for name in type(self).model_fields} | _OF_CLIENTS
        unknown = sorted(v for v in os.environ if v.startswith(_PREFIX) and v not in known)
        if unknown:
            meant = [name for v in unknown for name in difflib.get_close_matches(v, known, n=1)]
            suggestion = f"did you mean {', '.join(meant)}? " if meant else ""
            raise ValueError(f"unknown settings {', '.join(unknown)}; {suggestion}there are {', '.join(sorted(known))}")
        return self

    @field_validator("root_path")
    @classmethod
    def _check_path(cls, path: str) -> str:
        if not re.fullmatch(r"[\w.~/-]*", path, re.ASCII):
            raise ValueError(f"{path!r} is no path; give one such as /photos")
        parts = [part for part in path.split("/") if part]
        return "".join(f"/{part}" for part in parts)

    @field_validator("trusted_proxies")
    @classmethod
    def _check_networks(cls, networks: str) -> str:
        for network in filter(None, (part.strip() for part in networks.split(","))):
            try:
                ip_network(network)
            except ValueError as error:
                raise ValueError(f"{error}; give addresses or networks such as 127.0.0.1,10.0.0.0/8") from None
        return networks

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key need each other: give both files, or none for plain HTTP")
        for path in filter(None, (self.tls_certificate, self.tls_key)):
            if not os.access(path, os.R_OK):
                raise ValueError(f"{path} cannot be read; give a file in PEM")
        return self

    @property
    def limits(self) -> Limits:
        """The largest image that is taken."""
        return Limits(self.max_image_bytes, self.max_pixels)

    @property
    def key_file(self) -> Path:
        """Path of the file of the admin key."""
        return self.admin_key_file or self.gallery / "admin.key"

    @property
    def keys_path(self) -> Path:
        """Path of the file of the keys that `eigenlens keys` makes."""
        return self.keys_file or self.gallery / "keys.json"


def load_settings(**flags: Any) -> Settings:
    """Read the settings from flags that are not None, the environment and defaults.

    Raises: SettingsError, which names the setting.
    """
    try:
        return Settings(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        problems = [_describe(details) for details in error.errors() if details["type"] not in _FOLLOWING]
        raise SettingsError(f"wrong settings: {'; '.join(problems)}") from error


def _describe(details: Any) -> str:
    """Describe a wrong setting: its name, what was given, and what would work."""
    name = ".".join(map(str, details["loc"]))
    message = details["msg"].removeprefix("Value error, ").replace("Input should", "should")
    if details["type"] == "missing":
        return f"{name} is missing: give --{name.replace('_', '-')} or {_PREFIX}{name.upper()}"
    return f"{name}: {details['input']!r} {message}" if message.startswith("should") else f"{name or 'all'}: {message}"
