"""A config's train step and sampler as functions of shapes: what a run compiles, without a run."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from phenaki import pipeline, sharding
from phenaki.models import factory
from phenaki.sampling import options
from phenaki.train import maskgit, tokenizer
from phenaki.types import Text


class Program(NamedTuple):
    """`function(*inputs)`; `inputs` are trees of shapes."""

    function: Callable
    inputs: tuple[Any, ...]
    batch: frozenset[int]  # which inputs are split as batches


def train_step(config: ConfigDict, rows: dict[str, int] | None = None) -> Program:
    """The step of either stage; `rows` of each kind, those of `config.data` by default.

    Stage 2's config has its tokenizer's sizes.
    """
    config = ConfigDict(config.to_dict())
    rows = rows or kinds(config)
    key = jax.eval_shape(lambda: jax.random.key(0))
    if config.kind == "maskgit":
        config.code_init = 0.0  # needs the codes, and changes no size
        stage = maskgit.make_stage(config, _frozen(config))
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
    batch = {kind: _part(config, kind, count) for kind, count in rows.items()}
    return Program(stage.step, (state, frozen, batch, key), frozenset({2}))


def sampler(config: ConfigDict, rows: int) -> Program:
    """The sampling loop of stage 2 at the config's own options: all steps in one program."""
    model = pipeline.Phenaki(config, {})
    chosen = options.resolve(model.defaults)
    tokens = _shape((rows, factory.video_spec(config).tokens()), jnp.int32)
    params = _frozen(config)
    inputs: tuple = (tokens, None)
    ids = None
    if config.text:
        ids = _shape((rows, config.text.length), jnp.int32)
        hidden = _shape((rows, config.text.length, config.text.width), jnp.float32)
        mask = _shape((rows, config.text.length), bool)
        inputs = (tokens, jax.eval_shape(Text, hidden, mask))
        params["text"] = _params(factory.text_encoder(config), ids)
    params["maskgit"] = _params(factory.maskgit(config), *inputs)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), rows))

    def function(params, tokens, ids, keys, traced):
        return model.sample_tokens(params, tokens, ids, None, keys, traced, static=chosen.static())

    traced = jax.tree.map(jnp.asarray, chosen.traced())
    return Program(function, (params, tokens, ids, keys, traced), frozenset({1, 2, 3}))


def kinds(config: ConfigDict) -> dict[str, int]:
    """Clips and stills of a step."""
    sizes = {"video": config.data.batch, "image": config.data.image_batch}
    return {kind: size for kind, size in sizes.items() if size}


def count(tree: Any) -> int:
    """Numbers in a tree of shapes."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def _part(config, kind, rows):
    spec = factory.video_spec(config)
    frames = spec.frames if kind == "video" else 1
    part = {"video": _shape((rows, frames, spec.height, spec.width, 3), jnp.uint8)}
    if config.get("text"):
        part["text_ids"] = _shape((rows, config.text.length), jnp.int32)
        if config.text.cached:
            part["text"] = _shape((rows, config.text.length, config.text.width), jnp.float32)
    return part


def _shape(shape, dtype):
    return jax.ShapeDtypeStruct(shape, dtype)


def _frozen(config):
    spec = factory.video_spec(config)
    clip = _shape((1, spec.frames, spec.height, spec.width, 3), jnp.float32)
    frozen = {"tokenizer": _params(factory.tokenizer(config), clip)}
    if config.text and not config.text.cached:
        ids = _shape((1, config.text.length), jnp.int32)
        frozen["text"] = _params(factory.text_encoder(config), ids)
    return frozen


def _params(network, *inputs):
    return jax.eval_shape(network.init, jax.random.key(0), *inputs).get("params", {})


def place(program: Program, mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh) -> tuple:
    """The program's inputs with the shardings that a run on `mesh` gives them."""
    placed = []
    for index, tree in enumerate(program.inputs):
        if index in program.batch:
            split = jax.sharding.NamedSharding(mesh, sharding.BATCH)
            layout = jax.tree.map(lambda _, split=split: split, tree)
        else:
            layout = sharding.shardings(tree, mesh)
        placed.append(
            jax.tree.map(
                lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, layout
            )
        )
    return tuple(placed)
