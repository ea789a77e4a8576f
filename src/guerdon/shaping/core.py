"""The shape contract: (rewards, samples, context, **params) -> rewards. A shape stands behind `|` in an expression: `math | clip(0, 1)`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from guerdon.registry import Refused, nearest, register
from guerdon.rewards.expr import ShapeCall


def shape(target: Any) -> Callable[..., ShapeCall]:
    """Register a function, or a class with state whose `__call__(rewards, samples, context)` never changes it.

    What it returns binds parameters: `clip(0, 1)` is a ShapeCall, which `|` applies.
    """
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
            return ShapeCall(name, params, target(**params))
        return ShapeCall(name, params, lambda rewards, samples, context: target(rewards, samples, context, **params))

    bind.__name__, bind.__qualname__, bind.__doc__, bind.__module__ = name, target.__qualname__, target.__doc__, target.__module__
    register("shape", name, target, bind=bind)
    return bind
