"""Evaluation tasks: the measures and clips of a table row, checked before computing."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from phenaki.errors import UserError, one_of
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
    """The evaluation that a row of configs/tables.py asks for; `frames` are those scored.

    Raises:
        UserError: a measure is unknown, or a view has too few or too many frames.
    """

    task: str
    metrics: tuple[str, ...]
    frames: int
    views: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    given: int = 0
    samples: int = 1  # per reference clip
    prompt: str = "{}"  # around a clip's caption
    sampler: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    frame_step: int = 1  # features of single frames are of every frame_step-th
    resamples: int = 20
    per_shard: int = 64

    def __post_init__(self):
        for metric in self.metrics:
            one_of("metrics", metric, dict.fromkeys(METRICS))
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
        """The frame spans that are scored by view; all frames under "" where there are no views."""
        return self.views or {"": (0, self.frames)}

    @property
    def view_frames(self) -> int:
        """The frames of the shortest view."""
        return min(stop - start for start, stop in self.scored.values())

    @property
    def networks(self) -> tuple[str, ...]:
        """The feature networks that the measures need."""
        return tuple(dict.fromkeys(NETWORKS[m] for m in self.metrics if m in NETWORKS))


class Evaluation(NamedTuple):
    """The stored features of one evaluation, from which `aggregate.scores` computes scores."""

    task: Task
    real: Store
    fake: Store
    networks: Mapping[str, Extractor]
    facts: Mapping[str, Any]  # of every score: size, fps, seed, sampler, settings
    codebook: int
    windows: int = 1  # reference clips that are windows of one: resampled and halved together
    tokens: int = 0  # of the shortest clip that has the frames of a view


def with_template(task: Task, template: str) -> Task:
    """The task for captions that were prepared with `template`: they are the prompts as they are.

    Training has seen them so; the row's own words around them would come twice.
    """
    return task if template == "{}" else dataclasses.replace(task, prompt="{}")


def task_of(row: Mapping[str, Any], frames: int, per_shard: int, **fields: Any) -> Task:
    """The task of a row of configs/tables.py for clips of `frames` frames."""
    names = {field.name for field in dataclasses.fields(Task)}
    fields = {k: v for k, v in row.items() if k in names} | fields
    fields["frames"] = fields.get("frames") or (1 if row["task"] == "text_to_image" else frames)
    if row["task"] == "prediction":
        fields["views"] = dict.fromkeys(PREDICTED, (0, fields["frames"]))
    fields["metrics"] = tuple(fields["metrics"])
    return Task(per_shard=per_shard, **fields)
