"""Sizes of the public T5 v1.1 encoders; LM-adapted and Flan encoders have the same."""

import math
from collections.abc import Mapping

VOCAB_SIZE = 32128  # rows of their embeddings: 32,100 pieces, rounded up
T5 = {
    "t5_1_1_small": dict(width=512, heads=6, head_dim=64, layers=8, mlp_dim=1024),
    "t5_1_1_base": dict(width=768, heads=12, head_dim=64, layers=12, mlp_dim=2048),
    "t5_1_1_large": dict(width=1024, heads=16, head_dim=64, layers=24, mlp_dim=2816),
    "t5_1_1_xl": dict(width=2048, heads=32, head_dim=64, layers=24, mlp_dim=5120),
    "t5_1_1_xxl": dict(width=4096, heads=64, head_dim=64, layers=24, mlp_dim=10240),
}


def nearest(sizes: Mapping[str, int]) -> str:
    """The name in `T5` whose sizes have the smallest ratios to the given ones."""

    def distance(name: str) -> float:
        return sum(abs(math.log(sizes[k] / n)) for k, n in T5[name].items() if k in sizes)

    return min(T5, key=distance)
