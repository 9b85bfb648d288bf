"""Shared by the experiments: runs that are trained once, prompts, and cells of several seeds."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from phenaki.errors import UserError

# For curves over its options: with a few-pass sampler of a model's own, some have no effect.
MASKGIT_SAMPLER = dict(
    steps=40,
    guidance=0.5,
    choice_temperature=1.0,
    schedule="cosine",
    order="confidence",
    temperature=1.0,
    min_p=0.0,
)


def train(config, directory: Path, call: Callable) -> None:
    """Trains by `call(config, directory)`, unless the run is complete.

    Raises:
        UserError: `directory` has a run of another number of steps.
    """
    from phenaki.io.checkpoint import is_run, load_config, steps_done

    if is_run(directory):
        before = load_config(directory).train.steps
        if before != config.train.steps:
            raise UserError(
                f"{directory}: is a run of {before} steps; give --steps={before}, or a new "
                "--workdir."
            )
    if steps_done(directory) < config.train.steps:
        call(config, directory)


def steps_for_clips(config, steps: int) -> int:
    """The steps after which a mixture has seen as many clips as clips alone after `steps`."""
    return round(steps * (1 + config.data.image_batch / config.data.batch))


def combinations(world, split: str, count: int) -> np.ndarray:
    """What `count` unseen clips of `split` show: [b, 3] colour, shape, direction."""
    from phenaki.data.shapes import attributes

    return attributes.sample(world, split, np.arange(count)).combination


def cell(values: Sequence[float], digits: int, factor: float = 1.0) -> str:
    """ "mean ± standard deviation" of `factor` times the values."""
    scaled = factor * np.asarray(values)
    return f"{scaled.mean():.{digits}f} ± {scaled.std():.{digits}f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(row) + " |" for row in (head, *rows)]
    return "\n".join([lines[0].replace("|  |", "| |"), "|---" * len(head) + "|", *lines[1:]]) + "\n"


def seed(text: str) -> int:
    """One of --seeds."""
    if not text.isdecimal():
        raise UserError(f"--seeds: {text!r} must be a whole number, such as 0.")
    return int(text)


def numbers(flag, kind: type) -> Iterator:
    """The values of a list flag, each a number of `kind`."""
    for text in flag.value:
        try:
            yield kind(text)
        except ValueError:
            raise UserError(f"--{flag.name}: {text!r} must be a number, such as 4.") from None


def percent_axes(plot, values: Sequence[str], label: str) -> None:
    """Axes of a plot of percents over those values, which are drawn at equal distances."""
    plot.set_xticks(range(len(values)), [f"{float(value):g}" for value in values])
    plot.set_xlabel(label)
    plot.set_ylim(-2, 102)
    plot.grid(alpha=0.3)
    plot.legend(fontsize=8)


def percent(right: int, count: int) -> str:
    """ "99.0 (98.1-99.5)": a fraction in percent with its Wilson 95 % interval."""
    low, high = wilson(right, count)
    return f"{100 * right / count:.1f} ({100 * low:.1f}-{100 * high:.1f})"


def wilson(right: int, count: int) -> tuple[float, float]:
    """The Wilson 95 % interval of a fraction."""
    z = 1.959964
    middle, spread = right + z**2 / 2, z * math.sqrt(right * (count - right) / count + z**2 / 4)
    low, high = (middle - spread) / (count + z**2), (middle + spread) / (count + z**2)
    # 0 and 1 are ends of their intervals, which rounding may miss.
    return (0.0 if right == 0 else low), (1.0 if right == count else high)
