"""What the backend minimises: (out, batch, **params) -> (sum, metrics)."""

from guerdon.losses.aggregate import constant as constant
from guerdon.losses.aggregate import pair_mean as pair_mean
from guerdon.losses.aggregate import per_source as per_source
from guerdon.losses.aggregate import row_mean as row_mean
from guerdon.losses.aggregate import sequence_mean as sequence_mean
from guerdon.losses.aggregate import token_mean as token_mean
from guerdon.losses.core import loss as loss
from guerdon.losses.kl import entropy_bonus as entropy_bonus
from guerdon.losses.kl import kl as kl
from guerdon.losses.mix import fixed as fixed
from guerdon.losses.mix import mix as mix
from guerdon.losses.monitor import kl_to_reference as kl_to_reference
from guerdon.losses.monitor import logprob_gap as logprob_gap
from guerdon.losses.policy import policy_gradient as policy_gradient
from guerdon.losses.policy import ppo_clip as ppo_clip
from guerdon.losses.preference import dpo as dpo
from guerdon.losses.supervised import sft as sft
from guerdon.losses.supervised import value_mse as value_mse
