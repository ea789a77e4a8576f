"""Learned rewards."""

from guerdon.reward_models.contrastive import contrastive as contrastive
from guerdon.reward_models.cooper import verified_pairs as verified_pairs
from guerdon.reward_models.cooper import verify_rm as verify_rm
from guerdon.reward_models.heads import orm as orm
from guerdon.reward_models.heads import prm as prm
from guerdon.reward_models.implicit import implicit as implicit
from guerdon.reward_models.implicit import implicit_ce as implicit_ce
from guerdon.reward_models.implicit import trajectory_dpo as trajectory_dpo
from guerdon.reward_models.losses_outcome import bradley_terry as bradley_terry
from guerdon.reward_models.losses_outcome import ordinal as ordinal
from guerdon.reward_models.losses_outcome import outcome_ce as outcome_ce
from guerdon.reward_models.losses_outcome import outcome_classes as outcome_classes
from guerdon.reward_models.losses_outcome import outcome_mse as outcome_mse
from guerdon.reward_models.losses_pairs import bt_dr as bt_dr
from guerdon.reward_models.losses_pairs import list_pairs as list_pairs
from guerdon.reward_models.losses_pairs import score_spread as score_spread
from guerdon.reward_models.losses_pairs import soft_bradley_terry as soft_bradley_terry
from guerdon.reward_models.losses_steps import prefix_values as prefix_values
from guerdon.reward_models.losses_steps import step_ce as step_ce
from guerdon.reward_models.losses_steps import step_classes as step_classes
from guerdon.reward_models.losses_steps import step_mean as step_mean
from guerdon.reward_models.losses_steps import token_values as token_values
from guerdon.reward_models.online import Learner as Learner
from guerdon.reward_models.outcomes import mean_ce as mean_ce
from guerdon.reward_models.outcomes import sum_regression as sum_regression
