"""Answers found at test time with a reward: best of n, votes, beams and trees, with an account of what they cost."""

from guerdon.search.choose import best_of_n as best_of_n
from guerdon.search.choose import elected as elected
from guerdon.search.choose import vote_of as vote_of
from guerdon.search.choose import weighted_vote as weighted_vote
from guerdon.search.core import Budget as Budget
from guerdon.search.core import Cost as Cost
from guerdon.search.core import Explorer as Explorer
from guerdon.search.core import Found as Found
from guerdon.search.core import Partial as Partial
from guerdon.search.core import search as search
from guerdon.search.core import together as together
from guerdon.search.core import value_of as value_of
from guerdon.search.steps import beam as beam
from guerdon.search.steps import mcts as mcts
