"""Visits of the administrator: the token of the link that `eigenlens serve` prints becomes a key, once."""

from __future__ import annotations

from fastapi import APIRouter

from eigenlens.service.api.visits import VisitAnswer, VisitBody
from eigenlens.service.errors import KeyMissingError
from eigenlens.service.http.openapi import problem_responses
from eigenlens.service.http.state import CurrentState

router = APIRouter(prefix="/v1/session", tags=["admin"])


@router.post("", responses=problem_responses("key-missing"))
async def start_session(body: VisitBody, state: CurrentState) -> VisitAnswer:
    """Get a key for the token of the link that `eigenlens serve` prints; a token is taken once.

    The key has the scope admin until the service ends, and is stored nowhere.
    """
    key = state.keyring.exchange(body.token)
    if key is None:
        raise KeyMissingError("this link was used already, or the service was started again since; use a key instead")
    return VisitAnswer(key=key)
