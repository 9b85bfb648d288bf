"""AdamW and Muon, their learning-rate schedule, and gradients accumulated over micro-batches."""

import dataclasses

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import tree_map_with_path
from optax import contrib

from phenaki.errors import UserError

# Of an update by Muon: that of AdamW, so that one rate serves both (arXiv 2502.16982, §2.2).
MUON_RMS = 0.2


@dataclasses.dataclass(frozen=True)
class OptimOptions:
    """The optimiser's numbers, those of `config.optim`."""

    rate: float  # peak of the learning rate
    warmup: int  # steps of its linear increase
    decay: int | None  # step at which its cosine reaches 0; None: constant after the warm-up
    b1: float
    b2: float
    weight_decay: float
    clip: float  # global norm of the gradient
    ema: float  # decay of the averaged parameters
    accumulate: int  # micro-batches per step
    name: str = "adamw"  # or muon


def make_optimizer(options: OptimOptions) -> optax.GradientTransformation:
    """The optimiser `options.name`, with the schedule and clipping of `options`.

    Raises:
        UserError: the decay ends before the warm-up.
    """
    if options.decay is not None and options.decay <= options.warmup:
        # The decay of the presets for one machine is config.train.steps, which alone was given.
        raise UserError(
            f"config.optim.decay={options.decay} must be above config.optim.warmup="
            f"{options.warmup}; nearest is {options.warmup + 1}. Where it follows "
            f"config.train.steps, give more of them, or --config.optim.warmup={options.decay // 2}."
        )
    rate = schedule(peak=options.rate, warmup=options.warmup, decay=options.decay)
    return OPTIMIZERS[options.name](
        rate,
        b1=options.b1,
        b2=options.b2,
        weight_decay=options.weight_decay,
        clip=options.clip,
    )


def schedule(*, peak: float, warmup: int, decay: int | None) -> optax.Schedule:
    """Linear 0 -> `peak` over `warmup` steps, then cosine to 0 at step `decay` (None: constant)."""
    if decay is None:
        return optax.join_schedules(
            [optax.linear_schedule(0.0, peak, warmup), optax.constant_schedule(peak)], [warmup]
        )
    return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, decay)


def adamw(
    rate: optax.Schedule, *, b1: float, b2: float, weight_decay: float, clip: float
) -> optax.GradientTransformation:
    """AdamW with global-norm clipping; weight decay for matrices only: no biases, norms, tables."""
    return optax.chain(
        optax.clip_by_global_norm(clip),
        optax.adamw(rate, b1, b2, weight_decay=weight_decay, mask=_decayed),
    )


def muon(
    rate: optax.Schedule, *, b1: float, b2: float, weight_decay: float, clip: float
) -> optax.GradientTransformation:
    """Muon for the matrices of transformer layers, all else as `adamw`. Not the paper's.

    Their momentum, of decay 0.95, is made orthogonal, queries, keys and values each by itself.
    """
    matrices = contrib.muon(
        rate,
        weight_decay=weight_decay,
        muon_weight_dimension_numbers=lambda params: tree_map_with_path(
            lambda path, _: _axes(path), params
        ),
        consistent_rms=MUON_RMS,
    )
    others = optax.adamw(rate, b1, b2, weight_decay=weight_decay, mask=_decayed)

    def kinds(params):
        return tree_map_with_path(lambda path, _: "matrices" if _axes(path) else "others", params)

    return optax.chain(
        optax.clip_by_global_norm(clip),
        optax.partition({"matrices": matrices, "others": others}, kinds),
    )


OPTIMIZERS = dict(adamw=adamw, muon=muon)
# Kernels of blocks/transformer.py are [layers, inputs, ..., outputs]; heads are outputs, and before
# them stand the three of `qkv`.
_OUTPUTS = dict(qkv=(3, 4), query=(2, 3), out=(2,), wi=(2,), wo=(2,))


def _decayed(params):
    return tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def _axes(path):
    """Which axes of a parameter are those of its matrices; None where AdamW trains it."""
    names = [part.key for part in path]
    if names[-1] != "kernel" or "layers" not in names or names[-2] not in _OUTPUTS:
        return None
    return contrib.MuonDimensionNumbers(reduction_axis=1, output_axis=_OUTPUTS[names[-2]])


def value_and_grad(loss_fn, params, batch, key, parts: int):
    """Loss and gradients of `loss_fn(params, batch, key) -> (loss, aux)` in `parts` micro-batches.

    Returns (loss, aux, gradients): means over the parts, and `aux` stacked along a new first axis.
    Every leaf of `batch` is split along its first axis, and every part has a key of its own.
    """
    gradient = jax.value_and_grad(loss_fn, has_aux=True)
    if parts == 1:
        # The key is not split: a run without accumulation has the numbers it always had.
        (loss, aux), grads = gradient(params, batch, key)
        return loss, jax.tree.map(lambda x: x[None], aux), grads
    slices = jax.tree.map(lambda x: x.reshape(parts, x.shape[0] // parts, *x.shape[1:]), batch)

    def add(total, part):
        (loss, aux), grads = gradient(params, *part)
        return jax.tree.map(jnp.add, total, (loss, grads)), aux

    # A scan holds the activations of one part at a time.
    zeros = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, params))
    (loss, grads), aux = jax.lax.scan(add, zeros, (slices, jax.random.split(key, parts)))
    return loss / parts, aux, jax.tree.map(lambda g: g / parts, grads)
