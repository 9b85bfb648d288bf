"""Feature networks by name: where their weights are published, how they are converted and loaded.

Nothing is downloaded: `scripts/convert_weights.py` turns a public file into
`<directory>/<name>.npz`, and `load` reads that.
"""

import functools
import hashlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from phenaki.errors import UserError, one_of
from phenaki.features import tensor_files
from phenaki.features.torch_names import Shapes, flatten, shapes_of, unflatten
from phenaki.io import artifacts, outputs, paths
from phenaki.io.paths import AnyPath, PathLike

Params = dict[str, Any]


class Network(NamedTuple):
    """A network, shapes of an example's inputs, and its converter."""

    module: nn.Module
    inputs: tuple[Any, ...]
    convert: Callable[[dict[str, np.ndarray]], Params]


class Weights(NamedTuple):
    """A network and the public file that its weights come from."""

    network: Callable[[], Network]  # imports the network's module when called
    file: str
    source: str
    sha256: str = ""  # of that file: as many digits as its publisher gives, or none


def _floats(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _vgg16() -> Network:
    from phenaki.features import vgg

    return Network(vgg.VGG16(), (_floats(1, vgg.MIN_SIZE, vgg.MIN_SIZE, 3),), vgg.convert)


def _lpips_vgg() -> Network:
    from phenaki.features import vgg

    taps = tuple(_floats(1, 1, 1, widths[-1]) for widths in vgg.STAGES)
    return Network(vgg.LPIPSHeads(), (taps, taps), vgg.convert_heads)


def _inception() -> Network:
    from phenaki.features import inception

    pixels = _floats(1, inception.SIZE, inception.SIZE, 3)
    return Network(inception.Inception(), (pixels,), inception.convert)


def _i3d() -> Network:
    from phenaki.features import i3d

    video = _floats(1, i3d.MIN_FRAMES, i3d.SIZE, i3d.SIZE, 3)
    return Network(i3d.I3D(), (video,), i3d.convert)


def _clip(name: str) -> Network:
    from phenaki.features import clip

    sizes: dict[str, Any] = clip.SIZES[name]
    pixels = _floats(1, sizes["size"], sizes["size"], 3)
    ids = jax.ShapeDtypeStruct((1, sizes["length"]), jnp.int32)
    return Network(clip.CLIP(**sizes), (pixels, ids), clip.convert)


NETWORKS = {
    "vgg16": Weights(
        _vgg16,
        "vgg16-397923af.pth",
        "torchvision's, https://download.pytorch.org/models/vgg16-397923af.pth",
        "397923af",
    ),
    "lpips_vgg": Weights(
        _lpips_vgg,
        "vgg.pth",
        "lpips/weights/v0.1/vgg.pth in https://github.com/richzhang/PerceptualSimilarity",
        "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
    ),
    "inception": Weights(
        _inception,
        "pt_inception-2015-12-05-6726825d.pth",
        "release fid_weights of https://github.com/mseitzer/pytorch-fid",
        "6726825d",
    ),
    "i3d": Weights(
        _i3d,
        "i3d_k400.flax",
        "MAGVIT's, gs://magvit/metrics/frechet_distance/i3d_k400.flax; also i3d_pretrained_400.pt, "
        "which VideoGPT and TATS link to",
    ),
    "clip_b32": Weights(
        functools.partial(_clip, "clip_b32"),
        "ViT-B-32.pt",
        "OpenAI's, https://openaipublic.azureedge.net/clip/models/"
        "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af/ViT-B-32.pt",
        "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
    ),
    "clip_l14": Weights(
        functools.partial(_clip, "clip_l14"),
        "ViT-L-14.pt",
        "OpenAI's, https://openaipublic.azureedge.net/clip/models/"
        "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836/ViT-L-14.pt",
        "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
    ),
}


def find(name: str) -> Weights:
    """The entry of `NETWORKS`; UserError for an unknown name."""
    return one_of("feature network", name, NETWORKS)


def load(name: str, directory: PathLike) -> Params:
    """Float32 NumPy parameters of network `name` from the file that `convert` wrote to `directory`.

    Raises UserError, one line with the public file and the command, where the file is missing; and
    where an array is missing, unexpected or of another shape than the network's.
    """
    published, path = find(name), paths.path(directory) / f"{name}.npz"
    if not paths.is_file(path):
        raise UserError(
            f"{path}: is missing. Get {published.file} ({published.source}), then run: "
            f"python scripts/convert_weights.py --network={name} --input={published.file} "
            f"--output={directory}"
        )
    arrays = tensor_files.read(path)
    try:
        _check(arrays, shapes(name))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return unflatten(arrays)


def convert(name: str, source: PathLike, directory: PathLike) -> AnyPath:
    """Writes `directory`/`name`.npz from the public file `source` and returns its path.

    Raises UserError for the first tensor that does not fit, and then writes nothing.
    """
    published = find(name)
    outputs.admit("output", directory, "weights", [("input", source)])
    tensors = tensor_files.read(source)
    try:
        params = flatten(published.network().convert(tensors))
        arrays = {path: np.asarray(leaf, np.float32) for path, leaf in params.items()}
        _check(arrays, shapes(name))
        for path, array in arrays.items():
            if not np.isfinite(array).all():
                raise UserError(f"array {path!r} has NaN or infinity.")
    except ValueError as error:  # UserError is one, and NumPy raises it for shapes
        raise UserError(f"{source}: is no {name} ({published.file}): {error}") from error
    target = paths.path(directory) / f"{name}.npz"
    with outputs.claimed("output", directory, "weights"):
        outputs.enlist(target.parent, [target.name], kind="weights")
        with artifacts.atomic(target) as partial, partial.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # names are paths: "file" is not one
    return target


def is_published(name: str, path: PathLike) -> bool | None:
    """Whether the file has the published checksum; None where none is published."""
    sha256 = find(name).sha256
    if not sha256:
        return None
    with paths.local(path) as local, local.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().startswith(sha256)


def shapes(name: str) -> Shapes:
    """Shapes of the network's parameters by path; nothing is computed."""
    network = find(name).network()
    return shapes_of(network.module, *network.inputs)


def _check(arrays: Mapping[str, np.ndarray], expected: Shapes) -> None:
    for name, shape in expected.items():
        if name not in arrays:
            raise UserError(f"array {name!r} is missing.")
        if arrays[name].shape != shape:
            raise UserError(f"array {name!r} has shape {arrays[name].shape}, not {shape}.")
    for name in arrays:
        if name not in expected:
            raise UserError(f"array {name!r} is unexpected.")


def random(name: str, seed: int) -> Params:
    """Untrained parameters, to try a program without weights; scores with them mean nothing.

    The same seed gives the same parameters on every host.
    """
    network = find(name).network()

    @jax.jit
    def init(key):
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), network.inputs)
        return network.module.init(key, *zeros)["params"]

    return init(jax.random.key(seed, impl="threefry2x32"))
