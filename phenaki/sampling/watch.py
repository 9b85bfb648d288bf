"""Progress of a call: what every decoding step has sampled, for callbacks and for a bar."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from phenaki import progress
from phenaki.errors import UserError
from phenaki.sampling.decode import Decoded, Unfinished


@dataclasses.dataclass(frozen=True)
class Step:
    """A decoding step of b samples that is done.

    Steps that would change nothing are skipped and count as done (`phenaki.sampling.decode`).

    Attributes:
        number: steps that are done, 1 to `total`.
        total: of the call, or of this window.
        tokens: after the step; `mask_id` where they are masked again.
        sampled: what the step filled in, without a mask.
        mask_id: number of codes.
        video: the frames so far; decodes `sampled`.
        window: of a story, from 1.
        windows: of the story.
    """

    number: int
    total: int
    tokens: Int[np.ndarray, "b t m n"]
    sampled: Int[np.ndarray, "b t m n"]
    mask_id: int
    video: Callable[[], Float[np.ndarray, "b f h w 3"]]
    window: int = 1
    windows: int = 1


Observer = Callable[[Step], Any]  # what it raises ends the call
Given = (
    Observer | bool | None
)  # False: nothing is shown; None or True: a bar, None in notebooks only


@dataclasses.dataclass(frozen=True)
class Clip:
    """What a step of tokens [b s] is shown as: of the first `rows`, `grid` t m n."""

    rows: int
    grid: tuple[int, ...]
    mask_id: int
    decode: Callable[[Array], Any]  # tokens -> pixels of all rows
    fetch: Callable[[Any], np.ndarray]  # an array of all devices

    def step(self, number: int, total: int, tokens: Any, sampled: Any) -> Step:
        """The step whose arrays have all rows of the batch."""

        def shaped(x: Any) -> Int[np.ndarray, "b t m n"]:
            return np.asarray(self.fetch(x))[: self.rows].reshape(self.rows, *self.grid)

        def video() -> Float[np.ndarray, "b f h w 3"]:
            return np.asarray(self.fetch(self.decode(sampled)))[: self.rows]

        return Step(number, total, shaped(tokens), shaped(sampled), self.mask_id, video)


def run(
    one: Callable[[Unfinished], Decoded],
    tokens: Int[Array | np.ndarray, "b s"],
    steps: int,
    clip: Clip,
    observer: Observer,
) -> Decoded:
    """Decoding step by step, `one` at a time; the tokens are those of a single call."""
    left = Unfinished(jnp.int32(-1), jnp.float32(0), jnp.asarray(tokens, jnp.int32))
    kept: Any = None
    while True:
        decoded = one(left)
        assert decoded.unfinished is not None
        left, trace = decoded.unfinished, decoded[2:5]
        kept = trace if kept is None else jax.tree.map(jnp.add, kept, trace)
        done = int(left.following)
        observer(clip.step(done, steps, left.tokens, decoded.tokens))
        if done >= steps:
            return Decoded(decoded.tokens, decoded.passes, *kept)


def observer(given: Given) -> Observer | None:
    """What is called after every step; None where nothing is shown."""
    if callable(given):
        return given
    if given is False or (given is None and not progress.in_notebook()):
        return None
    if given is not None and given is not True:
        raise UserError(f"progress={given!r}: must be True, False or a function of a Step.")
    return bar()


def bar() -> Observer:
    """Shows a bar of windows and steps, in a notebook or on stderr."""
    shown: list[progress.Bar] = []

    def show(step: Step) -> None:
        if not shown:
            shown.append(progress.Bar())
        done = (step.window - 1) * step.total + step.number
        window = f"window {step.window}/{step.windows}, " if step.windows > 1 else ""
        what = f"{window}step {step.number}/{step.total}"
        shown[0].show(done / (step.windows * step.total), what)

    return show


def of_window(observer: Observer | None, window: int, windows: int) -> Observer | bool:
    """`observer` for the steps of one window of a story, from 1."""
    if observer is None:
        return False
    return lambda step: observer(dataclasses.replace(step, window=window, windows=windows))
