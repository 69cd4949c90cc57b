"""The base of answers: members can be read as attributes, and by name as in JSON."""

from __future__ import annotations

from collections.abc import ItemsView, KeysView
from typing import Any

from pydantic import BaseModel


class AnswerModel(BaseModel):
    """An answer of the service. What the service left out is None as an attribute, and is not there by name.

    answer.plan.length == answer["plan"]["length"]
    "code" in answer  # whether the service sent it
    """

    def __getitem__(self, name: str) -> Any:
        if name not in self.model_fields_set:
            raise KeyError(name)
        return getattr(self, name)

    def __contains__(self, name: object) -> bool:
        return name in self.model_fields_set

    def get(self, name: str, default: Any = None) -> Any:
        """Return a member, or `default` where the service left it out."""
        return getattr(self, name) if name in self.model_fields_set else default

    def keys(self) -> KeysView[str]:
        """Return the names of the members that the service sent."""
        return self._sent().keys()

    def items(self) -> ItemsView[str, Any]:
        """Return the members that the service sent, with their names."""
        return self._sent().items()

    def _sent(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}
