"""Rewards and verdicts as plain data and back, exactly, without pickle: for the journal, the cache and whatever crosses a wire."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import orjson

from guerdon.samples import GRAINS, Grain, Part, Rewards, State, Verdict

Cell = Verdict | list[float | None]
"""What a reward said about one sample: a verdict, or a number or None a step or token."""
TAG = "$"  # the key of what JSON has no word for


def to_plain(rewards: Rewards) -> dict[str, Any]:
    """What `from_plain` makes equal Rewards of: grains, states, reasons, parts, evidence. Raises TypeError for evidence that is no data."""
    return {
        **{name: _grain_to_plain(g) for name, g in rewards.grains()},
        "parts": {name: [to_plain(part.rewards), part.coefficient] for name, part in rewards.parts.items()},
        "evidence": {name: _tag(entry) for name, entry in rewards.evidence.items()},
    }


def from_plain(data: dict[str, Any]) -> Rewards:
    return Rewards(
        **{name: _grain_from_plain(data[name]) for name in GRAINS if name in data},
        parts={name: Part(from_plain(part), coefficient) for name, (part, coefficient) in data["parts"].items()},
        evidence={name: _untag(entry) for name, entry in data["evidence"].items()},
    )


def to_bytes(rewards: Rewards) -> bytes:
    return dumps(to_plain(rewards))


def from_bytes(data: bytes) -> Rewards:
    return from_plain(loads(data))


def cell_to_bytes(cell: Cell) -> bytes:
    return dumps(cell if isinstance(cell, list) else [cell.value, int(cell.state), cell.reason, _tag(dict(cell.evidence))])


def cell_from_bytes(data: bytes) -> Cell:
    found = loads(data)
    if len(found) == 4 and isinstance(found[2], str):
        value, state, reason, evidence = found
        return Verdict(value, reason, State(state), _untag(evidence))
    return found


def dumps(data: Any) -> bytes:
    """JSON, also of texts with lone surrogates, which orjson refuses."""
    try:
        return orjson.dumps(data)
    except orjson.JSONEncodeError:
        return json.dumps(data).encode()


def loads(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return json.loads(data)


def _grain_to_plain(g: Grain) -> dict[str, Any]:
    reasons = [[list(cell), why] for cell, why in g.reason.items()]
    return {"shape": list(g.value.shape), "value": g.value.ravel().tolist(), "state": g.state.ravel().tolist(), "reason": reasons}


def _grain_from_plain(data: dict[str, Any]) -> Grain:
    return Grain(
        np.array(data["value"], dtype=np.float64).reshape(data["shape"]),
        np.array(data["state"], dtype=np.int8).reshape(data["shape"]),
        {tuple(cell): why for cell, why in data["reason"]},
    )


def _tag(x: Any) -> Any:
    """Plain data for what JSON cannot say: tuples, arrays, infinities, long integers, keys that are not text."""
    match x:
        case None | bool() | str():
            return x
        case np.ndarray():
            return {TAG: "array", "dtype": x.dtype.str, "shape": list(x.shape), "of": [_tag(v) for v in x.ravel().tolist()]}
        case np.generic():
            return {TAG: "array", "dtype": x.dtype.str, "shape": None, "of": [_tag(x.item())]}
        case int():
            return x if -(2**63) <= x < 2**63 else {TAG: "int", "of": str(x)}
        case float():
            return x if np.isfinite(x) else {TAG: "float", "of": repr(x)}
        case list():
            return [_tag(v) for v in x]
        case tuple():
            return {TAG: "tuple", "of": [_tag(v) for v in x]}
        case dict():
            if TAG not in x and all(isinstance(k, str) for k in x):
                return {k: _tag(v) for k, v in x.items()}
            return {TAG: "dict", "of": [[_tag(k), _tag(v)] for k, v in x.items()]}
    raise TypeError(f"evidence of type {type(x).__name__} cannot be written down: give numbers, texts, lists, dictionaries or arrays")


def _untag(x: Any) -> Any:
    if isinstance(x, list):
        return [_untag(v) for v in x]
    if not isinstance(x, dict):
        return x
    match x.get(TAG):
        case None:
            return {k: _untag(v) for k, v in x.items()}
        case "array":
            flat = np.array([_untag(v) for v in x["of"]], dtype=x["dtype"])
            return flat[0] if x["shape"] is None else flat.reshape(x["shape"])
        case "int":
            return int(x["of"])
        case "float":
            return float(x["of"])
        case "tuple":
            return tuple(_untag(v) for v in x["of"])
    return {_untag(k): _untag(v) for k, v in x["of"]}
