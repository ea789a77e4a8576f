"""Benches of rewards: RewardBench 1 and 2, RM-Bench, JudgeBench, RewardMATH, ProcessBench; curves, calibration, length."""

from guerdon.evals.bench.report import Line, Report
from guerdon.evals.bench.run import BENCHES, bench

__all__ = ["BENCHES", "Line", "Report", "bench"]
