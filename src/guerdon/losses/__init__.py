"""What the backend minimises: (out, batch, **params) -> (sum, metrics)."""

from guerdon.losses.aggregate import constant as constant
from guerdon.losses.aggregate import sequence_mean as sequence_mean
from guerdon.losses.aggregate import token_mean as token_mean
from guerdon.losses.core import loss as loss
from guerdon.losses.kl import entropy_bonus as entropy_bonus
from guerdon.losses.kl import kl as kl
from guerdon.losses.monitor import kl_to_reference as kl_to_reference
from guerdon.losses.monitor import logprob_gap as logprob_gap
from guerdon.losses.policy import policy_gradient as policy_gradient
from guerdon.losses.policy import ppo_clip as ppo_clip
from guerdon.losses.supervised import sft as sft
from guerdon.losses.supervised import value_mse as value_mse
