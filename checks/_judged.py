"""What the checks of judges share: the texts that a judge is shown."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_SHOWN = re.compile(r"<<<(\w+) (\w+)\n(.*?)\n\1 \2>>>", re.DOTALL)


def shown(messages: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Name -> text of what stands between fences in the last message."""
    return {name: text for name, _, text in _SHOWN.findall(messages[-1]["content"])}
