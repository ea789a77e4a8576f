"""How samples are gathered."""

from guerdon.rollouts.budgets import budgets as budgets
from guerdon.rollouts.core import rollout as rollout
from guerdon.rollouts.expert import expert as expert
from guerdon.rollouts.forced import with_reference as with_reference
from guerdon.rollouts.parallel import parallel as parallel
