"""What holds for each route whatever its function does: who may call it, how much may be sent, how errors look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from eigenlens.service.keys import KeyScope

_READING = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True)
class RoutePolicy:
    """The policy of the routes at a path, or below it where it ends in a slash.

    Attributes:
        path: exact, or what paths begin with.
        scope: that a key needs; None where everybody may.
        read_scope: the same for GET, HEAD and OPTIONS.
        takes_many_images: whether a body may be as large as a batch's, not only as one image's.
        error_style: problems (RFC 9457), or errors as clients of OpenAI's interface understand them.
        statuses: of errors that any call of it can meet, for the API document.
    """

    path: str
    scope: KeyScope | None
    read_scope: KeyScope | None = "search"
    takes_many_images: bool = False
    error_style: Literal["problem", "openai"] = "problem"
    statuses: tuple[int, ...] = (429, 500, 503)

    def scope_of(self, method: str) -> KeyScope | None:
        """Return the scope that a request of this method needs; None where everybody may."""
        return self.read_scope if method in _READING else self.scope


POLICIES = (
    RoutePolicy("/v1/search", "search"),
    RoutePolicy("/v1/search/batch", "search", takes_many_images=True),
    RoutePolicy("/v1/lengths", "search"),
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
    RoutePolicy("/v1/admin", "admin", read_scope="admin"),
    RoutePolicy("/v1/admin/", "admin", read_scope="admin"),
    # What is not known to need less.
    RoutePolicy("/v1", "admin"),
    RoutePolicy("/v1/", "admin"),
    RoutePolicy("/healthz", None, read_scope=None, statuses=()),
    RoutePolicy("/readyz", None, read_scope=None, statuses=(503, 500)),
    # The page, and what no route answers.
    RoutePolicy("/", None, read_scope=None),
)
_EXACT = {policy.path: policy for policy in POLICIES if not policy.path.endswith("/")}
_BELOW = tuple(policy for policy in POLICIES if policy.path.endswith("/"))


def policy_of(path: str) -> RoutePolicy:
    """Return the policy of a path: the one that names it, or the first one that it begins with."""
    exact = _EXACT.get(path)
    return exact if exact is not None else next((p for p in _BELOW if path.startswith(p.path)), _BELOW[-1])
