"""Health checks on logged metrics; warn once per failure."""

import dataclasses
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging

RECENT = 20  # logged lines that a check averages
FEW = 3  # lines that show a collapse: short runs have no more to lose


class Finding(NamedTuple):
    """One check: what was measured, and what to change where it is not `healthy`."""

    check: str
    healthy: bool
    figure: str
    advice: str


@dataclasses.dataclass(frozen=True)
class HealthOptions:
    """The numbers of a config that its checks depend on."""

    codebook: int  # entries
    warmup: int  # steps of the optimiser's warm-up
    usage_window: int = 0  # steps over which codebook usage is counted; stage 1
    gan_start: int = 0  # step from which the discriminator trains; stage 1
    text: bool = False  # whether captions condition the model

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> "HealthOptions":
        """Those of the plain config `fields`, as its run stores them."""
        return cls(
            codebook=fields["tokenizer"]["codebook"],
            warmup=fields["optim"]["warmup"],
            usage_window=fields.get("codebook", {}).get("usage_window", 0),
            gan_start=fields.get("gan", {}).get("start", 0),
            text=bool(fields.get("text")),
        )


def read(
    lines: Sequence[Mapping[str, Any]], options: HealthOptions, least: int = RECENT
) -> list[Finding]:
    """The findings of all checks whose metrics `lines`, in order of their steps, contain.

    A check takes the mean over the last `RECENT` lines that contain its metrics and come after its
    first step (twice the warm-up, the first usage window, or the discriminator's start); it needs
    at least `least` of them, or its own number where that is smaller. Metrics are those of clips,
    of a run on images alone those of images.
    """
    findings = []
    for of_clips, first_step, check, own_least in _CHECKS:
        of_images = tuple(f"image/{name.removeprefix('video/')}" for name in of_clips)
        for names in (of_clips, of_images):
            logged = [line for line in lines if all(name in line for name in names)]
            if logged:
                break
        late = [line for line in logged if line["step"] > first_step(options)][-RECENT:]
        if len(late) >= min(least, own_least):
            means = (float(np.mean([line[name] for line in late])) for name in names)
            findings.append(check(options, *means))
    return findings


class HealthMonitor:
    """Checks every logged line of a run while it trains."""

    def __init__(self, options: HealthOptions):
        self._options = options
        self._lines: deque[dict] = deque(maxlen=RECENT)
        self._failed: set[str] = set()

    def update(self, step: int, scalars: Mapping[str, float | int]) -> None:
        """Takes one line; warns of each check that fails now and did not fail before."""
        self._lines.append({"step": step, **scalars})
        for finding in read(self._lines, self._options):
            if finding.healthy:
                self._failed.discard(finding.check)
            elif finding.check not in self._failed:
                self._failed.add(finding.check)
                logging.warning(
                    "step %d: failed check: %s (%s). %s",
                    step, finding.check, finding.figure, finding.advice,
                )  # fmt: skip


def _usage(options, usage):
    del options
    return Finding(
        "the codebook is used",
        usage >= 0.05,
        f"{usage:.1%} of the codes over the last windows",
        "it has collapsed: set config.codebook.revive_until to most of the run's steps.",
    )


def _reconstruction(options, psnr, flat):
    del options
    return Finding(
        "clips come back as more than one colour",
        psnr > flat + 1,
        f"{psnr:.1f} dB; one colour per clip has {flat:.1f} dB",
        "it has collapsed, as colourful clips do at rates that plainer ones need: start again "
        "with config.optim.rate lowered by four.",
    )


def _accuracy(options, real, fake):
    del options
    return Finding(
        "the discriminator can be fooled",
        min(real, fake) < 0.95,
        f"{real:.0%} of real and {fake:.0%} of fake frames classified right",
        "it wins: raise config.gan.r1, start it later, or lower config.loss.adversarial.",
    )


def _entropy(options, loss):
    chance = math.log(options.codebook)
    return Finding(
        "the loss is below chance",
        loss < 0.98 * chance,
        f"cross-entropy {loss:.2f}; chance is {chance:.2f}, that of {options.codebook} equally "
        "likely tokens",
        "nothing is learned: check config.optim.rate, and that the tokenizer is the one of "
        "training.",
    )


def _variety(options, predicted):
    del options
    return Finding(
        "predictions vary",
        predicted >= 0.01,
        f"{predicted:.2%} of the codebook is ever predicted",
        "the model has collapsed to few tokens: lower config.optim.rate, check the tokenizer.",
    )


def _unconditional(options, fraction):
    return Finding(
        "guidance is trained",
        not options.text or 0.03 <= fraction <= 0.5,
        f"{fraction:.1%} of the samples trained without text",
        "set config.drop_text=0.1: without such samples the unconditional logits are noise.",
    )


# (metrics, the last step before the check applies, the check of their means, lines it needs).
_CHECKS: tuple[
    tuple[tuple[str, ...], Callable[[HealthOptions], int], Callable[..., Finding], int], ...
] = (
    (("codebook/usage",), lambda options: options.usage_window, _usage, RECENT),
    (("psnr/rest", "psnr/flat"), lambda options: 2 * options.warmup, _reconstruction, FEW),
    (
        ("gan/accuracy_real", "gan/accuracy_fake"),
        lambda options: options.gan_start,
        _accuracy,
        RECENT,
    ),
    (("video/loss",), lambda options: 2 * options.warmup, _entropy, RECENT),
    (("video/predicted",), lambda options: 2 * options.warmup, _variety, RECENT),
    (("video/unconditional",), lambda options: 0, _unconditional, RECENT),
)
