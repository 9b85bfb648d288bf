"""Inception score, and how often a codebook's entries are used."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float, Int

from phenaki.errors import UserError


def inception_score(
    batches: Iterable[Float[np.ndarray, "n k"]], total: int, splits: int = 10
) -> tuple[float, float]:
    """Mean and deviation over `splits` of exp E KL(p(y|x) || p(y)) (arXiv 1606.03498).

    `batches` are logits, `total` of them in all, in a random order: splits follow one another.
    One sum of probabilities and one entropy per split are kept.
    """
    if not 0 < splits <= total:
        raise UserError(f"an Inception score of {total} samples: give {splits} or more.")
    sums: list = [0.0] * splits
    negative_entropy, counts = np.zeros(splits), np.zeros(splits)
    seen = 0
    for logits in batches:
        x = np.asarray(logits, np.float64)
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
        raise ValueError(f"{seen} logits came, not {total}.")
    scores = []
    for s in range(splits):
        marginal = sums[s] / counts[s]
        cross = (marginal * np.log(np.maximum(marginal, 1e-300))).sum()
        scores.append(np.exp(negative_entropy[s] / counts[s] - cross))
    return float(np.mean(scores)), float(np.std(scores))


def count_codes(tokens: Int[np.ndarray, "..."], codebook: int) -> Int[np.ndarray, " k"]:
    """How often each of `codebook` entries occurs; counts of parts add up.

    Raises UserError for a code outside the book, which indexing would silently clamp.
    """
    tokens = np.asarray(tokens)
    if tokens.size and not 0 <= tokens.min() <= tokens.max() < codebook:
        raise UserError(
            f"codes from {tokens.min()} to {tokens.max()}: must be 0 .. {codebook - 1}."
        )
    return np.bincount(tokens.ravel(), minlength=codebook)


def usage(counts: Int[np.ndarray, " k"]) -> float:
    """Share of the entries that occur, 0..1. Grows with what was counted: 20 codes per entry."""
    return float((np.asarray(counts) > 0).mean())


def perplexity(counts: Int[np.ndarray, " k"]) -> float:
    """exp of the entropy of the counts: how many entries equally used ones would be."""
    p = np.asarray(counts, np.float64) / np.sum(counts)
    p = p[p > 0]
    return float(np.exp(-(p * np.log(p)).sum()))
