"""The shape contract: (rewards, samples, context, **params) -> rewards. A shape stands behind `|` in an expression: `math | clip(0, 1)`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal

from guerdon.registry import Refused, nearest, register
from guerdon.rewards.expr import ShapeCall


def shape(target: Any = None, *, scope: Literal["sample", "group", "samples"] = "samples") -> Any:
    """Register a function, or a class with state whose `__call__(rewards, samples, context)` never changes it.

    What it returns binds parameters: `clip(0, 1)` is a ShapeCall, which `|` applies. scope: what a value depends on besides its own sample:
    nothing (`sample`), its group, or all samples scored together; whoever streams samples keeps these together.
    """
    return (lambda entered: _enter(entered, scope)) if target is None else _enter(target, scope)


def _enter(target: Any, scope: str) -> Callable[..., ShapeCall]:
    name = target.__name__
    is_class = inspect.isclass(target)
    own = list(inspect.signature(target.__init__ if is_class else target).parameters)[1 if is_class else 3 :]

    def bind(*args: Any, **params: Any) -> ShapeCall:
        if len(args) > len(own):
            raise Refused(f"The shape {name!r} takes {len(own)} parameters ({', '.join(own)}), not {len(args)}.")
        params = {**dict(zip(own, args, strict=False)), **params}
        for key in params:
            if key not in own:
                raise Refused(f"The shape {name!r} has no parameter {key!r}{nearest(key, own)}")
        if is_class:
            return ShapeCall(name, params, target(**params), scope)
        return ShapeCall(name, params, lambda rewards, samples, context: target(rewards, samples, context, **params), scope)

    bind.__name__, bind.__qualname__, bind.__doc__, bind.__module__ = name, target.__qualname__, target.__doc__, target.__module__
    register("shape", name, target, bind=bind)
    return bind
