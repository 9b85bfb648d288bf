"""Train step and sampler of a config as functions of shapes: what a run compiles, without a run."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from phenaki import pipeline, sharding
from phenaki.data import batches
from phenaki.models import factory
from phenaki.sampling import options, sampler
from phenaki.text.weights import stored_dtype
from phenaki.train import maskgit, tokenizer
from phenaki.types import Text, VideoSpec


class Program(NamedTuple):
    """`function(*inputs)`; `inputs` are trees of shapes."""

    function: Callable
    inputs: tuple[Any, ...]
    batch: frozenset[int]  # indices of the inputs that are split as batches


class TextShape(NamedTuple):
    """Captions of a sample: ids [length], and embeddings [length, width] where they are cached."""

    length: int
    width: int
    cached: bool


@dataclasses.dataclass(frozen=True)
class Workload:
    """A training run as a plan sees it: networks, shapes, batch sizes and number of steps.

    `heads`, `mlp_dim`, `width` and `layers` are of the trained network, None where it has none.
    """

    kind: str  # tokenizer or maskgit
    name: str  # of the trained network
    spec: VideoSpec
    codebook: int
    samples: dict[str, int]  # clips ("video") and images ("image") of a step
    accumulate: int
    steps: int
    remat: str
    mesh: dict[str, int]  # as in config.mesh: -1 is whatever is left
    itemsize: int  # bytes of a number in the compute type
    heads: int | None
    mlp_dim: int | None
    width: int | None
    layers: int | None
    tokenizer: Any
    generator: Any | None
    text: TextShape | None
    text_encoder: Any | None
    stored: dict[str, Any]  # the plain config

    def train_step(
        self, samples: dict[str, int] | None = None, remat: str | None = None
    ) -> Program:
        """The train step as a `Program`, of other `samples` or another `remat` if given."""
        return _train_step(self, samples or self.samples, remat or self.remat)

    def varied(
        self,
        *,
        samples: dict[str, int] | None = None,
        accumulate: int | None = None,
        remat: str | None = None,
    ) -> "Workload":
        """The same run with other samples of a step, micro-batches or remat policy."""
        accumulate = accumulate or self.accumulate
        return dataclasses.replace(
            self,
            samples=samples or self.samples,
            accumulate=accumulate,
            remat=remat or self.remat,
            stored=self.stored | {"optim": self.stored["optim"] | {"accumulate": accumulate}},
        )

    def sampler(self, rows: int) -> Program:
        """The sampling loop of stage 2 for `rows` videos: all decoding steps in one program."""
        return _sampler(self, rows)


def workload(config: ConfigDict) -> Workload:
    """The workload of a config of either stage; stage 2's has its tokenizer's sizes."""
    is_generator = config.kind == "maskgit"
    network = config.model if is_generator else config.tokenizer
    layers = network.get("depth")
    if layers is None and "space_depth" in network:  # encoder and decoder
        layers = 2 * (network.space_depth + network.time_depth)
    text = config.get("text")
    return Workload(
        kind="maskgit" if is_generator else "tokenizer",
        name="MaskGIT" if is_generator else config.tokenizer.name,
        spec=factory.video_spec(config),
        codebook=config.tokenizer.codebook,
        samples=batches.sizes_of(config.data),
        accumulate=config.optim.accumulate,
        steps=config.train.steps,
        remat=config.remat,
        mesh=dict(config.mesh),
        itemsize=jnp.dtype(factory.dtype(config.dtype)).itemsize,
        heads=network.get("heads"),
        mlp_dim=network.get("mlp_dim"),
        width=network.get("width"),
        layers=layers,
        tokenizer=factory.tokenizer(config),
        generator=factory.maskgit(config) if is_generator else None,
        text=TextShape(text.length, text.width, text.cached) if text else None,
        text_encoder=factory.text_encoder(config) if text else None,
        stored=config.to_dict(),
    )


def _train_step(run: Workload, samples: dict[str, int], remat: str) -> Program:
    config = ConfigDict({**run.stored, "remat": remat})
    key = jax.eval_shape(lambda: jax.random.key(0))
    if run.kind == "maskgit":
        config.code_init = 0.0  # needs the codebook itself, and changes no size
        stage = maskgit.make_stage(config, _frozen(run))
        frozen = stage.frozen
    else:
        config.start = ""
        config.features.weights = "random"
        made = []

        def load():
            made.append(tokenizer.make_stage(config))
            return made[0].frozen

        frozen = jax.eval_shape(load)
        stage = made[0]
    state = jax.eval_shape(stage.init, key)
    batch = {kind: _batch(run, kind, count) for kind, count in samples.items()}
    return Program(stage.step, (state, frozen, batch, key), frozenset({2}))


def _sampler(run: Workload, rows: int) -> Program:
    config = ConfigDict(run.stored)
    model = pipeline.Phenaki(config, {})
    chosen = options.resolve(model.defaults)
    tokens = _shape((rows, run.spec.tokens()), jnp.int32)
    params = _frozen(run)
    inputs: tuple = (tokens, None)
    ids = None
    if run.text:
        ids = _shape((rows, run.text.length), jnp.int32)
        hidden = _shape((rows, run.text.length, run.text.width), jnp.float32)
        mask = _shape((rows, run.text.length), bool)
        inputs = (tokens, jax.eval_shape(Text, hidden, mask))
        params["text"] = _text_params(run)
    params["maskgit"] = _params(run.generator, *inputs)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), rows))

    masks = np.full(tokens.shape, model.network.mask_id, np.int32)
    static = sampler.with_views(chosen.static(), model.network, masks)

    def function(params, tokens, ids, keys, traced):
        return model.sample_tokens(params, tokens, ids, None, keys, traced, static=static)

    traced = jax.tree.map(jnp.asarray, chosen.traced())
    return Program(function, (params, tokens, ids, keys, traced), frozenset({1, 2, 3}))


def count(tree: Any) -> int:
    """The number of values in a tree of shapes."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def _batch(run: Workload, kind: str, rows: int) -> dict[str, Any]:
    """The shapes of one kind of a training batch."""
    frames = run.spec.frames if kind == "video" else 1
    batch = {"video": _shape((rows, frames, run.spec.height, run.spec.width, 3), jnp.uint8)}
    if run.text:
        batch["text_ids"] = _shape((rows, run.text.length), jnp.int32)
        if run.text.cached:
            batch["text"] = _shape((rows, run.text.length, run.text.width), jnp.float32)
    return batch


