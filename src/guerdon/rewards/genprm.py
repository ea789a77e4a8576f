"""GenPRM: a judge that analyses each step, checks it by programs of its own, which the sandbox runs, and then says Yes or No."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from guerdon.registry import Refused
from guerdon.rewards.core import reward
from guerdon.rewards.judge import attack, conversation, request
from guerdon.rewards.likelihood import LONGEST, Forced, encode, logprobs
from guerdon.samples import HOSTILE, Sample, Verdict

if TYPE_CHECKING:
    from guerdon.backends.base import Completion, Model
    from guerdon.workers.sandbox import Sandbox

VERDICT = "Verdict:"
WORDS = ("Yes", "No")
STEP = (
    "A step of a solution is shown behind the request and the steps before it. Is this step right, where those before it are taken as they "
    "stand? Analyse it within <analyze> and </analyze>."
)
PROGRAMS = (
    " Then check by a program what can be computed: a block that begins with a line ```python and ends with a line ```. What it prints is "
    "shown to you behind it; names stay defined."
)
FORM = f"End with a line that begins with {VERDICT} and says Yes where the step is right, No where it is not."
_BLOCK = re.compile(r"^```python[^\S\n]*\n(.*?)^```[^\S\n]*(?:\n|\Z)", re.MULTILINE | re.DOTALL)
_SAYS = re.compile(rf"^{VERDICT}", re.MULTILINE)
SHOWN = 2000
"""Characters of a program's output that the judge is shown."""


@dataclass
class Path:
    """One judgment of one step."""

    sample: int
    step: int
    prompt: np.ndarray
    ids: np.ndarray
    """Of all that stands behind the prompt."""
    text: str = ""
    blocks: list[str] = field(default_factory=list)
    printed: str = ""
    over: bool = False
    value: float | None = None
    """p(Yes) / (p(Yes) + p(No)) at the place of the verdict."""
    why: str = ""
    """Why there is no value."""


def _check(votes: int = 1, programs: int = 3, max_tokens: int = 2048, seconds: float = 5.0) -> None:
    if votes < 1 or max_tokens < 1 or programs < 0 or seconds <= 0:
        raise Refused(f"genprm(votes={votes}, programs={programs}, max_tokens={max_tokens}): votes and tokens are 1 or more.")


@reward(batch=True, grain="step", check=_check, deadline=600.0)
def genprm(
    sample: list[Sample], sandbox: Sandbox, model: Any = "judge", votes: int = 1, programs: int = 3, max_tokens: int = 2048,
    seconds: float = 5.0,
) -> list[Verdict | list[float | None]]:  # fmt: skip
    """For each step the mean over `votes` judgments of p(Yes) / (p(Yes) + p(No)): how sure the judge is that the step is right.

    The judge reasons, may write up to `programs` blocks of Python, which run together in the sandbox and whose output it is shown (0:
    none), and ends with `Verdict:`; both words are scored at that place, never sampled; one that wants another program is made to tell. One
    vote is greedy, several are drawn at temperature 1. A judgment that is cut off or ends without a verdict is left out (the released code
    counts it as 0.5); a step without any makes the sample failed. A step that attacks the judge's template is hostile. Source:
    arXiv:2504.00891, src/prm_evaluation/genprm_inference.py; the wording is ours, and each step is judged by itself, where there the judge
    goes on behind its own judgments of the steps before.
    """
    out: list[Verdict | list[float | None]] = [_refused(model, s) or [] for s in sample]
    paths = judgments(model, [s for s, x in zip(sample, out, strict=True) if x == []], sandbox, votes, programs, max_tokens, seconds)
    open_ = [i for i, x in enumerate(out) if x == []]
    for at, i in enumerate(open_):
        out[i] = _values([p for p in paths if p.sample == at], len(sample[i].steps))
    return out


def _refused(model: Any, sample: Sample) -> Verdict | None:
    why = attack(model, sample.text)
    return Verdict(0.0, why) if why else None if sample.steps else Verdict.abstain("the answer has no steps")


def _values(paths: Sequence[Path], steps: int) -> Verdict | list[float | None]:
    values: list[float | None] = []
    for t in range(steps):
        found = [p.value for p in paths if p.step == t and p.value is not None]
        if not found:
            why = next((p.why for p in paths if p.step == t), "nobody judged it")
            return Verdict(0.0, why) if why.startswith(HOSTILE) else Verdict.fail(f"no judgment of step {t + 1}: {why}")
        values.append(float(np.mean(found)))
    return values


