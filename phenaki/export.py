"""StableHLO programs, which run without this package: encode, decode and, of a model, sample.

Programs take the weights as their first argument, a dictionary of arrays by path, so that one file
of weights serves all of them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from ml_collections import ConfigDict

from phenaki.errors import one_of
from phenaki.io import artifacts, outputs, paths
from phenaki.io.paths import PathLike
from phenaki.models.frozen import Tokenizer
from phenaki.pipeline import Phenaki
from phenaki.sampling import options, sampler
from phenaki.types import VideoSpec

PLATFORMS = ("cpu", "cuda", "tpu")
WEIGHTS, MANIFEST = "weights.npz", "programs.json"
PROGRAMS = tuple(f"{name}.stablehlo" for name in ("encode", "decode", "sample"))


# name -> (function, shapes of its inputs but the weights).
Programs = dict[str, tuple[Callable[..., jax.Array], dict[str, jax.ShapeDtypeStruct]]]


def programs(model: Phenaki | Tokenizer, rows: int, **given: Any) -> Programs:
    """name -> (function of the weights and further inputs, shapes of those inputs by name).

    encode: video float32 [b f h w 3] in [0, 1] -> codes int32 [b t m n], the tokens. decode: the
    reverse. sample, of a whole model: codes int32 [b s], of which those equal to `mask_id` are
    sampled; ids int32 [b l] of the texts, all 0 for none; seed uint32; guidance and
    choice_temperature float32 -> codes [b s]. The same inputs give the same tokens as
    `Phenaki.sample`. `given` are the other sampling options, which are compiled in; `continued`
    ones of the model are not used.
    """
    if isinstance(model, Tokenizer):
        return _of_tokenizer(model.network, model.spec, rows)
    return _of_tokenizer(model.networks["tokenizer"], model.spec, rows) | {
        "sample": _sampling(model, rows, given)
    }


def _of_tokenizer(network: Any, spec: VideoSpec, rows: int) -> Programs:
    def encode(weights, video):
        return network.apply({"params": _nested(weights)["tokenizer"]}, video, method="encode")

    def decode(weights, tokens):
        params = {"params": _nested(weights)["tokenizer"]}
        return jnp.clip(network.apply(params, tokens, method="decode"), 0, 1)

    video = _shape((rows, spec.frames, spec.height, spec.width, 3), jnp.float32)
    return {
        "encode": (encode, {"video": video}),
        "decode": (decode, {"codes": _shape((rows, *spec.grid()), jnp.int32)}),
    }


def _sampling(model: Phenaki, rows: int, given: dict[str, Any]) -> Any:
    chosen = options.resolve(model.defaults, **given)
    static = chosen.static()._replace(trace=False)

    def sample(weights, tokens, ids, seed, guidance, choice_temperature):
        inputs = {"guidance": guidance, "choice_temperature": choice_temperature}
        ids = ids if model.has_text else None
        keys = sampler.row_keys(seed, rows)
        traced = jax.tree.map(jnp.asarray, chosen.traced()) | inputs
        return model.sample_tokens(
            _nested(weights), tokens, ids, None, keys, traced, static=static
        ).tokens

    inputs = {
        "codes": _shape((rows, model.spec.tokens()), jnp.int32),
        "ids": _shape((rows, model.settings.text_length or 1), jnp.int32),
        "seed": _shape((), jnp.uint32),
        "guidance": _shape((), jnp.float32),
        "choice_temperature": _shape((), jnp.float32),
    }
    return sample, inputs


def write(
    directory: PathLike,
    model: Phenaki | Tokenizer,
    *,
    rows: int,
    platforms: Sequence[str] = PLATFORMS,
    **given: Any,
) -> dict[str, Any]:
    """Writes every program, the weights and programs.json, which says how to call them.

    Returns the manifest in programs.json.

    Raises:
        UserError: an unknown platform.
    """
    for name in platforms:
        one_of("--platforms", name, dict.fromkeys(PLATFORMS))
    directory = paths.path(directory)
    _begin(directory)
    model = _portable(model)
    params = model.params if isinstance(model, Phenaki) else {"tokenizer": model.params}
    weights = traverse_util.flatten_dict(params, sep="/")
    arrays: dict[str, Any] = {name: np.asarray(value) for name, value in weights.items()}
    with artifacts.atomic(directory / WEIGHTS) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)
    shapes = jax.tree.map(lambda x: _shape(x.shape, x.dtype), weights)
    written = {}
    for name, (function, inputs) in programs(model, rows, **given).items():
        exported = jax.export.export(jax.jit(function), platforms=platforms)(
            shapes, *inputs.values()
        )
        with artifacts.atomic(directory / f"{name}.stablehlo") as partial:
            partial.write_bytes(exported.serialize())
        written[name] = {
            "inputs": {key: _text(value) for key, value in inputs.items()},
            "output": _text(exported.out_avals[0]),
            **artifacts.checksum(directory / f"{name}.stablehlo"),
        }
    manifest: dict[str, Any] = {
        "fingerprint": model.fingerprint,
        "platforms": list(platforms),
        "calling_convention": jax.export.maximum_supported_calling_convention_version,
        "jax": jax.__version__,
        "fps": model.spec.fps,
        "weights": artifacts.checksum(directory / WEIGHTS),
        "programs": written,
    }
    if isinstance(model, Phenaki):
        manifest |= dict(mask_id=model.network.mask_id, vocabulary=model.settings.vocabulary)
    artifacts.write_json(directory / MANIFEST, manifest, indent=2)
    return manifest


def _portable(model: Phenaki | Tokenizer) -> Phenaki | Tokenizer:
    """`model` without the kernels of one platform, which are not StableHLO that others run."""
    if isinstance(model, Phenaki):
        config = ConfigDict({**model.config.to_dict(), "attention": "xla"})
        return Phenaki(config, model.params)
    network = model.network
    if hasattr(network, "attention"):
        network = network.clone(attention="xla")
    return Tokenizer(network, model.params, model.spec, model.fingerprint)


def _begin(directory: paths.AnyPath) -> None:
    outputs.admit("output", directory, "programs")
    outputs.make("output", directory)
    # First of all it goes, last it comes: without it there are no programs.
    (directory / MANIFEST).unlink(missing_ok=True)
    every = [WEIGHTS, MANIFEST, *PROGRAMS]
    outputs.enlist(directory, every, kind="programs", replaced=r".*")


def _shape(shape, dtype) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


def _text(value) -> str:
    return f"{value.dtype}{list(value.shape)}"


def _nested(weights) -> dict[str, Any]:
    return traverse_util.unflatten_dict(weights, sep="/")
