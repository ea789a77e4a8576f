"""Rubrics as data: what makes an answer good, point by point.

about: A reply to a customer.                  # optional: shown to the judge
items:
- {id: polite, text: It is polite., gate: true}                    # not met: the whole value is 0
- {id: refund, text: It says when the money comes back., weight: 2, evidence: true}     # the judge must quote the passage
- {id: clear, text: It is easy to follow., points: 5}              # 0 to 5 in place of yes or no
- {id: blame, text: It blames the customer., weight: -1}           # lowers the value where it is met
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from guerdon.registry import Refused, nearest

BUILT_IN = Path(__file__).parent / "rubrics"


class Item(BaseModel):
    """One point of a rubric. Its share is 1 or 0, or with `points` the points given of so many."""

    model_config = ConfigDict(extra="forbid")
    id: str = Field(default="", max_length=60, description="its number unless stated")
    text: str = Field(min_length=1, description="what the judge finds to be so, or not")
    weight: float = Field(default=1.0, allow_inf_nan=False)
    gate: bool = False
    evidence: bool = Field(default=False, description="met only where the judge quotes a passage that stands in the answer")
    points: int | None = Field(default=None, ge=1, le=100)

    @model_validator(mode="after")
    def _gate_is_plain(self) -> Item:
        if self.gate and (self.points is not None or self.weight < 0):
            raise ValueError("a gate is met or not: it has neither `points` nor a `weight` below 0")
        return self


class Rubric(BaseModel):
    """value = max(0, sum_i weight_i share_i / sum of the positive weights), 0 where a gate is not met, 1 where no weight is positive."""

    model_config = ConfigDict(extra="forbid")
    about: str = ""
    items: list[Item] = Field(min_length=1, max_length=100)

    @model_validator(mode="after")
    def _named(self) -> Rubric:
        for number, item in enumerate(self.items, 1):
            item.id = item.id or str(number)
        names = [item.id for item in self.items]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two items have the id {twice!r}; give each its own")
        if all(item.weight <= 0 and not item.gate for item in self.items):
            raise ValueError("no item is a gate or has a weight above 0, so that every answer would get the same")
        return self

    def value(self, shares: Mapping[str, float]) -> float:
        """shares: of each item by id, in [0, 1]. A gate is met above one half (of the votes)."""
        if any(item.gate and shares[item.id] <= 0.5 for item in self.items):
            return 0.0
        whole = math.fsum(item.weight for item in self.items if item.weight > 0)
        return max(0.0, math.fsum(item.weight * shares[item.id] for item in self.items) / whole) if whole else 1.0


def load(file: str | Path) -> Rubric:
    """The rubric of a YAML file, or of a name without ending, which guerdon ships. Raises Refused naming file and field."""
    path = Path(file)
    if not path.suffix and path.name == str(file):
        path = BUILT_IN / f"{file}.yaml"
        if not path.is_file():
            raise Refused(f"There is no rubric {str(file)!r}{nearest(str(file), [p.stem for p in BUILT_IN.glob('*.yaml')])}")
    try:
        return rubric_of(yaml.safe_load(path.read_text(encoding="utf-8")), str(file))
    except OSError as error:
        raise Refused(f"The rubric {file} cannot be read: {error.strerror or error}.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Refused(f"The rubric {file} is no YAML: {' '.join(str(error).split())[:200]}.") from None


def rubric_of(data: Any, where: str) -> Rubric:
    """The rubric of a mapping, or of the list of its items. Raises Refused: where, field, and what is wrong."""
    try:
        return Rubric.model_validate({"items": data} if isinstance(data, list) else data)
    except ValidationError as error:
        first = error.errors()[0]
        field = ", ".join(f"number {part + 1}" if isinstance(part, int) else str(part) for part in first["loc"])
        said = first["msg"].removeprefix("Value error, ")
        raise Refused(f"The rubric of {where}{f', {field}' if field else ''}: {said}.") from None
