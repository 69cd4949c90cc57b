"""How a client reaches a service: the address, proxies of the environment, and certificates. Errors are sentences."""

from __future__ import annotations

import os
import ssl
from ipaddress import ip_address
from typing import Any
from urllib.request import getproxies, proxy_bypass

import httpx

from eigenlens.service.client.errors import UnreachableError
from eigenlens.service.errors import ServiceError

_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


def transport_options(url: str) -> dict[str, Any]:
    """Return keywords of httpx's clients for a service at an address. Raises: UnreachableError; ServiceError."""
    if not url.startswith(("http://", "https://")):
        meant = f"http://{url}" if "://" not in url else url.replace(url.partition("://")[0], "http", 1)
        raise UnreachableError(f"'{url}' is no address, which begins with http:// or https://: try {meant}")
    try:
        host = httpx.URL(url).host
    except httpx.InvalidURL as error:
        raise UnreachableError(f"'{url}' is no address of a service: {error}") from error
    options: dict[str, Any] = {"base_url": url, "trust_env": not is_loopback(host)}
    if url.startswith("http://"):
        options["verify"] = False  # no certificate is looked at, so a wrong SSL_CERT_FILE does not matter
    elif not options["trust_env"]:
        options["verify"] = _certificates(url)
    return options


def cannot_connect(url: str, error: Exception) -> ServiceError:
    """Return the error for a client that could not be made: the environment names what is not there."""
    host = httpx.URL(url).host
    if isinstance(error, OSError):
        named = next((f"{name}={os.environ[name]}" for name in _CERTIFICATES if os.environ.get(name)), "certificates")
        return ServiceError(f"{named} cannot be read ({error.strerror or error}); name a file in PEM, or unset it")
    proxy = _proxy_of(url) or next(iter(getproxies().values()), "")
    needs = "; SOCKS needs more: pip install 'httpx[socks]'" if isinstance(error, ImportError) else f" ({error})"
    return ServiceError(f"the proxy {_public(proxy)} of the environment cannot be used{needs}, or set NO_PROXY={host}")


def unreachable(url: object, error: Exception) -> UnreachableError:
    """Return the error for a service that does not answer."""
    return UnreachableError(
        f"no service answers at {url}{_describe_proxy(str(url))} ({error!r}); "
        "start one with `eigenlens serve`, or give its address"
    )


def _describe_proxy(url: str) -> str:
    """Return a remark on the proxy that the environment puts before a service; empty if there is none."""
    proxy = _proxy_of(url)
    return f" through the proxy {_public(proxy)} (set NO_PROXY={httpx.URL(url).host} to go without it)" if proxy else ""


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine, which no proxy reaches."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _proxy_of(url: str) -> str | None:
    parsed = httpx.URL(url)
    if is_loopback(parsed.host) or proxy_bypass(parsed.host):
        return None
    proxies = getproxies()
    return proxies.get(parsed.scheme) or proxies.get("all")


def _public(proxy: str) -> str:
    """Return the address of a proxy without its password."""
    return proxy.rpartition("://")[0] + "://" + proxy.rpartition("@")[2] if "@" in proxy else proxy


def _certificates(url: str) -> ssl.SSLContext | bool:
    file, directory = (os.environ.get(name) or None for name in _CERTIFICATES)
    if file is None and directory is None:
        return True
    try:
        return ssl.create_default_context(cafile=file, capath=directory)
    except OSError as error:
        raise cannot_connect(url, error) from error
