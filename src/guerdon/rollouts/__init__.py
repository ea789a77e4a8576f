"""How samples are gathered."""

from guerdon.rollouts.budgets import budgets as budgets
from guerdon.rollouts.core import rollout as rollout
from guerdon.rollouts.expert import expert as expert
from guerdon.rollouts.parallel import parallel as parallel
