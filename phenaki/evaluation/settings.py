"""What scores depend on, as JSON-able facts: software, networks, sampling options."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from phenaki import __version__
from phenaki.data import token_files
from phenaki.data.shapes.world import World
from phenaki.evaluation.tokenizer import FrozenTokenizer
from phenaki.io import checksums
from phenaki.pipeline import Phenaki
from phenaki.sampling import options

# Of the meaning of samples and features; raise it with code that changes them. 2: sample i of an
# evaluation depends on its number, and clips have a random order.
SCHEMA = 2
COMPUTED_ALIKE = ("parent", "name", "remat", "unroll")  # fields of networks that change no value


def environment() -> dict[str, Any]:
    """Versions and settings of the software that samples and computes features."""
    chosen: Any = jax.config
    return dict(
        schema=SCHEMA,
        phenaki=__version__,
        jax=jax.__version__,
        numpy=np.__version__,
        platform=jax.default_backend(),
        matmul_precision=chosen.jax_default_matmul_precision,
        random=[chosen.jax_default_prng_impl, chosen.jax_threefry_partitionable],
    )


def of_model(model: Phenaki | FrozenTokenizer) -> dict[str, Any]:
    """Parameters and fields of all networks, with dtype and attention; vocabulary and clips."""
    facts: dict[str, Any] = dict(
        fingerprint=model.fingerprint,
        networks=model.networks,
        spec=dataclasses.asdict(model.spec),
    )
    if isinstance(model, Phenaki):
        text = model.settings.vocabulary
        facts |= dict(
            context=model.context,
            vocabulary=token_files.vocabulary_facts(text) if text else None,
            text_length=model.settings.text_length,
        )
    return plain(facts)


def of_sampler(defaults: options.Defaults, given: Mapping[str, Any]) -> dict[str, Any]:
    """Every sampling option of a call with the options `given`, by default those of the model."""
    chosen = options.resolve(defaults, **given)
    facts = {name: getattr(chosen, name) for name in options.NAMES if name != "trace"}
    if chosen.critic is not None:
        network, params = chosen.critic.network, chosen.critic.params
        facts["critic"] = dict(network=network, params=checksums.digest(params))
    if chosen.student is not None:
        network, params = chosen.student.network, chosen.student.params
        facts["student"] = dict(network=network, params=checksums.digest(params))
    else:  # it came later: digests of calls without one stay what they were
        del facts["student"]
    later = options.resolve(defaults, continues=True, **given)
    changed = [name for name in facts if getattr(later, name) != getattr(chosen, name)]
    if changed:  # where frames are given
        facts["continued"] = {name: getattr(later, name) for name in changed}
    return plain(facts)


def of_alignment(
    model: Phenaki, world: World, count: int, seed: int, **given: Any
) -> dict[str, Any]:
    """What the accuracies of `alignment.measure` and `judged_clips` depend on."""
    return dict(
        environment=environment(),
        model=of_model(model),
        world=plain(dataclasses.asdict(world)),
        sampler=of_sampler(model.defaults, given),
        count=count,
        seed=seed,
    )


def digest(settings: Mapping[str, Any]) -> str:
    """12 hex digits that change with any of the facts."""
    text = json.dumps(plain(settings), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def plain(value: Any) -> Any:
    """`value` as JSON has it; networks by the names and values of their fields."""
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, str | int | float):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [f.name for f in dataclasses.fields(value) if f.name not in COMPUTED_ALIKE]
        fields = {name: plain(getattr(value, name)) for name in names}
        return {"type": type(value).__name__, **fields}
    if hasattr(value, "dtype"):  # of the computation: jnp.float32 is no dtype itself
        return np.dtype(value.dtype).name
    return getattr(value, "__qualname__", None) or str(value)
