"""From what a user names to a reward that can be audited: an expression, a recipe, or `file.py:function`.

A function may be written for guerdon, TRL, verl, verifiers or OpenRLHF; its parameters say for whom. It runs as any function of guerdon
does: in worker processes, with a deadline. Its file is imported first in a process of its own, where writing files and opening sockets
are noticed: every worker would do so again.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import inspect
import io
import json
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from guerdon.registry import Refused, nearest
from guerdon.rewards.core import FIELDS, Reward, reward
from guerdon.rewards.expr import Expr
from guerdon.rewards.parse import parse
from guerdon.samples import SERVICES, Context, Task

SIGNATURES = """guerdon  (answer, reference, text, prompt, meta ...)
  TRL      (completions, prompts=..., **columns) -> a list
  verl     (data_source, solution_str, ground_truth, extra_info) -> a number or a dict with `score`
  verifiers (task, trace), or (completion, answer, prompt, state, info)
  OpenRLHF (queries, prompts, labels) -> a dict with `rewards`"""

REFERENCES = ("answer", "answers", "solution", "ground_truth", "reference", "target", "label", "gold", "expected", "gt", "labels")
"""Names under which other trainers hand a reward the reference."""


@dataclass
class Loaded:
    """What an audit was given."""

    expression: Expr
    name: str
    written_for: str
    models: dict[str, Any] = field(default_factory=dict)
    declared: dict[str, Any] = field(default_factory=dict)
    """The same models as the recipe declares them."""
    tasks: list[Task] | None = None
    """The tasks of a recipe."""


def load(what: str, timeout: float = 60.0) -> Loaded:
    """Raises Refused with one sentence on what cannot be read, imported or recognised."""
    path, colon, name = what.rpartition(":")
    if colon and path.endswith(".py") and name.isidentifier():
        return _function(Path(path), name, timeout)
    if what.endswith((".yaml", ".yml")):
        return _recipe(what)
    if what.endswith(".py"):
        raise Refused(f"{what}: name the function in it as well, such as {what}:reward.")
    import guerdon.shaping

    try:
        return Loaded(parse(what), what, "guerdon")
    except Refused:
        import guerdon.reward_models  # noqa: F401  learned rewards: they bring torch, which takes seconds to import

        return Loaded(parse(what), what, "guerdon")


def _recipe(path: str) -> Loaded:
    import guerdon.backends  # noqa: F401  fills the registry
    from guerdon import recipe as recipes
    from guerdon.recipe import ModelSpec
    from guerdon.registry import find
    from guerdon.scoring.engine import asking
    from guerdon.training.prepare import load_tasks

    spec = recipes.read(path)
    if not spec.reward:
        raise Refused(f"{path} has no reward to audit.")
    expression = parse(spec.reward)
    wanted = {name for _, asks in asking(expression) for name in asks.values()}
    models = {}
    for name, model in spec.models.items():
        if name in wanted:
            source: ModelSpec = spec.models[model.of] if model.of else model
            models[name] = find("backend", source.backend).fn(source.path, **{**source.params, "trainable": False})
    tasks = [task for some in load_tasks(spec).values() for task in some]
    declared = {name: model.model_dump() for name, model in spec.models.items() if name in models}
    return Loaded(expression, path, "guerdon", models, declared, tasks)


def _function(path: Path, name: str, timeout: float) -> Loaded:
    if not path.is_file():
        raise Refused(f"There is no file {path}.")
    _try_import(path, timeout)
    import guerdon.shaping  # noqa: F401  fills the registry

    spec = importlib.util.spec_from_file_location(f"guerdon_audited_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    found = getattr(module, name, None)
    if found is None:
        names = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_") and getattr(v, "__module__", "") == spec.name]
        raise Refused(f"{path} has no function {name!r}{nearest(name, names)}")
    if isinstance(found, Expr):
        return Loaded(found, f"{path.name}:{name}", "guerdon")
    if not callable(found):
        raise Refused(f"{path}: {name!r} is of type {type(found).__name__}, not a function.")
    lifted, host = lift(found, name)
    return Loaded(lifted, f"{path.name}:{name}", host)


# --- other trainers' signatures --------------------------------------------------------------------------------------------------


def lift(fn: Callable[..., Any], name: str) -> tuple[Reward, str]:
    """The function as a reward of one sample, and whom it was written for. Raises Refused for parameters that nobody's rewards have."""
    if not callable(fn):
        raise Refused(f"{name!r} is not a function.")
    try:
        parameters = inspect.signature(fn).parameters
    except (TypeError, ValueError):
        raise Refused(f"The parameters of {name!r} cannot be read; wrap it in a function of your own.") from None
    names = set(parameters)
    unique = re.sub(r"\W+", "_", f"audited_{fn.__module__.removeprefix('guerdon_audited_')}_{name}")
    asynchronous = inspect.iscoroutinefunction(fn)
    for host, known, adapter in (
        ("verl", {"solution_str"}, _verl),
        ("OpenRLHF", {"queries"}, _openrlhf),
        ("TRL", {"completions"}, _trl),
        ("verifiers", {"trace"}, _verifiers),
        ("verifiers", {"completion"}, _verifiers_completion),
    ):
        if known <= names:
            call = adapter(_silent(fn), parameters)
            if asynchronous:
                call = _blocking(call)
            call.__module__, call.__qualname__ = fn.__module__, fn.__qualname__  # whose it is
            return reward(name=unique, version="audited")(call), host
    needed = {n for n, p in parameters.items() if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    ours = {*FIELDS, *SERVICES, "group", "samples"}
    strange = [n for n in parameters if n in needed and n not in ours and n != "model" and not n.endswith("_model")]
    if strange or not needed & ours:
        which = f"its parameter {strange[0]!r} is none that a reward has" if strange else "it takes nothing of a sample"
        raise Refused(f"The signature {name}({', '.join(parameters)}) is not recognised: {which}. Rewards that are:\n  {SIGNATURES}")
    return reward(name=unique)(_silent(fn)), "guerdon"


def _silent(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The same function without what it prints: thousands of hostile texts would flood the terminal."""
    if inspect.iscoroutinefunction(fn):
        return fn

    @functools.wraps(fn)
    def quiet(*args: Any, **named: Any) -> Any:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
            return fn(*args, **named)

    return quiet


def _blocking(call: Callable[..., Any]) -> Callable[..., Any]:
    import asyncio

    def run(prompt: Any, text: str, sample: Any) -> Any:
        async def wait() -> Any:
            return await call(prompt, text, sample)

        return asyncio.run(wait())

    return run


def _columns(sample: Any, parameters: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    """The task's columns by name, and its reference under the name that the function has for it."""
    columns = dict(sample.task.meta)
    for name in REFERENCES:
        if name in parameters and name not in columns:
            columns[name] = sample.task.reference
    if any(p.kind == p.VAR_KEYWORD for p in parameters.values()):
        for name in REFERENCES[:6]:
            columns.setdefault(name, sample.task.reference)
        return columns
    return {name: value for name, value in columns.items() if name in parameters}


def _trl(fn: Callable[..., Any], parameters: Mapping[str, inspect.Parameter]) -> Callable[..., Any]:
    def call(prompt: Any, text: str, sample: Any) -> Any:
        chat = not isinstance(prompt, str)
        fields = {
            "prompts": [prompt],
            "completions": [[{"role": "assistant", "content": text}] if chat else text],
            "completion_ids": [list(text.encode("utf-8", "replace"))],
        }
        wide = any(p.kind == p.VAR_KEYWORD for p in parameters.values())
        given = {name: value for name, value in fields.items() if wide or name in parameters}
        return fn(**given, **{name: [value] for name, value in _columns(sample, parameters).items() if name not in given})

    return _first(call)


def _openrlhf(fn: Callable[..., Any], parameters: Mapping[str, inspect.Parameter]) -> Callable[..., Any]:
    def call(prompt: Any, text: str, sample: Any) -> Any:
        given = {"queries": [f"{prompt}{text}"], "prompts": [prompt], "labels": [sample.task.reference]}
        return fn(**{name: value for name, value in given.items() if name in parameters})

    return _first(call)


def _verl(fn: Callable[..., Any], parameters: Mapping[str, inspect.Parameter]) -> Callable[..., Any]:
    def call(prompt: Any, text: str, sample: Any) -> Any:
        meta = sample.task.meta
        given = {
            "data_source": meta.get("data_source", "audit"),
            "solution_str": text,
            "ground_truth": sample.task.reference,
            "extra_info": {**meta, "prompt": prompt},
        }
        wide = any(p.kind == p.VAR_KEYWORD for p in parameters.values())
        return fn(**{name: value for name, value in given.items() if wide or name in parameters})

    return _first(call)


def _verifiers_completion(fn: Callable[..., Any], parameters: Mapping[str, inspect.Parameter]) -> Callable[..., Any]:
    def call(prompt: Any, text: str, sample: Any) -> Any:
        asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        said = [{"role": "assistant", "content": text}]
        info = dict(sample.task.meta)
        state = {"prompt": asked, "completion": said, "answer": sample.task.reference, "info": info, "task": "audit"}
        given = {**state, "state": state}
        wide = any(p.kind == p.VAR_KEYWORD for p in parameters.values())
        return fn(**{name: value for name, value in given.items() if wide or name in parameters})

    return _first(call)


def _verifiers(fn: Callable[..., Any], parameters: Mapping[str, inspect.Parameter]) -> Callable[..., Any]:
    try:
        import verifiers.v1 as vf  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise Refused("A reward of verifiers that reads a trace needs the package verifiers; install guerdon[verifiers].") from None

    class Data(vf.TaskData):
        model_config = ConfigDict(extra="allow")

    def call(prompt: Any, text: str, sample: Any) -> Any:
        asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        kinds = {"system": vf.SystemMessage, "user": vf.UserMessage, "assistant": vf.AssistantMessage}
        messages = [*(kinds[m["role"]](content=m["content"]) for m in asked), vf.AssistantMessage(content=text)]
        data = Data(prompt=prompt if isinstance(prompt, str) else None, answer=sample.task.reference, **sample.task.meta)
        wire = vf.WireTaskData(**data.model_dump())
        trace = vf.Trace(task=vf.TraceTask(type="audit", data=wire), agent=vf.AgentInfo(config=vf.AgentConfig()))
        last = len(messages) - 1
        trace.nodes = [vf.MessageNode(parent=i - 1 if i else None, sampled=i == last, message=m) for i, m in enumerate(messages)]
        given = {"task": data, "trace": trace, "self": None}
        return fn(**{name: value for name, value in given.items() if name in parameters})

    return _first(call)


def _first(call: Callable[..., Any]) -> Callable[..., Any]:
    """What the call returned for its one sample, as a number: the first of a list, `score` or the first of `rewards` of a dict."""

    def number(found: Any) -> Any:
        if isinstance(found, Mapping):
            key = next((name for name in ("score", "rewards", "reward", "scores") if name in found), None)
            found = found[key] if key is not None else next(iter(found.values()), None)
        if hasattr(found, "tolist"):
            found = found.tolist()
        if isinstance(found, (list, tuple)):
            found = found[0] if len(found) else None
        return found

    def run(prompt: Any, text: str, sample: Any) -> Any:
        found = call(prompt, text, sample)
        if inspect.isawaitable(found):

            async def later() -> Any:
                return number(await found)

            return later()
        return number(found)

    return run


# --- a first import where it can do no harm --------------------------------------------------------------------------------------

_WATCH = """
import json, sys
path = sys.argv[1]
told = []
def line():
    frame, through_import = sys._getframe(2), False
    while frame is not None:
        name = frame.f_code.co_filename
        if name == path:
            return None if through_import else frame.f_lineno
        through_import = through_import or 'importlib' in name
        frame = frame.f_back
    return None
def hook(event, args):
    what = None
    if event == 'open' and isinstance(args[1], str) and set(args[1]) & set('wax+') and '__pycache__' not in str(args[0]):
        what = 'writes the file %r' % (args[0],)
    elif event in ('socket.__new__', 'socket.connect', 'socket.bind', 'socket.getaddrinfo', 'socket.sendto'):
        what = 'opens a socket'
    elif event in ('subprocess.Popen', 'os.system', 'os.exec', 'os.posix_spawn'):
        what = 'starts a program'
    elif event in ('os.remove', 'os.rename', 'os.mkdir', 'os.rmdir', 'shutil.rmtree'):
        what = 'changes files'
    if what is not None:
        where = line()
        if where is not None:
            print('\\n' + json.dumps({'line': where, 'what': what}), flush=True)
            raise SystemExit(3)
import importlib.util, os
sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
spec = importlib.util.spec_from_file_location('guerdon_tried', path)
module = importlib.util.module_from_spec(spec)
sys.modules['guerdon_tried'] = module
sys.dont_write_bytecode = True
sys.addaudithook(hook)
try:
    spec.loader.exec_module(module)
except SystemExit as error:
    if error.code == 3:
        os._exit(3)
    print('\\n' + json.dumps({'line': None, 'what': 'leaves with SystemExit'}), flush=True)
    os._exit(4)
except BaseException as error:
    print('\\n' + json.dumps({'line': None, 'what': 'raises %s: %s' % (type(error).__name__, str(error)[:300])}), flush=True)
    os._exit(4)
os._exit(0)
"""


def _try_import(path: Path, timeout: float) -> None:
    """Raises Refused where importing the file writes files, opens sockets, starts programs, raises, leaves or hangs."""
    try:
        found = subprocess.run(
            [sys.executable, "-c", _WATCH, str(path.resolve())], capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        raise Refused(f"{path} was still being imported after {timeout:g} s; move what it does into functions.") from None
    if found.returncode == 0:
        return
    last = next((line for line in reversed(found.stdout.splitlines()) if line.startswith("{")), None)
    if last is None:
        raise Refused(f"{path} cannot be imported: its process ended with code {found.returncode}.")
    told = json.loads(last)
    if found.returncode == 3:
        raise Refused(
            f"{path}, line {told['line']}: {told['what']} when it is imported, as every worker would do again; move this into a function."
        )
    raise Refused(f"{path} {told['what']} when it is imported; mend it first.")


def context_of(loaded: Loaded, base: Context) -> Context:
    """The context with the models of the recipe beside those given."""
    base.models = {**loaded.models, **base.models}
    return base
