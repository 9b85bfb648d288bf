"""Models that travel: config.json and a safetensors file per network, data that nothing executes.

NETWORK.safetensors names every parameter by its path, such as transformer/norm/scale. config.json
has the config, what is known of the model, and the SHA-256 of every file that loading reads.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epy
from flax.traverse_util import flatten_dict, unflatten_dict

from phenaki.errors import UserError
from phenaki.io import artifacts, outputs, paths, verify
from phenaki.io.paths import AnyPath

with epy.lazy_imports():  # what is in a run or a bundle needs none
    import safetensors.numpy as st

FORMAT, KIND = "phenaki", "shared model"
CONFIG, CARD, SAMPLES = "config.json", "README.md", "samples"
NETWORKS = ("tokenizer", "maskgit", "text", "critic", "student")
VOCABULARY = "sentencepiece.model"  # the file of config.text.vocabulary, with models that have one
READ = (CONFIG, VOCABULARY, *(f"{network}.safetensors" for network in NETWORKS))  # by loading
FILES = (*READ, CARD, f"{SAMPLES}/*")


def is_one(directory: AnyPath) -> bool:
    """Whether `directory` holds a shared model; a training run has a config.json, too."""
    return (artifacts.marked(directory / CONFIG) or {}).get("format") == FORMAT


def begin(directory: AnyPath) -> None:
    """Removes the shared model that was in an output folder, and lists the files of the next."""
    outputs.enlist(directory, [*READ, CARD], kind=KIND, replaced=r".*")
    if (directory / SAMPLES).is_dir():
        outputs.enlist(directory / SAMPLES, (), replaced=r".*")


def copy(source: AnyPath, directory: AnyPath) -> None:
    """Copies a shared model with its card and samples into an output folder."""
    begin(directory)
    samples = [name for name in paths.names(source / SAMPLES) if not name.startswith(".")]
    if samples:
        (directory / SAMPLES).mkdir(exist_ok=True)
        outputs.enlist(directory / SAMPLES, samples)
    # config.json comes last: it makes the folder a model.
    for name in (*(f"{SAMPLES}/{name}" for name in samples), CARD, *reversed(READ)):
        if paths.is_file(source / name):
            with paths.local(source / name) as local, artifacts.atomic(directory / name) as partial:
                shutil.copyfile(local, partial)


def write(
    directory: AnyPath, params: Mapping[str, Any], vocabulary: AnyPath | None = None
) -> dict[str, str]:
    """Writes `params`, one tree per network, and a copy of `vocabulary`: {file: SHA-256}."""
    files = []
    for network, tree in params.items():
        files.append(f"{network}.safetensors")
        arrays = {path: np.asarray(x) for path, x in flatten_dict(tree, sep="/").items()}
        with artifacts.atomic(directory / files[-1]) as partial:
            st.save_file(arrays, partial, metadata={"format": FORMAT})
            partial.chmod(0o644)  # the library's own are for their owner alone
    if vocabulary is not None:
        files.append(VOCABULARY)
        with artifacts.atomic(directory / VOCABULARY) as partial:
            partial.write_bytes(vocabulary.read_bytes())
    return {name: artifacts.checksum(directory / name)["sha256"] for name in files}


def read(directory: AnyPath, files: Any) -> dict[str, Any]:
    """The parameters by network as float32 numpy; `files` are what `write` returned.

    Raises:
        UserError: a file is missing, damaged or not the one that config.json names.
    """
    if not isinstance(files, dict) or not files.keys() <= set(READ):
        raise UserError(f"{directory / CONFIG}: its files {files!r} are not those of a model.")
    for name, sha256 in files.items():
        if not paths.is_file(directory / name):
            raise UserError(f"{directory / name}: is missing; copy the model again.")
        if verify.verified() and artifacts.checksum(directory / name)["sha256"] != sha256:
            raise UserError(
                f"{directory / name}: is damaged, or another file: its SHA-256 is not the one in "
                f"{CONFIG}. Copy the model again, or give --no_verify."
            )
    networks = [network for network in NETWORKS if f"{network}.safetensors" in files]
    return {network: _read(directory / f"{network}.safetensors") for network in networks}


def _read(file: AnyPath) -> Any:
    with paths.local(file) as local:
        try:
            tree = unflatten_dict(st.load_file(Path(local)), sep="/")
        except Exception as error:  # the library has an error of its own for every defect
            raise UserError(f"{file}: is damaged ({error}); copy the model again.") from error
    return jax.tree.map(lambda x: np.asarray(x, np.float32), tree)
