"""`@reward` lifts a plain function of named fields into a reward that composes, and that every engine of guerdon can run.

    @reward
    def exact(answer: str | None, reference: str) -> float:
        return float(answer == reference)

The parameter names say what it wants: fields of the sample (`FIELDS`), services or models of the context by name; what has a default is a
parameter of the reward. A parameter called `model`, or ending in `_model`, is set to the name of a model of the run and arrives as that
model. A first parameter `group` or `samples` gives it a whole group, or a chunk of whole groups, as a list of Samples.
"""

from __future__ import annotations

import hashlib
import inspect
import math
import sys
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, overload

import numpy as np

from guerdon.registry import Refused, find, nearest, register
from guerdon.rewards.expr import Expr, call_text
from guerdon.samples import SERVICES, Grain, Rewards, Sample, State, Verdict

FIELDS = ("prompt", "text", "answer", "thinking", "steps", "messages", "tool_calls", "reference", "meta", "ids", "logprobs", "sample")
Scope = Literal["sample", "group", "samples"]


@dataclass(frozen=True)
class Reward(Expr):
    """A registered reward with its parameters bound: a leaf of an expression."""

    name: str
    fn: Callable[..., Any] = field(compare=False, repr=False)
    scope: Scope = "sample"
    fields: tuple[str, ...] = ()
    """Sample fields to inject."""
    services: tuple[str, ...] = ()
    """Services and models of the context to inject."""
    models: Mapping[str, str] = field(default_factory=dict)
    """Parameters that name a model, and the model that is asked where they are not set."""
    params: Mapping[str, Any] = field(default_factory=dict)
    grain: Literal["outcome", "step", "token"] = "outcome"
    wrong: float = 0.0
    """The value of a hostile sample."""
    deadline: float = 10.0
    """Seconds for one call in a worker, or of an async function."""
    inline: bool = False
    """Runs in this process: only for code that takes linear time on any text and cannot crash."""
    pure: bool = True
    """Same fields, same verdict: may be cached."""
    batch: bool = False
    """Takes each field as a list over samples, and returns a list: for what is faster at once. Still one sample, one verdict."""
    version: str = ""
    check: Callable[..., Any] | None = field(default=None, compare=False, repr=False)
    """Called with the parameters that are set, when they are set and before anything is scored; raises Refused."""

    def __call__(self, *args: Any, **params: Any) -> Reward:
        """The same reward with parameters set: `length(target=100)`."""
        own = self.parameters()
        if len(args) > len(own):
            raise Refused(f"The reward {self.name!r} takes {len(own)} parameters ({', '.join(own)}), not {len(args)}.")
        params = {**dict(zip(own, args, strict=False)), **params}
        for name in params:
            if name not in own:
                raise Refused(f"The reward {self.name!r} has no parameter {name!r}{nearest(name, own)}")
        bound = replace(self, params={**self.params, **params}).checked()
        check_types(f"reward {self.name!r}", self.fn, bound.settings)
        return bound

    def checked(self) -> Reward:
        """The same, where its own check finds nothing wrong with its parameters."""
        if self.check is not None:
            self.check(**self.settings)
        return self

    def parameters(self) -> dict[str, inspect.Parameter]:
        """Its own parameters: those that are neither fields nor services nor the samples themselves."""
        taken = {*self.fields, *self.services, "samples", "group"}
        return {
            name: p
            for name, p in inspect.signature(self.fn).parameters.items()
            if name not in taken and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        }

    def __str__(self) -> str:
        return call_text(self.name, self.params)

    @property
    def asks(self) -> dict[str, str]:
        """Which service or model of the context each of these parameters gets."""
        named = {name: str(self.params.get(name, model)) for name, model in self.models.items()}
        return {**{name: name for name in self.services}, **named}

    @property
    def settings(self) -> dict[str, Any]:
        """The parameters that are plain values."""
        return {name: value for name, value in self.params.items() if name not in self.models}

    @property
    def asynchronous(self) -> bool:
        return inspect.iscoroutinefunction(self.fn)


