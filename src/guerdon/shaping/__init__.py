"""Rewards -> rewards."""

from guerdon.shaping.bounds import clip as clip
from guerdon.shaping.core import shape as shape
