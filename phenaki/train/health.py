"""Signs of a failing training in what it logs: for the doctor, and live while it trains."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

RECENT = 20  # logged lines that count as now


class Finding(NamedTuple):
    """One check: what was measured, and what to change when it is not `healthy`."""

    check: str
    healthy: bool
    figure: str
    advice: str


def read(lines: Sequence[dict], config, least: int = RECENT) -> list[Finding]:
    """The checks for which `lines`, in order, have something to say, of a run of `config`.

    A check is of the mean over the last `RECENT` lines that log its figure, those before the first
    whole window of codes, or within twice the warm-up, left out; `least` of them must be there.
    """
    found = []
    for names, since, check in _CHECKS:
        logged = [line for line in lines if all(name in line for name in names)]
        late = [line for line in logged if line["step"] > since(config)][-RECENT:]
        if len(late) >= least:
            means = (float(np.mean([line[name] for line in late])) for name in names)
            found.append(check(config, *means))
    return found


def _usage(config, usage):
    del config
    return Finding(
        "the codebook is used",
        usage >= 0.05,
        f"{usage:.1%} of the codes over the last windows",
        "it has collapsed: set config.codebook.revive_until, for most of the training.",
    )


def _accuracy(config, real, fake):
    del config
    return Finding(
        "the discriminator can be fooled",
        min(real, fake) < 0.95,
        f"{real:.0%} of real and {fake:.0%} of fake frames told right",
        "it wins: raise config.gan.r1, start it later, or lower config.loss.adversarial.",
    )


def _entropy(config, loss):
    chance = math.log(config.tokenizer.codebook)
    return Finding(
        "the loss is below chance",
        loss < 0.98 * chance,
        f"cross-entropy {loss:.2f}, of {config.tokenizer.codebook} equally likely codes "
        f"{chance:.2f}",
        "nothing is learned: see config.optim.rate and that the tokenizer is the one it was "
        "trained with.",
    )


def _variety(config, predicted):
    return Finding(
        "predictions vary",
        predicted >= 0.01,
        f"{predicted:.2%} of the codes are ever predicted",
        "the model has collapsed to few codes: lower config.optim.rate, look at the tokenizer.",
    )


def _unconditional(config, share):
    return Finding(
        "guidance is trained",
        not config.text or 0.03 <= share <= 0.5,
        f"{share:.1%} of the samples trained without text",
        "set config.drop_text=0.1: without such samples the unconditional logits are noise.",
    )


_CHECKS: tuple[tuple[tuple[str, ...], Callable[[Any], int], Callable[..., Finding]], ...] = (
    (("codebook/usage",), lambda config: config.codebook.usage_window, _usage),
    (("gan/accuracy_real", "gan/accuracy_fake"), lambda config: config.gan.start, _accuracy),
    (("video/loss",), lambda config: 2 * config.optim.warmup, _entropy),
    (("video/predicted",), lambda config: 2 * config.optim.warmup, _variety),
    (("video/unconditional",), lambda config: 0, _unconditional),
)
