"""The shapes of searches and their answers, as the OpenAPI document tells them."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

from eigenlens.service.api.answer import AnswerModel
