"""What a row of a table asks for, checked before anything is computed."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from phenaki.errors import UserError
from phenaki.evaluation.extractors import Extractor
from phenaki.evaluation.store import Store
from phenaki.features.i3d import MIN_FRAMES

CODES = ("code_usage", "code_perplexity", "tokens")
NETWORKS = dict(
    fid="inception",
    inception_score="inception",
    fvd="i3d",
    fid_video="i3d",
    lpips="lpips",
    clip_score="clip",
)
METRICS = (*NETWORKS, "psnr", "ssim", *CODES)
PREDICTED = ("originals", "through_codec")  # how the given frames are scored
TASKS = ("text_to_video", "text_to_image", "reconstruction", "prediction")


@dataclasses.dataclass(frozen=True)
class Task:
    """What a row of configs/tables.py asks for; frames are those that are scored."""

    task: str
    metrics: tuple[str, ...]
    frames: int
    views: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    given: int = 0
    samples: int = 1  # per clip
    prompt: str = "{}"  # around a clip's caption
    sampler: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    frame_step: int = 1  # frame-wise features of each so many frames
    resamples: int = 20
    per_shard: int = 64

    def __post_init__(self):
        for metric in self.metrics:
            if metric not in METRICS:
                raise UserError(f"no measure {metric!r}; known: {', '.join(METRICS)}.")
        for name, (start, stop) in self.scored.items():
            if stop > self.frames:
                raise UserError(
                    f"{name or 'clips'}: frames {start} .. {stop - 1} of clips of {self.frames}."
                )
            if "i3d" in self.networks and stop - start < MIN_FRAMES:
                raise UserError(
                    f"FVD of {stop - start} frames is undefined: I3D needs {MIN_FRAMES} or more."
                )

    @property
    def scored(self) -> Mapping[str, tuple[int, int]]:
        """The views, or all frames without a name."""
        return self.views or {"": (0, self.frames)}

    @property
    def networks(self) -> tuple[str, ...]:
        """Feature networks that the measures need."""
        return tuple(dict.fromkeys(NETWORKS[m] for m in self.metrics if m in NETWORKS))


class Evaluation(NamedTuple):
    """Everything of one evaluation, for `scores` to turn into records."""

    plan: Task
    real: Store
    fake: Store
    networks: Mapping[str, Extractor]
    facts: Mapping[str, Any]  # of every record: size, fps, seed, sampler
    codebook: int


def task_of(row: Mapping[str, Any], frames: int, per_shard: int, **fields: Any) -> Task:
    """The plan of a row of configs/tables.py for clips of `frames` frames."""
    known = {field.name for field in dataclasses.fields(Task)}
    asked: dict[str, Any] = {k: v for k, v in row.items() if k in known} | fields
    asked["frames"] = asked.get("frames") or (1 if row["task"] == "text_to_image" else frames)
    if row["task"] == "prediction":
        asked["views"] = dict.fromkeys(PREDICTED, (0, asked["frames"]))
    asked["metrics"] = tuple(asked["metrics"])
    return Task(per_shard=per_shard, **asked)
