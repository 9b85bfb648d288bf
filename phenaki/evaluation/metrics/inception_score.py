"""The Inception score (arXiv 1606.03498)."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float

from phenaki.errors import UserError


def inception_score(
    batches: Iterable[Float[np.ndarray, "n k"]], total: int, splits: int = 10
) -> tuple[float, float]:
    """Mean and standard deviation over `splits` of exp E KL(p(y|x) || p(y)).

    `batches` are logits, `total` rows in all, in a random order: splits are consecutive rows.
    Memory holds one sum of probabilities and one entropy per split.

    Raises:
        UserError: there are fewer samples than splits.
    """
    if not 0 < splits <= total:
        raise UserError(f"an Inception score of {total} samples: give {splits} or more.")
    sums: list = [0.0] * splits
    negative_entropy, counts = np.zeros(splits), np.zeros(splits)
    seen = 0
    for logits in batches:
        x = np.asarray(logits, np.float64)
        if seen + len(x) > total:
            raise ValueError(f"got {seen + len(x)} rows of logits or more, expected {total}.")
        log_p = x - x.max(-1, keepdims=True)
        log_p -= np.log(np.exp(log_p).sum(-1, keepdims=True))
        p = np.exp(log_p)
        split = (seen + np.arange(len(x))) * splits // total
        for s in np.unique(split):
            mine = split == s
            sums[s] = sums[s] + p[mine].sum(0)
            negative_entropy[s] += (p[mine] * log_p[mine]).sum()
            counts[s] += mine.sum()
        seen += len(x)
    if seen != total:
        raise ValueError(f"got {seen} rows of logits, expected {total}.")
    scores = []
    for s in range(splits):
        marginal = sums[s] / counts[s]
        cross = (marginal * np.log(np.maximum(marginal, 1e-300))).sum()
        scores.append(np.exp(negative_entropy[s] / counts[s] - cross))
    return float(np.mean(scores)), float(np.std(scores))
