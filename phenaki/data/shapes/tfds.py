"""Moving shapes as a TFDS data set on disk; importing this module registers its builder.

import phenaki.data.shapes.tfds
tfds.builder("moving_shapes", data_dir=...).download_and_prepare()  # nothing is downloaded
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phenaki.data import format, tensorflow
from phenaki.data.shapes import render
from phenaki.data.shapes.world import World
from phenaki.io.quiet import no_logs

if TYPE_CHECKING:
    import tensorflow_datasets as tfds
else:
    tfds = tensorflow.datasets()

FPS = 8.0
BATCH = 64  # clips rendered at once
# Split on disk -> split of the world. Held-out combinations exist only as videos.
VIDEO = {"video_train": "train", "video_validation": "test", "video_held_out": "held_out"}
IMAGE = {"image_train": "train", "image_validation": "test"}


@dataclasses.dataclass
class MovingShapesConfig(tfds.core.BuilderConfig):
    """`train` and `validation` are the numbers of clips, and also of images, on disk."""

    name: str = "default"
    world: World = dataclasses.field(default_factory=World)
    train: int = 10_000
    validation: int = 500


class MovingShapes(tfds.core.GeneratorBasedBuilder):
    """Procedural captioned clips and images; the features are those of `format.features`."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [MovingShapesConfig()]
    code_path = None  # else TFDS looks for checksums of downloads next to the code

    def _info(self) -> tfds.core.DatasetInfo:
        form = self._format()
        return tfds.core.DatasetInfo(
            builder=self,
            description="Shapes that move over a plain background, with captions.",
            features=format.features(form),
            metadata=tfds.core.MetadataDict(dataclasses.asdict(form)),
        )

    def _format(self) -> format.ClipFormat:
        world = self.builder_config.world
        # PNG, because edges are sharp and the detector reads exact colours.
        return format.ClipFormat(world.frames, FPS, world.size, world.size, "png")

    def _split_generators(self, dl_manager) -> dict[str, Iterator]:
        del dl_manager  # nothing to download
        splits = [*VIDEO, *IMAGE]
        if not self.builder_config.world.held_out:
            splits.remove("video_held_out")
        return {split: self._generate_examples(split) for split in splits}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        sizes = self.builder_config
        count = sizes.train if split.endswith("train") else sizes.validation
        make = render.render if split in VIDEO else render.render_images
        for first in range(0, count, BATCH):
            indices = np.arange(first, min(first + BATCH, count))
            made = make(sizes.world, (VIDEO | IMAGE)[split], indices)
            for row, index in enumerate(indices):
                key = f"{split}/{index:08d}"
                yield key, self._record(key, made["video"][row], made["caption"][row]).example()

    def _record(self, key: str, video: np.ndarray, caption: str) -> format.ClipRecord:
        world = self.builder_config.world
        return format.ClipRecord(
            key=key,
            frames=format.encode(video, "png"),
            caption=caption,
            source=f"moving_shapes seed {world.seed}",
            source_sha256="",
            source_size=(world.size, world.size),
            start=0.0,
            fps=FPS if len(video) > 1 else 0.0,
        )


def write(
    directory: Path | str,
    world: World,
    train: int = 10_000,
    validation: int = 500,
) -> Path:
    """Writes the data set below `directory` and returns its own directory."""
    config = MovingShapesConfig(name="own", world=world, train=train, validation=validation)
    with no_logs():
        data = MovingShapes(config=config, data_dir=directory)
        data.download_and_prepare()
    return Path(data.data_dir)
