"""What all parts of ``pool.yaml`` have in common."""

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """A part of ``pool.yaml``: unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")
