"""Rewards of structure: JSON that keeps to a schema, text that matches a pattern. What the model wrote is parsed in a worker."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

from guerdon.registry import Refused
from guerdon.rewards.core import reward
from guerdon.rewards.reading import extra, packages, said, strict_json, unfenced
from guerdon.samples import Sample, Verdict


@reward(deadline=5.0, check=lambda schema=None: packages("jsonschema")() if schema is None else validator(schema))
def json_schema(sample: Sample, schema: Mapping[str, Any] | str | bool | None = None) -> Verdict:
    """1 where the answer is one JSON text that keeps to the schema, else 0 with the first thing that does not.

    The answer is the inside of the last `<answer>` tag, else all that follows the thinking, without a code fence around it. The schema is
    a mapping or JSON text: the parameter, else the task's `meta.schema`, else its reference; where none is one, the reward abstains. Its
    draft is that of `$schema`, 2020-12 by default; `format` is not checked. Not JSON: NaN, Infinity, a key twice in one object, numbers of
    more than 300 digits, more than 64 levels. A text on which a pattern of the schema takes longer than five seconds is hostile. Raises
    Refused for a schema that is none, that needs a document outside itself (nothing is ever fetched), or that refers to itself without end.
    """
    meta = {**sample.task.meta, **sample.meta}
    given = schema if schema is not None else meta.get("schema")
    if given is None:
        given = sample.task.reference
        if not isinstance(given, Mapping) and not (isinstance(given, str) and given.lstrip().startswith("{")):
            return Verdict.abstain("the task states no schema")
    checker = validator(given)
    answer = said(sample.text)
    if answer is None:
        return Verdict(0.0, "no answer found")
    try:
        value = strict_json(unfenced(answer))
    except ValueError as error:
        return Verdict(0.0, str(error))
    try:
        error = next(checker.iter_errors(value), None)
    except RecursionError:  # the value has few levels, so it is the schema that has no end
        raise Refused("The JSON schema refers to itself without end; let each $ref lead one level further down.") from None
    except extra("referencing.exceptions").Unresolvable as error:
        raise Refused(f"The JSON schema refers to {error.ref!r}, which is not in it, and nothing is fetched; copy it into $defs.") from None
    if error is None:
        return Verdict(1.0)
    return Verdict(0.0, f"{error.json_path[:100]}: not as `{error.validator}` demands")


def validator(schema: Any) -> Any:
    """The validator of a schema given as a mapping or as JSON text. Raises Refused for what is no schema, or refers outside itself."""
    try:
        return _validator(schema if isinstance(schema, str) else json.dumps(schema))
    except (TypeError, RecursionError) as error:
        raise Refused(f"The JSON schema must be JSON of a few hundred levels at most, as a mapping or a text: {error}.") from None


@lru_cache(maxsize=256)
def _validator(text: str) -> Any:
    jsonschema, known = extra("jsonschema"), extra("jsonschema_specifications").REGISTRY
    try:
        schema = json.loads(text)
    except ValueError as error:
        raise Refused(f"The JSON schema is not JSON: {error}.") from None
    if not isinstance(schema, (dict, bool)):
        raise Refused(f"A JSON schema is an object, true or false, not {text[:80]}.")
    kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise Refused(f"The JSON schema is no valid one at {error.json_path}: {error.message[:200]}.") from None
    own, refs, left = set(), set(), [schema]
    while left:
        node = left.pop()
        left += node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        if isinstance(node, dict):
            own |= {node[key].partition("#")[0] for key in ("$id", "id") if isinstance(node.get(key), str)}
            refs |= {node[key].partition("#")[0] for key in ("$ref", "$dynamicRef") if isinstance(node.get(key), str)}
    for ref in sorted(refs - own):
        if "://" in ref and ref not in known:
            raise Refused(f"The JSON schema refers to {ref!r}, which is not in it, and nothing is fetched; copy it into $defs.")
    return kind(schema, registry=known)


@reward(deadline=2.0, check=lambda pattern=None, where="search": pattern is None or compiled(pattern, where))
def regex(text: str, meta: Mapping[str, Any], pattern: str | None = None, where: Literal["search", "full"] = "search") -> Verdict:
    """1 where Python's regular expression is found in the text (where "search") or covers all of it ("full"), else 0.

    The pattern is the parameter, else the task's `meta.pattern`; without one the reward abstains. A text on which the pattern takes longer
    than two seconds is hostile. Raises Refused for a pattern that does not compile.
    """
    given = meta.get("pattern") if pattern is None else pattern
    if given is None:
        return Verdict.abstain("no pattern: write regex(pattern='...'), or give the task a field `pattern`")
    expression = compiled(given, where)
    return Verdict(float((expression.fullmatch(text) if where == "full" else expression.search(text)) is not None))


def compiled(pattern: Any, where: str) -> re.Pattern[str]:
    if where not in ("search", "full"):
        raise Refused(f"`where` of regex is 'search' or 'full', not {where!r}.")
    if not isinstance(pattern, str):
        raise Refused(f"`pattern` of regex is a text, not {pattern!r}.")
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise Refused(f"The pattern {pattern[:200]!r} of regex does not compile: {error}.") from None
