"""The job of a story: window by window, with the files of `phenaki story`."""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from phenaki import __version__
from phenaki.data import batches
from phenaki.io import images, outputs
from phenaki.io.media import scale_to_see
from phenaki.sampling.windows import windows
from phenaki.stories import drift, generate, notes, render, rerolls, shot_options
from phenaki.studio.engine import Engine, observer
from phenaki.studio.jobs import Job
from phenaki.studio.stories import Stories

SHOWN = 120  # windows of the drift chart of a story that is being made
WEIGHTS = "weights"  # where the command looks for LPIPS, too


@functools.cache
def _distance() -> tuple[Any, str]:
    return drift.distance(WEIGHTS)


class _Windows:
    """Counts windows, those of the cache included."""

    def __init__(self, job: Job, total: int):
        self.job, self.total, self.done = job, total, 0

    def __enter__(self) -> "_Windows":
        return self

    def __exit__(self, *error: Any) -> None:
        pass

    def update(self, note: str = "") -> None:
        self.done += 1
        self.job.show(windows=self.total, window=self.done, scene=note)


def of_story(
    engine: Engine, stories: Stories, folder: Path, preview: bool
) -> Callable[[Job], dict[str, Any]]:
    """Samples the windows that are not there yet and writes the film."""

    def work(job: Job) -> dict[str, Any]:
        model, spec = engine.model, engine.spec
        story = stories.read(folder, engine)
        plan = windows(story.shots, spec, story.context)
        shots, chosen = shot_options.given(
            model.defaults, model.check_texts, story.shots, {}, plan, preview
        )
        film, about = folder / "film", notes.about_model(model)
        found = notes.of_story(shots, plan, chosen, spec.fps, about, model.has_text)
        job.show(story=folder.name, notes=found, windows=len(plan), window=1)
        with outputs.claimed("output", film, "samples"):
            counts = rerolls.read(film / "rerolls.json")
            board = type(story)(rerolls.reroll(shots, counts), story.context, story.own_seeds)
            target = film / "preview" if preview else film
            target.mkdir(exist_ok=True)
            render.render(
                model, board, plan, target, generate.WindowCache(film / "windows"),
                read_image=functools.partial(_image, engine, found.append),
                distance=_distance(), world=batches.known_world(model),
                progress=lambda total: _Windows(job, total), measured=_drift(job),
                scale=scale_to_see(spec.height, spec.width),
                facts={"phenaki": __version__, "model": engine.fingerprint},
                observer=observer(job),
            )  # fmt: skip
        return {"story": folder.name, "notes": found}

    return work


def _drift(job: Job) -> Callable[[Sequence[Mapping[str, Any]]], None]:
    """Shows the statistics of the windows so far, evenly chosen where there are many."""
    fields = ("start", "scene", "mean", "sharpness", "seam", "step")

    def show(lines: Sequence[Mapping[str, Any]]) -> None:
        chosen = lines[:: -(-len(lines) // SHOWN)]
        job.show(drift=[{name: line[name] for name in fields} for line in chosen])

    return show


def _image(engine: Engine, note: Callable[[str], Any], path: Any) -> np.ndarray:
    return images.read_frame(path, (engine.spec.height, engine.spec.width), note)
