"""The policy of each route: the scope of key that it needs, the limit of its body and the shape of its errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from eigenlens.service.keys import KeyScope

_READING = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True)
class RoutePolicy:
    """The policy of the routes at a path or, if it ends in a slash, below it.

    Attributes:
        path: exact path, or the beginning of paths.
        scope: scope that a key needs; None if no key is needed.
        read_scope: the same for GET, HEAD and OPTIONS.
        takes_many_images: whether the limit of the body is that of a batch, not of one image.
        error_style: "problem" for problem documents (RFC 9457), "openai" for errors in OpenAI's shape.
        statuses: statuses of errors that any call can have, for the API document.
    """

    path: str
    scope: KeyScope | None
    read_scope: KeyScope | None = "search"
    takes_many_images: bool = False
    error_style: Literal["problem", "openai"] = "problem"
    statuses: tuple[int, ...] = (429, 500, 503)

    def scope_of(self, method: str) -> KeyScope | None:
        """Return the scope that a request of this method needs; None if it needs no key."""
        return self.read_scope if method in _READING else self.scope


POLICIES = (
    RoutePolicy("/v1/search", "search"),
    RoutePolicy("/v1/search/batch", "search", takes_many_images=True),
    RoutePolicy("/v1/lengths", "search"),
    RoutePolicy("/v1/duplicates", "search"),
    RoutePolicy("/v1/facets", "search"),
    RoutePolicy("/v1/exif", "search"),
    RoutePolicy("/v1/map", "search"),
    RoutePolicy("/v1/map/", "search"),
    RoutePolicy("/v1/eigenfunctions", "search"),
    RoutePolicy("/v1/eigenfunctions/", "search"),
    RoutePolicy("/v1/embeddings", "search", takes_many_images=True, error_style="openai"),
    RoutePolicy("/v1/embeddings/", "search", error_style="openai"),
    RoutePolicy("/embeddings", "search", takes_many_images=True, error_style="openai"),
    RoutePolicy("/embeddings/", None, read_scope=None, error_style="openai"),
    RoutePolicy("/v1/models", "search", error_style="openai"),
    RoutePolicy("/v1/models/", "search", error_style="openai"),
    RoutePolicy("/v1/images", "write", takes_many_images=True),
    RoutePolicy("/v1/images/", "write"),
    RoutePolicy("/v1/session", None),
    RoutePolicy("/v1/admin", "admin", read_scope="admin"),
    RoutePolicy("/v1/admin/", "admin", read_scope="admin"),
    # Any other path of the API needs the strictest scope.
    RoutePolicy("/v1", "admin"),
    RoutePolicy("/v1/", "admin"),
    RoutePolicy("/healthz", None, read_scope=None, statuses=()),
    RoutePolicy("/readyz", None, read_scope=None, statuses=(503, 500)),
    # The page, and paths without a route.
    RoutePolicy("/", None, read_scope=None),
)
_EXACT = {policy.path: policy for policy in POLICIES if not policy.path.endswith("/")}
_BELOW = tuple(policy for policy in POLICIES if policy.path.endswith("/"))


def policy_of(path: str) -> RoutePolicy:
    """Return the policy of a path: the one that names it, or the first one that it begins with."""
    exact = _EXACT.get(path)
    return exact if exact is not None else next((p for p in _BELOW if path.startswith(p.path)), _BELOW[-1])
