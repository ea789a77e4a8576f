"""Rewards -> rewards."""

from guerdon.shaping.bounds import clip as clip
from guerdon.shaping.budget import hbpo as hbpo
from guerdon.shaping.consistency import care as care
from guerdon.shaping.constrained import multiplier as multiplier
from guerdon.shaping.core import shape as shape
from guerdon.shaping.length import cosine_length as cosine_length
from guerdon.shaping.length import kimi_length as kimi_length
from guerdon.shaping.length import laser as laser
from guerdon.shaping.length import laser_d as laser_d
from guerdon.shaping.length import top_lambda as top_lambda
from guerdon.shaping.length import z_length as z_length
from guerdon.shaping.noise import calibrated as calibrated
from guerdon.shaping.noise import flip as flip
from guerdon.shaping.normalise import batch_norm as batch_norm
from guerdon.shaping.normalise import group_norm as group_norm
from guerdon.shaping.normalise import running_norm as running_norm
from guerdon.shaping.process import renorm as renorm
from guerdon.shaping.process import step_clip as step_clip
from guerdon.shaping.process import step_delta as step_delta
from guerdon.shaping.reference import centred as centred
from guerdon.shaping.reference import log_sigmoid as log_sigmoid
from guerdon.shaping.reference import par as par
from guerdon.shaping.route import only as only
from guerdon.shaping.schedule import fade as fade
from guerdon.shaping.squash import squash as squash
from guerdon.shaping.trust import trust as trust
