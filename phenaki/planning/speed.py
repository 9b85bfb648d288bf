"""What a step does, for the speed of a run: tokens, FLOPs, and the peak of the devices."""

from collections.abc import Mapping
from typing import Any

import jax
from absl import logging
from ml_collections import ConfigDict

from phenaki.data.batches import FIELDS
from phenaki.planning import chips
from phenaki.train import trackers
from phenaki.train.profiler import Observe, StepWork, parse_steps
from phenaki.types import VideoSpec

# JAX's names of TPUs, `device_kind`, where they are not those of the table.
TPU_KINDS = {
    "TPU v4": "v4",
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v5": "v5p",
    "TPU v5p": "v5p",
    "TPU v6 lite": "v6e",
    "TPU v6e": "v6e",
    "TPU7x": "tpu7x",
}


def observe(profile: str, track: str = "") -> Observe:
    """What a command observes of its run: the speed, the steps of --profile, and who gets it.

    Raises:
        UserError: `profile` is neither empty nor FIRST:END, or the library of `track` is missing.
    """
    if track:
        trackers.library(track)
    return Observe(parse_steps(profile), step_work, track)


def step_work(fields: Mapping[str, Any]) -> StepWork:
    """The work of a step of the run with the plain config `fields`, of any stage.

    FLOPs are counted where the peak of the devices is known: they take seconds to count.
    """
    peak = peak_of([device.device_kind for device in jax.devices()])
    flops = None
    if peak is not None and fields["kind"] != "critic":  # of which there is no plan
        try:
            flops = _flops(fields)
        except Exception as error:  # no reason to lose a run
            logging.warning("the FLOPs of a step are unknown (%r): no MFU is logged", error)
    return StepWork(tokens(fields), flops, peak)


def _flops(fields: Mapping[str, Any]) -> float:
    from phenaki.planning import plan, programs  # late: they load both stages

    return sum(plan.work(programs.workload(ConfigDict(fields))).values())


def tokens(fields: Mapping[str, Any]) -> int:
    """Tokens of the clips and images of a step."""
    spec = VideoSpec(**fields["video"], patch=tuple(fields["tokenizer"]["patch"]))
    each = {"video": spec.tokens(), "image": spec.tokens(1)}
    return sum(each[kind] * fields["data"][field] for kind, field in FIELDS.items())


def peak_of(kinds: list[str]) -> float | None:
    """Dense bfloat16 FLOPs per second of devices, all together; None where one is unknown."""
    found = [_chip(kind) for kind in kinds]
    known = [chip.flops for chip in found if chip is not None]
    return sum(known) if len(known) == len(found) else None


def _chip(kind: str) -> chips.Chip | None:
    if kind in TPU_KINDS:
        return chips.TPUS[TPU_KINDS[kind]]
    words = kind.replace("-", " ").split()  # NVIDIA A100-SXM4-80GB
    return next((chip for name, chip in chips.GPUS.items() if name in words), None)
