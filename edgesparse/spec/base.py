"""What every YAML model shares: strict keys, valid names."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError


class Strict(BaseModel):
    """Immutable data; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class OneOf(Strict):
    """A choice between its keys, each None unless given: exactly one must be."""

    @model_validator(mode="after")
    def _exactly_one(self) -> OneOf:
        names = list(type(self).model_fields)
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) != 1:
            choices = f"{', '.join(names[:-1])} and {names[-1]}"
            raise PydanticCustomError(
                "one_of",
                "give exactly one of {choices}, not {found}",
                {"choices": choices, "found": " and ".join(given) or "none"},
            )
        return self


Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=64)]
"""A name that is safe as a file name, in a shell and in a table."""
