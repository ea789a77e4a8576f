"""Samples -> rewards: what is good, as functions of named fields that compose."""

from guerdon.rewards.arithmetic import arithmetic as arithmetic
from guerdon.rewards.arithmetic import arithmetic_steps as arithmetic_steps
from guerdon.rewards.arithmetic import closeness as closeness
from guerdon.rewards.core import Reward as Reward
from guerdon.rewards.core import reward as reward
from guerdon.rewards.expr import gate as gate
from guerdon.rewards.expr import greatest as greatest
from guerdon.rewards.expr import least as least
from guerdon.rewards.expr import mean as mean
from guerdon.rewards.math import math as math
from guerdon.rewards.parse import parse as parse
from guerdon.rewards.sat import satquest as satquest
from guerdon.rewards.tags import tag_count as tag_count
from guerdon.rewards.tags import tag_share as tag_share
from guerdon.rewards.text import exact as exact
from guerdon.rewards.text import format as format
from guerdon.rewards.text import length as length
from guerdon.rewards.text import overlong as overlong
