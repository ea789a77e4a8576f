"""Rewards -> advantages (n, t): which token deserves what."""

from guerdon.credit.budget import hbpo as hbpo
from guerdon.credit.core import credit as credit
from guerdon.credit.direct import two_term as two_term
from guerdon.credit.gae import gae as gae
from guerdon.credit.gae import lambda_returns as lambda_returns
from guerdon.credit.gae import rewards_to_go as rewards_to_go
from guerdon.credit.group import dr_grpo as dr_grpo
from guerdon.credit.group import grpo as grpo
from guerdon.credit.group import reinforce_pp as reinforce_pp
from guerdon.credit.group import rloo as rloo
from guerdon.credit.parts import constrained as constrained
from guerdon.credit.parts import critic_view as critic_view
from guerdon.credit.parts import factor_of as factor_of
from guerdon.credit.penalty import kl_reward as kl_reward
from guerdon.credit.process import min_form as min_form
from guerdon.credit.process import sum_form as sum_form
from guerdon.credit.turns import igpo as igpo
