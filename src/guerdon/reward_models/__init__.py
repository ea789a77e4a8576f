"""Learned rewards."""

from guerdon.reward_models.contrastive import contrastive as contrastive
from guerdon.reward_models.heads import orm as orm
from guerdon.reward_models.heads import prm as prm
from guerdon.reward_models.implicit import implicit as implicit
from guerdon.reward_models.implicit import implicit_ce as implicit_ce
from guerdon.reward_models.implicit import trajectory_dpo as trajectory_dpo
from guerdon.reward_models.online import Learner as Learner
from guerdon.reward_models.outcomes import mean_ce as mean_ce
from guerdon.reward_models.outcomes import sum_regression as sum_regression