def _shape(shape, dtype):
    return jax.ShapeDtypeStruct(shape, dtype)


def _frozen(run: Workload) -> dict[str, Any]:
    """The shapes of the parameters that stage 2 keeps frozen."""
    clip = _shape((1, run.spec.frames, run.spec.height, run.spec.width, 3), jnp.float32)
    frozen = {"tokenizer": _params(run.tokenizer, clip)}
    if run.text and not run.text.cached:
        frozen["text"] = _text_params(run)
    return frozen


def _text_params(run):
    """The shapes of the text encoder's parameters, in the types that a run loads them in."""
    params = _params(run.text_encoder, _shape((1, run.text.length), jnp.int32))
    if run.stored["text"].get("weights", "random") == "random":
        return params
    flat = flax.traverse_util.flatten_dict(params, sep="/")
    flat = {key: _shape(x.shape, stored_dtype(key, run.text_encoder)) for key, x in flat.items()}
    return flax.traverse_util.unflatten_dict(flat, sep="/")


def _params(network, *inputs):
    return jax.eval_shape(network.init, jax.random.key(0), *inputs).get("params", {})


def place(program: Program, mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh) -> tuple:
    """The program's inputs with the shardings that a run on `mesh` gives them."""
    placed = []
    for index, tree in enumerate(program.inputs):
        if index in program.batch:
            split = jax.sharding.NamedSharding(mesh, sharding.BATCH)
            shardings = jax.tree.map(lambda _, split=split: split, tree)
        else:
            shardings = sharding.shardings(tree, mesh)
        placed.append(
            jax.tree.map(
                lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings
            )
        )
    return tuple(placed)