def judgments(
    model: Model, samples: Sequence[Sample], sandbox: Sandbox | None, votes: int = 1, programs: int = 3, max_tokens: int = 2048,
    seconds: float = 5.0,
) -> list[Path]:  # fmt: skip
    """`votes` judgments of every step of every sample, all side by side: their texts, and the values that `genprm` is the mean of."""
    from guerdon.backends.base import SamplingParams  # here: the room of the backends imports torch

    first: list[Path] = []
    none = np.zeros(0, dtype=np.int64)
    for i, sample in enumerate(samples):
        for t, step in enumerate(sample.steps):
            before = "".join(sample.steps[:t]).strip() or "(none)"
            texts = {"request": request(sample.task.prompt), "steps_before": before, "step": step.strip()}
            path = Path(i, t, none, none)
            try:
                path.prompt = model.encode(conversation(STEP + PROGRAMS * (programs > 0), FORM, **texts))  # type: ignore[arg-type]
            except Refused as error:
                path.why = f"the judge cannot be asked: {error}"
            if len(path.prompt) > LONGEST:
                path.why = f"{HOSTILE}: step {t + 1} and what stands before it are {len(path.prompt)} tokens, more than {LONGEST}"
            first.append(path)
    paths = [Path(p.sample, p.step, p.prompt, none, why=p.why) for p in first for _ in range(votes)]
    for round in range(programs + 1):
        todo = [p for p in paths if not p.over and not p.why]
        if not todo:
            break
        stop = (f"\n{VERDICT}", "\n```\n") if programs else (f"\n{VERDICT}",)
        params = SamplingParams(max_tokens, 0.0 if votes == 1 else 1.0, stop=stop, seed=round)
        if round:
            found = [c for [c] in model.sample([np.concatenate([p.prompt, p.ids]) for p in todo], 1, params)[0]]
        else:
            found = [c for several in model.sample([p.prompt for p in todo[::votes]], votes, params)[0] for c in several]
        for path, completion in zip(todo, found, strict=True):
            _go_on(model, path, completion, programs)
        _run([p for p in todo if not p.over and not p.why], model, sandbox, seconds, last=round == programs)
    _weigh(model, [p for p in paths if p.over and not p.why])
    return paths


def _go_on(model: Model, path: Path, completion: Completion, programs: int) -> None:
    """Takes what the judge said up to its verdict or the end of its program."""
    if completion.failed or completion.stop == "length":
        path.why = f"the judge was cut off: {completion.failed or 'max_tokens'}"
        return
    said = str(model.decode(completion.ids)[0])
    verdict, block = _SAYS.search(said), _BLOCK.search(said) if programs else None
    if block and (not verdict or block.start() < verdict.start()):
        path.blocks.append(block[1])
        end = block.end()
    elif verdict:
        path.over, end = True, verdict.end()
    else:
        path.why = f"the judge ended without its `{VERDICT}`"
        return
    ids = completion.ids if end == len(said) else encode(model, said[:end])
    path.ids, path.text = np.concatenate([path.ids, ids]).astype(np.int64), path.text + said[:end]


def _run(paths: Sequence[Path], model: Model, sandbox: Sandbox | None, seconds: float, last: bool) -> None:
    """Runs the programs of these judgments, and shows the judge what they print. last: one too many, which is not run; it has to tell."""
    from guerdon.workers.sandbox import Job

    if last:
        for path in paths:
            path.ids, path.text = np.concatenate([path.ids, encode(model, VERDICT)]).astype(np.int64), path.text + VERDICT
            path.over = True
        return
    if not paths:
        return
    assert sandbox is not None
    jobs = [Job("\n".join(p.blocks), [{"stdin": "", "stdout": ""}], seconds=seconds) for p in paths]
    for path, [tested] in zip(paths, sandbox.run_many(jobs), strict=True):
        if tested.status == "infrastructure":
            path.why = f"the judge's program could not be run: {tested.reason}"
            continue
        printed = tested.printed if tested.status in ("passed", "failed") else f"{path.printed}{tested.status}: {tested.reason}"
        new = printed.removeprefix(path.printed).strip()[:SHOWN]  # a program begins with those before it
        path.printed = tested.printed
        shown = f"\nOutput:\n```\n{new}\n```\n"
        if why := attack(model, new):
            path.why = f"the output of the judge's program cannot be shown to it: {why}"
            continue
        path.ids, path.text = np.concatenate([path.ids, encode(model, shown)]).astype(np.int64), path.text + shown


def _weigh(model: Model, paths: Sequence[Path]) -> None:
    words = [encode(model, f" {word}") for word in WORDS]
    found = logprobs(model, [Forced(p.prompt, p.ids, word) for p in paths for word in words])
    for path, yes, no in zip(paths, found[::2], found[1::2], strict=True):
        if isinstance(yes, Verdict) or isinstance(no, Verdict):
            why = yes if isinstance(yes, Verdict) else no
            path.why = str(getattr(why, "reason", "")).removeprefix(f"{HOSTILE}: ")
        else:
            path.value = float(1 / (1 + np.exp(np.clip(no.sum() - yes.sum(), -700, 700))))


def first_wrong(values: Sequence[float | None], below: float = 0.5) -> int | None:
    """The first step whose value is below 0.5; None where there is none."""
    return next((t for t, value in enumerate(values) if value is not None and value < below), None)


def critique(sample: Sample, paths: Sequence[Path], below: float = 0.5) -> list[dict[str, Any]] | None:
    """The conversation in which the policy, shown its answer and the analysis of the first step below 0.5, answers anew; None without one.

    paths: the judgments of this sample. The analysis is that of the judgment that is surest that the step is wrong. Source:
    arXiv:2504.00891, src/prm_evaluation/policy_refine.py.
    """
    found = _values(paths, len(sample.steps))
    wrong = None if isinstance(found, Verdict) else first_wrong(found, below)
    if wrong is None:
        return None
    surest = min((p for p in paths if p.step == wrong and p.value is not None), key=lambda p: p.value)  # type: ignore[return-value]
    analysis = re.search(r"<analyze>(.*?)</analyze>", surest.text, re.DOTALL)
    told = (analysis[1] if analysis else _SAYS.split(surest.text)[0]).strip()
    prompt = sample.task.prompt
    before = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(m) for m in prompt]
    said = f"A step of your answer may be wrong. Think again, and answer anew.\n\n> {sample.steps[wrong].strip()}\n\n{told}"
    return [*before, {"role": "assistant", "content": sample.text}, {"role": "user", "content": said}]
