"""Made-up feature networks and the flags of `phenaki evaluate`, for tests of evaluations."""

import importlib.util
from pathlib import Path

import jax.numpy as jnp
from absl import flags as absl_flags

from phenaki.evaluation import devices, extractors


def frame_features(params, images):
    """Mean colours of the quarters of an image."""
    b, h, w, _ = images.shape
    pool = images.reshape(b, 2, h // 2, 2, w // 2, 3).mean((2, 4)).reshape(b, 12)
    return {"pool": pool, "logits": 5 * pool[:, :4] + params["bias"]}


def clip_features(params, video):
    """As the frames' means, and how they change from frame to frame."""
    b, f = video.shape[:2]
    small = video.reshape(b, f, 2, video.shape[2] // 2, 2, video.shape[3] // 2, 3).mean((3, 5))
    change = jnp.abs(jnp.diff(small, axis=1)).mean(1).reshape(b, -1)
    means = small.mean(1).reshape(b, -1)
    return {"logits": jnp.concatenate([means, 20 * change], -1) + params["bias"], "pool": means}


def networks(rows=2):
    """Stand-ins for Inception, I3D and LPIPS, so that tests need neither weights nor minutes."""
    frames = devices.batched(frame_features, {"bias": jnp.zeros(())}, rows)
    pairs = devices.batched(
        lambda p, x, y: {"lpips": jnp.abs(x - y).mean((1, 2, 3)) + p}, jnp.zeros(()), rows
    )
    return {
        "inception": lambda video: extractors._by_frame(frames, video),
        "i3d": devices.batched(clip_features, {"bias": jnp.zeros(())}, rows),
        "lpips": lambda real, fake: extractors._by_frame(pairs, real, fake),
    }


def builder(networks):
    """A stand-in of `extractors.build` for those networks."""

    def build(name, directory):
        trained = directory != extractors.RANDOM
        return extractors.Extractor(name, "0" * 16, trained, "none", "[0, 1]", networks[name])

    return build


def script():
    """Yields commands/evaluate.py with its flags at their defaults; they leave absl's registry."""
    known = absl_flags.FLAGS
    before = set(known)
    path = Path(__file__).parents[2] / "phenaki/commands/evaluate.py"
    spec = importlib.util.spec_from_file_location("evaluate_script", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    known(["evaluate", "--table=1"])
    yield module
    known.unparse_flags()
    for name in set(known) - before:
        delattr(known, name)