@overload
def reward(fn: Callable[..., Any]) -> Reward: ...
@overload
def reward(
    *, name: str | None = ..., grain: Literal["outcome", "step", "token"] = ..., wrong: float = ..., deadline: float = ...,
    inline: bool = ..., pure: bool = ..., batch: bool = ..., version: str | None = ..., check: Callable[..., Any] | None = ...,
) -> Callable[[Callable[..., Any]], Reward]: ...  # fmt: skip
def reward(fn: Any = None, *, name: str | None = None, version: str | None = None, **options: Any) -> Any:
    """Register a function as a reward, see the module's docstring.

    It returns a number, None (abstained: does not apply), a Verdict, or for grain "step" or "token" a list of numbers or None a step or
    token; with scope `group` or `samples` a list of these, one a sample, or a Rewards. Options: `wrong`, the value of a sample that
    attacks its grader (0); `deadline` in seconds; `inline=True` for code that cannot hang; `batch=True` to be given each field as a list
    over many samples and return a list; `pure=False` forbids caching; `check`, called with the parameters before anything runs, to refuse
    what cannot be used; `version`, part of the cache's key (by default a digest of the
    function's code, its defaults and what it closes over; it does not see what the function calls).
    """

    def enter(target: Callable[..., Any]) -> Reward:
        wants = list(inspect.signature(target).parameters.values())
        scope: Scope = wants[0].name if wants and wants[0].name in ("group", "samples") else "sample"  # type: ignore[assignment]
        rest = [p for p in wants if (scope == "sample" or p.name != scope) and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
        fields = tuple(p.name for p in rest if p.name in FIELDS) if scope == "sample" else ()
        models = named_models(rest)
        services = tuple(p.name for p in rest if p.name not in (*fields, *models) and (p.name in SERVICES or p.default is p.empty))
        lifted = Reward(
            name=name or target.__name__,
            fn=target,
            scope=scope,
            fields=fields,
            services=services,
            models=models,
            version=version or code_digest(target),
            **options,
        )
        register("reward", lifted.name, target, needs=tuple(lifted.asks.values()), reward=lifted)
        return lifted

    return enter if fn is None else enter(fn)


def check_types(what: str, fn: Callable[..., Any], params: Mapping[str, Any]) -> None:
    """Raises Refused where a parameter is not of the type that the function states for it."""
    for name, value in params.items():
        if why := type_problem(fn, name, value, strict=not isinstance(value, list)):
            raise Refused(f"The {what}: {name} = {value!r}: {why}.")


def type_problem(fn: Callable[..., Any], name: str, value: Any, strict: bool = False) -> str | None:
    """Why a value is not of the type that the function states for its parameter; None where it is, or no type can be read there."""
    from pydantic import ConfigDict, TypeAdapter, ValidationError
    from pydantic.errors import PydanticUserError

    try:
        annotation = inspect.signature(fn).parameters[name].annotation
        hint = eval(str(annotation), dict(vars(sys.modules[fn.__module__])))  # our own annotation, kept as text
        TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(value, strict=strict)
    except (NameError, SyntaxError, TypeError, AttributeError, KeyError, PydanticUserError):
        return None  # none stated, one that only type checkers can see, or a function of no imported module
    except ValidationError as error:
        return error.errors()[0]["msg"]
    return None


def named_models(parameters: Iterable[inspect.Parameter]) -> dict[str, str]:
    """The parameters that name a model, and the name that each has where it is not set."""
    found = [p for p in parameters if p.name == "model" or p.name.endswith("_model")]
    return {p.name: p.name if p.default is p.empty else str(p.default) for p in found}


def get(name: str) -> Reward:
    """The registered reward of that name."""
    return find("reward", name).about["reward"]


def code_digest(fn: Callable[..., Any]) -> str:
    """A digest of a function's own code: names, constants and instructions, nested functions included, defaults and closed-over values."""
    digest = hashlib.blake2b(digest_size=8)

    def add(code: types.CodeType) -> None:
        digest.update(code.co_code + repr((code.co_names, code.co_varnames)).encode())
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                add(constant)
            else:  # the order of a set differs between processes
                digest.update(repr(sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant).encode())

    fn = inspect.unwrap(fn)
    code = getattr(fn, "__code__", None)
    if code is not None:
        add(code)
        digest.update(repr((fn.__defaults__, fn.__kwdefaults__, [_closed(cell) for cell in fn.__closure__ or ()])).encode())
    return digest.hexdigest()


def _closed(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # empty still: the function itself, by the name it is about to get
        return None


def inject(leaf: Reward, sample: Sample) -> dict[str, Any]:
    """The fields a sample-scope reward asked for. A row without a reference, where one is wanted, is the task's fault: KeyError."""
    out = {}
    for name in leaf.fields:
        if name == "prompt":
            out[name] = sample.task.prompt
        elif name == "reference":
            if sample.task.reference is None:
                raise KeyError("reference")
            out[name] = sample.task.reference
        elif name == "meta":
            out[name] = {**sample.task.meta, **sample.meta}
        elif name == "sample":
            out[name] = sample
        elif name == "tool_calls":
            out[name] = [call for m in sample.messages or () for call in m.get("tool_calls") or ()]
        else:
            out[name] = getattr(sample, name)
    return out


def to_verdict(value: Any, leaf: Reward) -> Verdict | list[float | None]:
    """What a reward returned for one sample, checked: failed unless a finite number, None, a Verdict or (finer grains) a list of these.

    A Verdict of a step or token reward speaks for the whole sample; it stands in the first cell.
    """
    if leaf.grain == "outcome" or value is None or isinstance(value, Verdict):
        return _one(value)
    if not isinstance(value, (list, tuple, np.ndarray)):
        return Verdict.fail(f"the reward returned {type(value).__name__}, not a list with a number for each {leaf.grain}")
    cells = [_one(x) for x in value]
    return next((c for c in cells if c.state == State.FAILED), None) or [c.value for c in cells]


def _one(value: Any) -> Verdict:
    if isinstance(value, Verdict):
        checked = Verdict(None) if value.value is None else _one(value.value)
        if checked.state != State.SCORED:
            return checked
        state = State.ABSTAINED if value.value is None and value.state == State.SCORED else State(value.state)
        return Verdict(checked.value, str(value.reason), state, value.evidence)
    if value is None:
        return Verdict.abstain("the reward returned None: it does not apply")
    if isinstance(value, (bool, np.bool_, int, float, np.integer, np.floating)):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        return Verdict(number) if math.isfinite(number) else Verdict.fail(f"the reward returned {number}, not a finite number")
    return Verdict.fail(f"the reward returned a value of type {type(value).__name__}, not a number")


def from_verdicts(verdicts: Sequence[Verdict | list[float | None]], leaf: Reward) -> Rewards:
    """Rewards of one grain from one verdict a sample."""
    evidence: dict[str, Any] = {}
    for i, v in enumerate(verdicts):
        for key, entry in v.evidence.items() if isinstance(v, Verdict) else ():
            evidence.setdefault(key, [None] * len(verdicts))[i] = entry
    if leaf.grain == "outcome":
        assert all(isinstance(v, Verdict) for v in verdicts)
        grain = Grain.of(
            [0.0 if v.value is None else v.value for v in verdicts],  # type: ignore[union-attr]
            [v.state for v in verdicts],  # type: ignore[union-attr]
            {(i,): v.reason for i, v in enumerate(verdicts) if v.reason},  # type: ignore[union-attr]
        )
        return Rewards(outcome=grain, evidence=evidence)
    grain = Grain.ragged([v if isinstance(v, list) else [v.value] for v in verdicts])
    for i, v in enumerate(verdicts):
        if isinstance(v, Verdict) and grain.value.shape[1]:
            grain.state[i, 0], grain.reason[(i, 0)] = v.state, v.reason
    return Rewards(**{leaf.grain: grain}, evidence=evidence)  # type: ignore[arg-type]
