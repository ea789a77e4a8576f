"""What benches and audits found of a fitted model goes into its model card; a fit whose recipe names some is measured when it is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from guerdon.backends.head import CARD
from guerdon.registry import Broke, Refused
from guerdon.reward_models import folder as folders
from guerdon.rewards.expr import Expr
from guerdon.rewards.parse import parse
from guerdon.scoring.engine import leaves
from guerdon.training import fit as fits
from guerdon.training.fit_recipe import FitRecipe, read
from guerdon.training.record import read_jsonl


def folder_of(reward: str | Expr | None) -> Path:
    """The fitted folder that a reward reads. Raises Refused where it reads none, or several."""
    expression = parse(reward) if isinstance(reward, str) else reward
    read_by = [leaf for leaf in leaves(expression) if leaf.name == "reward_model"] if expression is not None else []
    found = {str(leaf.params.get("path")) for leaf in read_by}
    if len(found) != 1:
        has = f"`{expression}` reads {len(found) or 'no'} fitted folders" if expression is not None else "a file of scores has no model"
        raise Refused(f"--model-card writes into the card of one fitted folder, and {has}; measure reward_model(path='FOLDER').")
    return Path(found.pop())


def fit(
    recipe: str | Path | Mapping[str, Any] | FitRecipe | None = None,
    *overrides: str,
    folder: str | Path | None = None,
    resume: str | Path | None = None,
    layout: str | None = None,
    say: Callable[[str], None] = lambda text: None,
    **fields: Any,
) -> fits.Result:
    """`training.fit.fit`, then the benches and the audit that the recipe names, into the model card.

    Their names and files are checked before the fit. A fit that is done and not yet measured is resumed to be measured. Raises Broke where
    a measurement fails; the model and the other measurements are kept.
    """
    if resume is not None and (Path(resume) / CARD).exists() and (Path(resume) / "fit.yaml").exists():
        spec, path = read(Path(resume) / "fit.yaml"), Path(resume)
        if not missing(spec, path):
            fits.prepare(None, (), None, resume, None)  # refuses a fit that is finished
        check(spec)
        found = fits.Result(path, list(read_jsonl(path / "metrics.jsonl")), {}, [], [])
    else:
        given: Any = {**(recipe if isinstance(recipe, Mapping) else {}), **fields} if fields else recipe
        spec, path = fits.prepare(given, overrides, folder, resume, layout)
        check(spec)
        found = fits.fit(spec, folder=None if resume else path, resume=resume, say=say)
    measure(spec, path, say)
    return found


def check(spec: FitRecipe) -> None:
    """Raises Refused for a bench that is not there, a file that cannot be read, and a model that the bench cannot measure."""
    from guerdon.evals.audit import read as read_tasks
    from guerdon.evals.bench import layouts
    from guerdon.evals.bench.run import find

    for name, data in spec.bench.items():
        if name == "processbench" and spec.learns != "steps":
            each = "each token" if spec.learns == "tokens" else "a whole answer"
            raise Refused(f"bench: processbench wants a score for each step, and {spec.loss.use!r} learns one for {each}.")
        layouts.read(data, find(name).layouts)
    if spec.audit:
        read_tasks(spec.audit)


def missing(spec: FitRecipe, folder: Path) -> list[str]:
    """What the recipe wants measured and the model card does not say: names of benches, and "audit"."""
    has = folders.parts(folder, "Bench")
    wanted = ["audit"] if spec.audit and not folders.section(folder, "Audit") else []
    return [name for name in spec.bench if name not in has] + wanted


def measure(spec: FitRecipe, folder: Path, say: Callable[[str], None]) -> None:
    """Run what is missing in the model card. Raises Broke, when all has been tried, for what failed."""
    failed = []
    for name in missing(spec, folder):
        say(f"measuring: {name}")
        try:
            _measure(name, spec, folder)
        except (Refused, Broke) as error:
            failed.append(f"{name}: {error}")
    if failed:
        raise Broke(f"The model in {folder} is fitted, but not measured. {' '.join(failed)} `guerdon fit --resume {folder}` tries again.")


def _measure(name: str, spec: FitRecipe, folder: Path) -> None:
    from guerdon.evals import audit, bench
    from guerdon.evals.audit import page as audit_page
    from guerdon.evals.bench import page as bench_page
    from guerdon.scoring.show import meter

    reward = f"reward_model(path={str(folder)!r})"
    with meter() as progress:
        if name == "audit":
            assert spec.audit is not None
            tasks, answers = audit.read(spec.audit)
            if folders.read(folder).grain != "outcome":
                reward = f"reward_model(path={str(folder)!r}, aggregate='min')"
            report = audit.audit(reward, tasks, answers=answers, tick=lambda stage, done, total: progress(done / max(total, 1), done))
            folders.add_section(folder, "Audit", audit_page.short(report))
        else:
            found = bench.bench(name, spec.bench[name], reward=reward, tick=lambda done, total: progress(done / total, done))
            folders.add_part(folder, "Bench", name, bench_page.card(found))
