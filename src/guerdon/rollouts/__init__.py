"""How samples are gathered."""

from guerdon.rollouts.budgets import budgets as budgets
from guerdon.rollouts.core import rollout as rollout
from guerdon.rollouts.expert import expert as expert
from guerdon.rollouts.forced import with_reference as with_reference
from guerdon.rollouts.guided import guided as guided
from guerdon.rollouts.interventions import corrected as corrected
from guerdon.rollouts.interventions import interventions as interventions
from guerdon.rollouts.mixed import mixed as mixed
from guerdon.rollouts.parallel import parallel as parallel
from guerdon.rollouts.serial import serial_exits as serial_exits
from guerdon.rollouts.tree import tree as tree
from guerdon.rollouts.turns import multi_turn as multi_turn
