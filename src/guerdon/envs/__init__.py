"""Worlds: tasks made by rule, with exact verifiers, and the tiny policy that lives in them. Importing this fills the registry."""

from guerdon.envs.arithmetic import arithmetic, closeness, verify_answer, verify_steps
from guerdon.envs.core import env
from guerdon.envs.guess import guess
from guerdon.envs.lookup import lookup
from guerdon.envs.sat import satquest
from guerdon.envs.sql import sql
from guerdon.envs.tiny import named_policy, tiny_policy
from guerdon.envs.tools import Reply, Turn, tool

__all__ = [
    "Reply", "Turn", "arithmetic", "closeness", "env", "guess", "lookup", "named_policy", "satquest", "sql", "tiny_policy", "tool",
    "verify_answer", "verify_steps",
]  # fmt: skip
