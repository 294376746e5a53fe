"""What every section of the settings is made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

FileName = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    """Base of all sections: strict types, no unknown keys, no change after start."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")
