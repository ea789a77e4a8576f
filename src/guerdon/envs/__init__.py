"""Worlds: tasks made by rule, with exact verifiers, and the tiny policy that lives in them. Importing this fills the registry."""

from guerdon.envs.arithmetic import arithmetic, closeness, verify_answer, verify_steps
from guerdon.envs.core import env
from guerdon.envs.sat import satquest
from guerdon.envs.tiny import named_policy, tiny_policy

__all__ = ["arithmetic", "closeness", "env", "named_policy", "satquest", "tiny_policy", "verify_answer", "verify_steps"]
