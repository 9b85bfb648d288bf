"""Training of a student on its teacher's samples (`phenaki.train.pairs`): step and run.

Not in the paper: see docs/sampling.md#student.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from phenaki.errors import UserError
from phenaki.losses import masked_tokens
from phenaki.models.student import from_teacher, of_teacher
from phenaki.pipeline import Phenaki
from phenaki.progress import Progress
from phenaki.sampling import orders
from phenaki.sampling.options import Student
from phenaki.train import inputs, pairs
from phenaki.train.optim import OptimOptions, make_optimizer
from phenaki.types import Text


@dataclasses.dataclass(frozen=True)
class StudentOptions:
    """The numbers of a run."""

    steps: int
    batch: int
    rate: float
    latent: int  # numbers of z
    samples: int  # of a prompt
    stories: int  # whose later windows are learned
    seed: int
    hidden: int = 96  # features of z
    later: float = 0.2  # fraction of a batch that are later windows
    partly: float = 0.3  # fraction of a batch that sees a part of the tokens: the second pass


def make_step(network: Any, optimizer: Any):
    """(params, optimiser's state, batch) -> (params, state, loss, accuracy of one pass)."""
    places = {name: jnp.asarray(orders.ranks(name, network.grid)) for name in ("middle", "frames")}

    def loss_fn(params, batch, text):
        # Given frames are the first of the order "frames", and the student samples in it there.
        rank = jnp.where((batch["given"] > 0)[:, None], places["frames"], places["middle"])
        mask = rank >= (batch["given"] + batch["kept"])[:, None]
        tokens = jnp.where(mask, network.mask_id, batch["tokens"])
        logits = network.apply(
            {"params": params}, tokens, text, latent=batch["latents"], method="draw"
        )
        nll, right = masked_tokens.masked_cross_entropy(logits, batch["tokens"], mask)
        once = batch["kept"] == 0
        return nll.mean(), (right * once).sum() / jnp.maximum(once.sum(), 1)

    def step(params, state, batch, text):
        (loss, right), grads = jax.value_and_grad(loss_fn, has_aux=True)(params, batch, text)
        updates, state = optimizer.update(grads, state, params)
        return jax.tree.map(jnp.add, params, updates), state, loss, right

    return jax.jit(step, donate_argnums=(0, 1))


class Examples:
    """Random batches of `data`, with how many tokens of each row the student sees."""

    def __init__(self, data: pairs.Pairs, options: StudentOptions):
        self.data, self.options = data, options
        self.random = np.random.default_rng(options.seed)
        self.first, self.later = np.flatnonzero(data.given == 0), np.flatnonzero(data.given)

    def next(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """(a batch, the texts of its rows)."""
        options, random = self.options, self.random
        later = round(options.later * options.batch) if len(self.later) else 0
        rows = np.concatenate(
            [random.choice(self.first, options.batch - later), random.choice(self.later, later)]
            if later
            else [random.choice(self.first, options.batch)]
        )
        part = pairs.Pairs(*(array[rows] for array in self.data))
        half = np.maximum((part.tokens.shape[1] - part.given) // 2, 1)
        kept = np.where(random.random(len(rows)) < options.partly, random.integers(half) + 1, 0)
        batch = dict(tokens=part.tokens, latents=part.latents, given=part.given, kept=kept)
        return batch, part.text


def train(
    model: Phenaki, prompts: pairs.Prompts, data: pairs.Pairs, options: StudentOptions
) -> Student:
    """A student of `model`, trained on its samples `data`; it starts as the model itself.

    Raises:
        UserError: the loss is not finite.
    """
    # Unrolled, as training steps of small models are.
    teacher = model.network.clone(unroll=model.network.depth)
    network = of_teacher(teacher, options.latent, options.hidden)
    text = model.embed(prompts.first + prompts.later)
    encoded, valid = np.asarray(text.embeddings), np.asarray(text.mask)
    example = inputs.example(model.spec.tokens(), encoded.shape[1:])
    teacher = model.params["maskgit"]
    params = from_teacher(network, teacher, jax.random.key(options.seed), *example)
    optimizer = make_optimizer(
        OptimOptions(
            name="muon", rate=options.rate, warmup=min(50, options.steps // 4),
            decay=options.steps, b1=0.9, b2=0.98, weight_decay=1e-4, clip=1.0, ema=0.0,
            accumulate=1,
        )
    )  # fmt: skip
    state, step = optimizer.init(params), make_step(network, optimizer)
    examples = Examples(data, options)
    with Progress(options.steps, "training") as progress:
        for number in range(options.steps):
            batch, rows = examples.next()
            captions = Text(jnp.asarray(encoded[rows]), jnp.asarray(valid[rows]))
            params, state, loss, right = step(params, state, batch, captions)
            note = ""
            # Waiting for every step's loss would leave the device idle between steps.
            if number % 25 == 24 or number + 1 == options.steps:
                if not math.isfinite(loss):
                    raise UserError(
                        f"--rate={options.rate:g}: the loss is {float(loss)} by step {number + 1}; "
                        f"nearest to try is --rate={options.rate / 4:g}."
                    )
                note = f"loss {float(loss):.2f}, right {float(right):.0%}"
            progress.update(note=note)
    return Student(network, params)
