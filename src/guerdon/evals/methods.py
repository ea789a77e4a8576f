"""The rows of all methods: what is built, where, how far it was confirmed, and what its check measured."""

from __future__ import annotations

import importlib
from importlib import resources
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from guerdon.registry import Refused, nearest


class Method(BaseModel):
    """One published method. `check` and `recipe` are paths from the root of the source tree, or null with the reason in `assumed`."""

    model_config = ConfigDict(extra="forbid")
    id: str
    title: str
    arxiv: str | None
    functions: list[str]
    recipe: str | None
    check: str | None
    confirmed: Literal["code", "paper", "notes", "recalled", "abstract"]
    assumed: str
    holds: Annotated[Literal["yes", "partly", "no"], BeforeValidator(lambda x: {True: "yes", False: "no"}.get(x, x))]  # YAML's bare yes
    measured: dict[str, Any] | str


def methods() -> dict[str, Method]:
    """id -> row, of all files in `guerdon/methods`."""
    found: dict[str, Method] = {}
    for file in sorted(resources.files("guerdon").joinpath("methods").iterdir(), key=lambda f: f.name):
        if not file.name.endswith(".yaml"):
            continue
        for row in yaml.safe_load(file.read_text()):
            try:
                method = Method(**row)
            except ValidationError as error:
                raise Refused(f"methods/{file.name}, {row.get('id')}: {error.errors()[0]['loc']}: {error.errors()[0]['msg']}.") from None
            if method.id in found:
                raise Refused(f"methods/{file.name}: the id {method.id!r} stands there twice.")
            found[method.id] = method
    return found


def get(name: str) -> Method:
    rows = methods()
    if name not in rows:
        raise Refused(f"There is no method {name!r}{nearest(name, rows)}")
    return rows[name]


def resolve(dotted: str) -> Any:
    """The function that a row names, `guerdon.credit.group.grpo`."""
    module, _, name = dotted.rpartition(".")
    return getattr(importlib.import_module(module), name)
