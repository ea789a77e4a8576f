"""The names of everything a run measures; `metrics.jsonl` has one object a step, `step` first.

A part of the reward is `reward/NAME`, an evaluation is `eval/...`. A value that could not be measured in a step is absent, never 0.
"""

STEP = "step"
STAGE = "stage"  # position of the stage in the recipe, from 0

SAMPLES = "samples"  # drawn in the step, in all rounds, dropped ones included
REWARD = "reward"  # mean over samples with a verdict
REWARD_STD = "reward_std"
PASS_1 = "pass@1"  # share of samples that pass: the outcome of the recipe's `correct` is above 0.5
PASS_K = "pass@k"  # share of groups with at least one that passes
LENGTH = "length"  # tokens a sample
TRUNCATED = "truncated"  # share that ran out of tokens
HOSTILE = "hostile"  # share of samples
ABSTAINED = "abstained"
FAILED = "failed"
REASONS = "reasons"  # {"failed: why": count, "hostile: why": count, ...} of the step
ZERO_SPREAD = "zero_spread"  # share of groups whose rewards are all equal
REFILLS = "refills"  # rounds of select, rollout, score, keep beyond the first
DROPPED = "dropped"  # samples that curation left out, in all rounds of the step
SHORT = "short"  # samples missing from a full batch when max_refills was spent
SAMPLE_AGE = "sample_age"  # versions between writing and training, mean

LOSS = "loss"
ENTROPY = "entropy"  # nats a token, estimated as -mean log-probability of what was sampled
KL = "kl"  # to the reference, k3 estimate a token
CLIP_FRACTION = "clip_fraction"  # of the tokens in rows with an advantage, where the loss leaves the others out
GRAD_NORM = "grad_norm"
LR = "lr"
# mean |sampled - recomputed| log-probability of the tokens that are trained on, before the first change; a warning above the next
LOGPROB_GAP = "logprob_gap"
LOGPROB_GAP_WARNING = 0.05
VALUE_LOSS = "value_loss"  # of the critic
EXPLAINED_VARIANCE = "explained_variance"

EVAL_ACCURACY = "eval/pass@1"  # greedy (or the recipe's sampling) on the held-out tasks
EVAL_REWARD = "eval/reward"
EVAL_GOLD = "eval/gold"  # the held-out gold reward
EVAL_LENGTH = "eval/length"
HACK = "hack"  # 1 in an evaluation where the proxy rose and the gold fell

TOKENS_PER_SECOND = "tokens_per_second"  # new tokens sampled, over the whole step's time
SECONDS = "seconds"  # of the whole step
# seconds/rollouts, seconds/rewards, seconds/curation, seconds/fields (forward passes that credit and loss need), seconds/credit,
# seconds/update, seconds/eval, seconds/io
SECONDS_BY_ROOM = "seconds/"
CLOCK = (TOKENS_PER_SECOND, SECONDS)  # and all of SECONDS_BY_ROOM: the only values that may differ after a resume


def is_clock(name: str) -> bool:
    return name in CLOCK or name.startswith(SECONDS_BY_ROOM)
