"""StableHLO programs of a model, which run without this package: encode, decode and sample.

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
from phenaki.pipeline import Phenaki
from phenaki.sampling import options, sampler

PLATFORMS = ("cpu", "cuda", "tpu")
WEIGHTS, MANIFEST = "weights.npz", "programs.json"
PROGRAMS = tuple(f"{name}.stablehlo" for name in ("encode", "decode", "sample"))


def programs(
    model: Phenaki, rows: int, **given: Any
) -> dict[str, tuple[Callable[..., jax.Array], dict[str, jax.ShapeDtypeStruct]]]:
    """name -> (function of the weights and further inputs, shapes of those inputs by name).

    encode: video float32 [b f h w 3] in [0, 1] -> codes int32 [b t m n], the tokens. decode: the
    reverse. sample: codes int32 [b s], of which those equal to `mask_id` are sampled; ids int32
    [b l] of the texts, all 0 for none; seed uint32; guidance and choice_temperature float32 ->
    codes [b s]. The same inputs give the same tokens as `Phenaki.sample`. `given` are the other
    sampling options, which are compiled in; `continued` ones of the model are not used.
    """
    spec = model.spec
    chosen = options.resolve(model.defaults, **given)
    static = chosen.static()._replace(trace=False)

    def encode(weights, video):
        return model.apply_tokenizer(_nested(weights)["tokenizer"], video, method="encode")

    def decode(weights, tokens):
        video = model.apply_tokenizer(_nested(weights)["tokenizer"], tokens, method="decode")
        return jnp.clip(video, 0, 1)

    def sample(weights, tokens, ids, seed, guidance, choice_temperature):
        inputs = {"guidance": guidance, "choice_temperature": choice_temperature}
        ids = ids if model.has_text else None
        keys = sampler.row_keys(seed, rows)
        traced = jax.tree.map(jnp.asarray, chosen.traced()) | inputs
        return model.sample_tokens(
            _nested(weights), tokens, ids, None, keys, traced, static=static
        ).tokens

    length = model.settings.text_length or 1
    video = _shape((rows, spec.frames, spec.height, spec.width, 3), jnp.float32)
    inputs = {
        "codes": _shape((rows, spec.tokens()), jnp.int32),
        "ids": _shape((rows, length), jnp.int32),
        "seed": _shape((), jnp.uint32),
        "guidance": _shape((), jnp.float32),
        "choice_temperature": _shape((), jnp.float32),
    }
    return {
        "encode": (encode, {"video": video}),
        "decode": (decode, {"codes": _shape((rows, *spec.grid()), jnp.int32)}),
        "sample": (sample, inputs),
    }


def write(
    directory: PathLike,
    model: Phenaki,
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
    # The kernels of one platform are not StableHLO that others run.
    config = ConfigDict({**model.config.to_dict(), "attention": "xla"})
    model = Phenaki(config, model.params)
    weights = traverse_util.flatten_dict(model.params, sep="/")
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
    manifest = {
        "fingerprint": model.fingerprint,
        "platforms": list(platforms),
        "calling_convention": jax.export.maximum_supported_calling_convention_version,
        "jax": jax.__version__,
        "mask_id": model.network.mask_id,
        "fps": model.spec.fps,
        "vocabulary": model.settings.vocabulary,
        "weights": artifacts.checksum(directory / WEIGHTS),
        "programs": written,
    }
    artifacts.write_json(directory / MANIFEST, manifest, indent=2)
    return manifest


def _begin(directory: paths.AnyPath) -> None:
    outputs.admit("output", directory, "programs")
    outputs.make("output", directory)
    outputs.enlist(directory, [WEIGHTS, MANIFEST, *PROGRAMS], kind="programs")
    # First of all it goes, last it comes: without it there are no programs.
    (directory / MANIFEST).unlink(missing_ok=True)


def _shape(shape, dtype) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


def _text(value) -> str:
    return f"{value.dtype}{list(value.shape)}"


def _nested(weights) -> dict[str, Any]:
    return traverse_util.unflatten_dict(weights, sep="/")
