"""Labels for the steps of answers: from rollouts, judges and tools."""

from guerdon.annotation.core import Labels as Labels
from guerdon.annotation.core import annotator as annotator
from guerdon.annotation.grounded import grounded as grounded
from guerdon.annotation.hierarchy import hierarchical as hierarchical
from guerdon.annotation.hierarchy import hierarchical_labels as hierarchical_labels
from guerdon.annotation.judged import consensus as consensus
from guerdon.annotation.judged import judged as judged
from guerdon.annotation.judged import spare as spare
from guerdon.annotation.monte_carlo import monte_carlo as monte_carlo
from guerdon.annotation.monte_carlo import omegaprm as omegaprm
from guerdon.annotation.probe import Probe as Probe
from guerdon.annotation.probe import Prober as Prober
from guerdon.annotation.programs import mutated as mutated
from guerdon.annotation.progress import agreeing as agreeing
from guerdon.annotation.progress import relative_progress as relative_progress
from guerdon.annotation.sorm import balance as balance
from guerdon.annotation.sorm import outcome as outcome
from guerdon.annotation.sorm import sorm as sorm
