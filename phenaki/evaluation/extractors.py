"""Feature networks as functions of clips, with the settings that a score records of them."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange

from phenaki.errors import UserError
from phenaki.evaluation import devices
from phenaki.features import bpe, clip, i3d, inception, vgg, weights
from phenaki.io import checksums, paths

RANDOM = "random"  # instead of a directory of weights: untrained networks, for proxy scores


@dataclasses.dataclass(frozen=True)
class Extractor:
    """A feature network: `run` maps float32 clips [b f h w 3] in [0, 1] to arrays by name [b ...].

    LPIPS takes two sets of clips, CLIP clips and captions.
    """

    name: str
    checksum: str  # 16 hex digits of all parameters
    trained: bool
    resize: str
    value_range: str
    run: Callable[..., dict[str, np.ndarray]]


@functools.cache
def build(name: str, directory: str) -> Extractor:
    """The extractor "inception", "i3d", "lpips" or "clip" with the weights in `directory`.

    `directory` is the output of scripts/convert_weights.py, or "random".

    Raises:
        UserError: weights are missing; says how to get them.
    """
    networks, make, resize, value_range = EXTRACTORS[name]
    trained = directory != RANDOM
    params = {
        part: weights.load(part, directory) if trained else weights.random(part, seed=0)
        for part in networks
    }
    checksum = checksums.digest(params)
    return Extractor(name, checksum, trained, resize, value_range, make(params, directory))


def _inception(params, directory):
    del directory
    network = devices.batched(_inception_features, params["inception"], rows=16)
    return lambda video: _by_frame(network, video)


def _inception_features(params, images):
    found = inception.features(params, images)
    # The Inception score was defined on logits without the bias.
    return {"pool": found.pool, "logits": found.logits - params["fc"]["bias"]}


def _i3d(params, directory):
    del directory

    def features(params, video):
        found: Any = i3d.I3D().apply({"params": params}, video, ("logits_mean", "pool_mean"))
        return {"logits": found["logits_mean"], "pool": found["pool_mean"]}

    return devices.batched(features, params["i3d"], rows=4)


def _lpips(params, directory):
    del directory
    network = devices.batched(lambda p, x, y: {"lpips": vgg.lpips(p, x, y)}, params, rows=16)
    return lambda real, fake: _by_frame(network, real, fake)


def _clip(params, directory):
    sizes: Any = clip.SIZES["clip_b32"]
    model = clip.CLIP(**sizes)
    if directory == RANDOM:
        raise UserError("a CLIP score needs trained weights; give --weights=DIR.")
    path = paths.path(directory) / bpe.FILE
    if not paths.is_file(path):
        raise UserError(f"{path}: is missing; put the vocabulary file of OpenAI's CLIP there.")
    tokens = bpe.BytePairs(path)
    images = devices.batched(
        lambda p, x: {"e": model.apply({"params": p}, x, method="image_embeddings")},
        params["clip_b32"],
        rows=16,
    )
    texts = devices.batched(
        lambda p, x: model.apply({"params": p}, x, method="text_embeddings"),
        params["clip_b32"],
        rows=16,
    )

    def run(video: np.ndarray, captions: Sequence[str]):
        frames, prompts = _by_frame(images, video)["e"], texts(tokens.encode(captions))
        return {"clip_score": np.einsum("bfe,be->b", frames, prompts) / video.shape[1]}

    return run


def _by_frame(network, *videos):
    """Arrays [b f ...] of clips [b f h w c] from a network of images."""
    count = videos[0].shape[1]
    found = network(*(rearrange(v, "b f h w c -> (b f) h w c") for v in videos))
    return jax.tree.map(lambda x: x.reshape(-1, count, *x.shape[1:]), found)


EXTRACTORS: dict[str, tuple] = {
    "inception": (("inception",), _inception, "TF1 bilinear to 299x299", "[-1, 1]"),
    "i3d": (("i3d",), _i3d, "TF1 bilinear to 224x224", "[-1, 1]"),
    "lpips": (("vgg16", "lpips_vgg"), _lpips, "none", "[0, 1], ImageNet's mean and deviation"),
    "clip": (("clip_b32",), _clip, "antialiased bicubic to 224, centre", "CLIP's normalisation"),
}


def bytes_of(video: Any) -> np.ndarray:
    """Clips rounded to 8 bits, on which FID and FVD are defined; float32 in [0, 1]."""
    return np.asarray(jnp.rint(jnp.clip(video, 0, 1) * 255) / 255, np.float32)
