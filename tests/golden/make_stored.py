"""Writes stored_N.tar.xz: runs, a bundle and a data set of schema N, by a commit that wrote them.

cd CHECKOUT && PYTHONPATH=.:tests:tests/helpers python make_stored.py OUTPUT.tar.xz

CHECKOUT is of 9492bbf (schema 1), bbb51fb (2) or fdd58d1 (3).
"""

import contextlib
import importlib
import re
import sys
import tarfile
import tempfile
from pathlib import Path

import jax
import numpy as np
import tiny
from PIL import Image

# For people, or with names of folders.
LEFT_OUT = re.compile(r"samples/|events|report\.|contact_sheet|metrics\.jsonl|dead_letters")


def first(*names):
    """The first of these `module:attribute` that this commit has."""
    for name in names:
        module, attribute = name.split(":")
        with contextlib.suppress(ImportError, AttributeError):
            return getattr(importlib.import_module(module), attribute)
    raise LookupError(names)


class Quiet:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def update(self, count):
        pass


def main(output):
    root = Path(tempfile.mkdtemp()) / "stored"
    root.mkdir()
    train = dict(steps=2, save_every=1, keep=1, sample_every=100, sample_count=0)
    stage1 = tiny.tokenizer_config(train=train, data=dict(batch=2))
    stage2 = tiny.maskgit_config(train=train, data=dict(batch=2))
    train_tokenizer = first("phenaki.train.tokenizer:train", "phenaki.train.stages:train_tokenizer")
    train_maskgit = first("phenaki.train.maskgit:train", "phenaki.train.stages:train_maskgit")
    one = jax.devices()[:1]
    train_tokenizer(stage1, root / "tokenizer", devices=one)
    train_maskgit(stage2, root / "tokenizer", root / "maskgit", devices=one)
    model = first("phenaki.pipeline:Phenaki").load(root / "maskgit")
    if hasattr(model, "save"):
        model.save(root / "bundle")
    else:
        first("phenaki.checkpoint:save_bundle")(root / "bundle", model.params, model.config)
    images = root.parent / "images"
    images.mkdir()
    for number in range(6):
        Image.fromarray(np.full((16, 16, 3), 40 * number, np.uint8)).save(images / f"{number}.png")
        (images / f"{number}.txt").write_text(f"grey {number}")
    options = first("phenaki.data.prepare.run:PrepareOptions", "phenaki.data.prepare:Options")
    prepare = first("phenaki.data.prepare.run:prepare", "phenaki.data.prepare:prepare")
    prepare(options(images, root / "set", height=16, width=16, validation=0.0))
    with contextlib.suppress(LookupError):
        opened = first("phenaki.train.maskgit:open_encoder", "phenaki.encoding:Encoder")
        encode = first("phenaki.train.encode_dataset:run", "phenaki.encoding:run")
        places = [str(root / name) for name in ("set", "codes")]
        encode(opened(stage2, root / "tokenizer", *places, 8), print, lambda total: Quiet())
    prompts = ["a red circle moves left"]
    np.save(root / "video.npy", np.asarray(model.generate(prompts, seed=5)).astype(np.float16))
    with tarfile.open(output, "w:xz", preset=9) as archive:
        for path in sorted(root.rglob("*")):
            if path.is_file() and not LEFT_OUT.search(str(path.relative_to(root))):
                if path.name == "commit_success.txt":  # it names a folder of this machine
                    path.write_text("complete\n")
                archive.add(path, path.relative_to(root))


if __name__ == "__main__":
    main(sys.argv[1])
