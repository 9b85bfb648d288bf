"""A model as programs that run without this package: StableHLO of encode, decode and sampling.

Programs take the weights as their first argument, a dictionary of arrays by path, so that one file
of weights serves all of them.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from phenaki import pipeline
from phenaki.errors import UserError
from phenaki.sampling import options

PLATFORMS = ("cpu", "cuda", "tpu")
WEIGHTS, MANIFEST = "weights.npz", "programs.json"


def programs(model: pipeline.Phenaki, rows: int, **sampler) -> dict[str, tuple]:
    """name -> (function of the weights and further inputs, those inputs' shapes by name).

    encode: video float32 [b f h w 3] in [0, 1] -> codes int32 [b t m n]. decode: the reverse.
    sample: codes int32 [b s], of which those equal to `mask_id` are filled in; ids int32 [b l] of
    the texts, all 0 for none; seed uint32; guidance and choice_temperature float32 -> codes [b s].
    The same numbers give the same codes as `Phenaki.fill`. `sampler` are its other options.
    """
    spec = model.spec
    chosen = options.resolve(model.config, **sampler)
    form = pipeline.form_of(chosen)._replace(trace=False)
    known = pipeline.numbers_of(chosen)

    def encode(weights, video):
        return model.apply_tokenizer(_nested(weights)["tokenizer"], video, method="encode")

    def decode(weights, tokens):
        video = model.apply_tokenizer(_nested(weights)["tokenizer"], tokens, method="decode")
        return jnp.clip(video, 0, 1)

    def sample(weights, tokens, ids, seed, guidance, choice_temperature):
        numbers = known | {"guidance": guidance, "choice_temperature": choice_temperature}
        key = jax.random.key(seed)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(rows))
        ids = ids if model.config.text else None
        return model.sample_tokens(
            _nested(weights), tokens, ids, None, keys, numbers, form=form
        ).tokens

    grid = spec.grid()
    length = model.config.text.length if model.config.text else 1
    video = _shape((rows, spec.frames, spec.height, spec.width, 3), jnp.float32)
    number = _shape((), jnp.float32)
    return {
        "encode": (encode, {"video": video}),
        "decode": (decode, {"codes": _shape((rows, *grid), jnp.int32)}),
        "sample": (
            sample,
            {
                "codes": _shape((rows, spec.tokens()), jnp.int32),
                "ids": _shape((rows, length), jnp.int32),
                "seed": _shape((), jnp.uint32),
                "guidance": number,
                "choice_temperature": number,
            },
        ),
    }


def write(
    directory: Path | str,
    model: pipeline.Phenaki,
    *,
    rows: int,
    platforms: Sequence[str] = PLATFORMS,
    **sampler,
) -> dict[str, Any]:
    """Writes every program, the weights and what is needed to call them; returns the manifest.

    Raises:
        UserError: an unknown platform.
    """
    for name in platforms:
        if name not in PLATFORMS:
            raise UserError(f"--platforms: {name!r} must be one of {', '.join(PLATFORMS)}.")
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    # Kernels of one platform are no StableHLO of another.
    config = model.config.copy_and_resolve_references()
    config.attention = "xla"
    model = pipeline.Phenaki(config, model.params)
    weights = _flat(model.params)
    arrays: dict[str, Any] = {name: np.asarray(value) for name, value in weights.items()}
    np.savez(directory / WEIGHTS, **arrays)
    shapes = jax.tree.map(lambda x: _shape(x.shape, x.dtype), weights)
    made = {}
    for name, (function, inputs) in programs(model, rows, **sampler).items():
        exported = jax.export.export(jax.jit(function), platforms=platforms)(
            shapes, *inputs.values()
        )
        content = exported.serialize()
        (directory / f"{name}.stablehlo").write_bytes(content)
        made[name] = {
            "inputs": {key: _text(value) for key, value in inputs.items()},
            "output": _text(exported.out_avals[0]),
            "bytes": len(content),
        }
    manifest = {
        "fingerprint": model.fingerprint,
        "platforms": list(platforms),
        "calling_convention": jax.export.maximum_supported_calling_convention_version,
        "jax": jax.__version__,
        "mask_id": model.network.mask_id,
        "fps": model.spec.fps,
        "vocabulary": config.text.vocabulary if config.text else None,
        "programs": made,
    }
    (directory / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    return manifest


def _shape(shape, dtype):
    return jax.ShapeDtypeStruct(shape, dtype)


def _text(value) -> str:
    return f"{value.dtype}{list(value.shape)}"


def _flat(params):
    return traverse_util.flatten_dict(params, sep="/")


def _nested(weights):
    return traverse_util.unflatten_dict(weights, sep="/")
