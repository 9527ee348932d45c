"""What all answers have in common: an answer is frozen, and ``model_dump_json()`` of it is what an API returns."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Result(BaseModel):
    """Base class of what the public face answers with."""

    model_config = ConfigDict(frozen=True)
