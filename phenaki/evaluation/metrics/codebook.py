"""How often the entries of a codebook are used."""

import numpy as np
from jaxtyping import Int

from phenaki.errors import UserError


def count(tokens: Int[np.ndarray, "..."], codebook: int) -> Int[np.ndarray, " k"]:
    """How often each of `codebook` entries occurs in `tokens`; counts of parts add up.

    Raises:
        UserError: a token is outside of 0 .. `codebook` - 1; indexing would silently clamp it.
    """
    tokens = np.asarray(tokens)
    if tokens.size and not 0 <= tokens.min() <= tokens.max() < codebook:
        raise UserError(
            f"tokens from {tokens.min()} to {tokens.max()}: must be 0 .. {codebook - 1}."
        )
    return np.bincount(tokens.ravel(), minlength=codebook)


def usage(counts: Int[np.ndarray, " k"]) -> float:
    """Fraction of the entries that occur, 0..1.

    It grows with the number of tokens that are counted: give 20 or more per entry.
    """
    return float((np.asarray(counts) > 0).mean())


def perplexity(counts: Int[np.ndarray, " k"]) -> float:
    """exp of the entropy of the counts: as many equally used entries have that entropy.

    Raises:
        UserError: there is no token.
    """
    if not np.sum(counts):
        raise UserError("a perplexity of no tokens is undefined; count some.")
    p = np.asarray(counts, np.float64) / np.sum(counts)
    p = p[p > 0]
    return float(np.exp(-(p * np.log(p)).sum()))
