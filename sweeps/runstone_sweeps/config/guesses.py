"""Guesses from names: whether a metric is better when it is lower."""

from __future__ import annotations

import re

from runstone_sweeps.spec import Goal

_LOW = frozenset(
    "loss error err mae mse rmse mape nll perplexity ppl wer cer fid kl latency time seconds cost regret brier "
    "rmsle deviance bits bpb bpc distance divergence logloss".split()
)
_HIGH = frozenset(
    "acc accuracy f1 auc auroc auprc precision recall score reward return bleu rouge meteor iou map miou dice r2 "
    "psnr ssim likelihood throughput success win sharpe ndcg mrr hit kappa mcc top1 top5 spearman pearson elbo".split()
)


def guess_goal(metric: str) -> Goal | None:
    """Return the goal that the words of a metric's name suggest; `None` where they suggest none, or both."""
    words = set(re.split(r"[^a-z0-9]+", re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", metric).lower()))
    is_low, is_high = bool(words & _LOW), bool(words & _HIGH)
    if is_low == is_high:
        return None
    return "minimize" if is_low else "maximize"
