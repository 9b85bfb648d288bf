"""The sampling options of a story's shots: those of the call, then those of each shot."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from phenaki.errors import UserError
from phenaki.sampling.options import Defaults, SamplingOptions, resolve
from phenaki.sampling.windows import Window
from phenaki.stories.storyboard import Shot

PREVIEW_STEPS = 6


def given(
    defaults: Defaults,
    check_texts: Callable[[list[str | None], SamplingOptions], None],
    shots: Sequence[Shot],
    options: Mapping[str, Any],
    plan: Sequence[Window],
    preview: bool = False,
) -> tuple[list[Shot], list[list[SamplingOptions]]]:
    """(`shots` with the `options` of the call before their own, what each comes to).

    `defaults` and `check_texts` are those of the `Phenaki`. The first window of a shot and those
    that continue it may have other options (`plan`). A preview takes `PREVIEW_STEPS` steps at most.

    Raises:
        UserError: an option is out of its range, or the model takes no text; names the scene.
    """
    result, found = [], []
    for number, shot in enumerate(shots, 1):
        shot = dataclasses.replace(shot, sampler={**options, **shot.sampler})
        try:
            if preview and resolve(defaults, **shot.sampler).steps > PREVIEW_STEPS:
                shot = dataclasses.replace(shot, sampler={**shot.sampler, "steps": PREVIEW_STEPS})
            own = [window for window in plan if window.scene == number - 1]
            continued = dict.fromkeys(not x.starts or shot.image is not None for x in own)
            found.append([resolve(defaults, continues=x, **shot.sampler) for x in continued])
            check_texts([shot.prompt], found[-1][0])
        except UserError as error:
            raise UserError(f"scene {number}: {error}") from None
        result.append(shot)
    return result, found
