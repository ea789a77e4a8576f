"""The shape contract: (rewards, samples, context, **params) -> rewards. A shape stands behind `|` in an expression: `math | clip(0, 1)`.

A parameter annotated `Rewards` is a reward expression beside the one that is shaped: `judge | trust(math)`; the shape gets its values of
the same samples. A parameter called `model`, or ending in `_model`, names a model of the run.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from guerdon.registry import Refused, nearest, register
from guerdon.rewards.core import check_types, named_models
from guerdon.rewards.expr import Expr, ShapeCall, lift
from guerdon.samples import GRAINS, Context, Name, Rewards, Sample


def shape(
    target: Any = None,
    *,
    scope: Literal["sample", "group", "samples"] = "samples",
    grains: Sequence[Name] = GRAINS,
    changes_state: bool = False,
    example: Mapping[str, Any] | None = None,
) -> Any:
    """Register a function, or a class with state whose `__call__(rewards, samples, context)` never changes it.

    What it returns binds parameters: `clip(0, 1)` is a ShapeCall, which `|` applies. scope: what a value depends on besides its own sample:
    nothing (`sample`), its group, or all samples scored together; whoever streams samples keeps these together. grains: those it can shape;
    others are refused by name. changes_state: it may abstain or fail where a value was scored. example: parameters that have no default,
    for the conformance suite; the name of a reward stands for the reward.
    """
    about = {"grains": tuple(grains), "changes_state": changes_state, "example": dict(example or {})}
    return (lambda entered: _enter(entered, scope, about)) if target is None else _enter(target, scope, about)


def _enter(target: Any, scope: str, about: Mapping[str, Any]) -> Callable[..., ShapeCall]:
    name = target.__name__
    is_class = inspect.isclass(target)
    call = list(inspect.signature(target.__call__ if is_class else target).parameters.values())[4 if is_class else 3 :]
    made = list(inspect.signature(target.__init__).parameters.values())[1:] if is_class and target.__init__ is not object.__init__ else []
    own = {p.name: p for p in (*call, *made)}
    rewards = [p.name for p in call if "Rewards" in str(p.annotation)]
    models = named_models(own.values())

    def bind(*args: Any, **params: Any) -> ShapeCall:
        if len(args) > len(own):
            raise Refused(f"The shape {name!r} takes {len(own)} parameters ({', '.join(own)}), not {len(args)}.")
        params = {**dict(zip(own, args, strict=False)), **params}
        for key, value in params.items():
            if key not in own:
                raise Refused(f"The shape {name!r} has no parameter {key!r}{nearest(key, own)}")
            if isinstance(value, Expr) != (key in rewards) and value is not None:
                wants = "is a reward, such as math" if key in rewards else "is a plain value"
                raise Refused(f"The shape {name!r}: {key!r} {wants}, not {value!s:.80}.")
        for key, p in own.items():
            if key not in params and p.default is p.empty:
                raise Refused(f"The shape {name!r} needs the parameter {key!r}.")
        beside = {key: lift(params.pop(key)) for key in rewards if params.get(key) is not None}
        params = {key: value for key, value in params.items() if key not in rewards}
        made = target(**params) if is_class else target  # a class knows best what it cannot take
        check_types(f"shape {name!r}", target.__init__ if is_class else target, params)
        piece = _Checked(name, made, about["grains"], {} if is_class else params)
        return ShapeCall(name, params, piece, scope, beside, {key: str(params.get(key, model)) for key, model in models.items()})

    bind.__name__, bind.__qualname__, bind.__doc__, bind.__module__ = name, target.__qualname__, target.__doc__, target.__module__
    register("shape", name, target, bind=bind, **about)
    return bind


class _Checked:
    """The function, or the object of a class, refused on a grain that it does not shape. The hooks of an object are its own."""

    def __init__(self, name: str, piece: Any, grains: tuple[str, ...], params: Mapping[str, Any]) -> None:
        self._name, self._piece, self._grains, self._params = name, piece, grains, params

    def __call__(self, rewards: Rewards, samples: Sequence[Sample], context: Context, **beside: Rewards) -> Rewards:
        for grain, _ in rewards.grains():
            if grain not in self._grains:
                raise Refused(f"The shape {self._name!r} shapes {' and '.join(self._grains)} rewards, but it stands on a {grain} reward.")
        return self._piece(rewards, samples, context, **self._params, **beside)

    def __getattr__(self, hook: str) -> Any:
        if hook.startswith("_"):
            raise AttributeError(hook)
        return getattr(self._piece, hook)
