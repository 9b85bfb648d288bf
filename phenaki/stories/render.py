"""A story from timeline to folder: the video as a stream, and beside it all one asks of it later.

story.mp4         with a chapter per scene; story.png, a row of frames per scene
story.srt         the prompts as subtitles
drift.json, .png  figures of every window (`phenaki.stories.drift`)
story_report.json time, memory and, for moving shapes, whether every scene obeys its prompt
windows/          every window's frames and codes (`phenaki.stories.generate`)
"""

import collections
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from phenaki.data import batches
from phenaki.io import media
from phenaki.io.artifacts import write_json
from phenaki.pipeline import Phenaki
from phenaki.sampling.windows import segments, windows
from phenaki.stories import drift, prompt_check, subtitles
from phenaki.stories.generate import (
    NO_DRIFT_OPTIONS,
    DriftOptions,
    GeneratedWindow,
    WindowCache,
    tell,
)
from phenaki.stories.storyboard import Timeline

SHEET_FRAMES = 8  # per scene


class WindowMetrics:
    """What is written down of each window; a few numbers, so that length costs no memory."""

    def __init__(self, model: Phenaki, timeline: Timeline, distance: drift.Distance):
        config = model.config
        self.shots, self.fps = timeline.shots, model.spec.fps
        self.world = batches.world(config) if config.data.source == "moving_shapes" else None
        self.distance = distance
        self.lines: list[dict[str, Any]] = []
        self.verdicts: dict[int, list] = collections.defaultdict(list)
        self._last = None

    def add(self, told: GeneratedWindow, seconds: float) -> None:
        """Measures a window that took `seconds`."""
        before = None if told.window.starts else self._last
        line = drift.measure(told.frames, told.tokens, before, self.distance)
        scene = told.window.scene
        self.lines.append(
            line
            | {
                "scene": scene + 1,
                "start": told.window.start / self.fps,
                "made": told.made,
                "seconds": seconds,
                "peak_mb": peak_mb(),
            }
        )
        if self.world is not None:
            right = prompt_check.window(self.world, told.frames, before, self.shots[scene].prompt)
            if right is not None:
                self.verdicts[scene].append(right)
        self._last = told.frames[-1].copy()

    def write(self, output: Path, label: str, parts: Sequence[tuple[int, int]]) -> dict[str, Any]:
        """Writes drift.json, drift.png and story_report.json; returns the report."""
        figures = {"distance": label, "summary": drift.summary(self.lines), "windows": self.lines}
        write_json(output / "drift.json", figures, indent=1)
        seconds = [line["start"] for line in self.lines]
        starts = [start / self.fps for start, _ in parts]
        title = f"{label} of neighbouring frames"
        drift.chart(output / "drift.png", self.lines, seconds, starts, title)
        report = self._report(parts)
        write_json(output / "story_report.json", report, indent=1)
        return report

    def _report(self, parts):
        made = [line for line in self.lines if line["made"]]
        warm = made[1:] or made  # the first one compiles
        frames = parts[-1][1]
        per_window = float(np.median([line["seconds"] for line in warm])) if warm else None
        report: dict[str, Any] = {
            "seconds_of_video": frames / self.fps,
            "frames": frames,
            "windows": len(self.lines),
            "windows_made": len(made),
            "seconds": sum(line["seconds"] for line in self.lines),
            "seconds_per_window": per_window,
            # Of whole runs only: windows that were kept take no time.
            "seconds_per_second_of_video": sum(line["seconds"] for line in made) * self.fps / frames
            if len(made) == len(self.lines)
            else None,
            "peak_mb": {
                "first": self.lines[0]["peak_mb"],
                "tenth": self.lines[min(9, len(self.lines) - 1)]["peak_mb"],
                "last": self.lines[-1]["peak_mb"],
            },
            "scenes": [self._scene(index, part) for index, part in enumerate(parts)],
        }
        every = [v for verdicts in self.verdicts.values() for v in verdicts]
        if every:
            report["windows_right"] = prompt_check.shares(every)
        return report

    def _scene(self, index, part):
        start, end = part
        scene = {"prompt": self.shots[index].prompt, "start": start / self.fps}
        scene["end"] = end / self.fps
        if self.verdicts[index]:
            scene["windows_right"] = prompt_check.shares(self.verdicts[index])
        return scene


def produce(
    model: Phenaki,
    timeline: Timeline,
    output: Path,
    kept: WindowCache,
    *,
    read_image: Callable[[Path], np.ndarray],
    distance: tuple[drift.Distance, str],
    progress: Callable[[int], Any],
    aids: DriftOptions = NO_DRIFT_OPTIONS,
    scale: int = 1,
) -> dict[str, Any]:
    """Tells `timeline` into the folder `output` and returns the report.

    `progress` (number of windows) is a context manager whose `update(note=...)` is called once per
    window. Memory does not grow with the story: what is held is one window, `SHEET_FRAMES` bytes
    images per scene and the figures.
    """
    shots = timeline.shots
    plan = windows(shots, model.spec, timeline.context)
    parts = segments(plan)
    chapters = [(shot.prompt or "", *part) for shot, part in zip(shots, parts, strict=True)]
    sheet = _Sheet(parts)
    figures = WindowMetrics(model, timeline, distance[0])
    told = tell(model, shots, timeline.context, kept, read_image, aids)
    with (
        progress(len(plan)) as shown,
        media.Mp4Writer(output / "story.mp4", model.spec.fps, scale, chapters=chapters) as writer,
    ):
        begun = time.monotonic()
        for part in told:
            writer.append(part.frames)
            seconds = time.monotonic() - begun  # sampling, keeping and encoding; not measuring
            sheet.add(part)
            figures.add(part, seconds)
            shown.update(note=f"scene {part.window.scene + 1} of {len(shots)}")
            begun = time.monotonic()
    texts = [shot.prompt for shot in shots]
    (output / "story.srt").write_text(subtitles.srt(texts, parts, model.spec.fps), "utf-8")
    media.write_png(output / "story.png", media.sheet(sheet.rows(), texts, SHEET_FRAMES))
    return figures.write(output, distance[1], parts)


class _Sheet:
    """A few frames of every scene, chosen beforehand, as bytes."""

    def __init__(self, parts):
        self._wanted = [
            np.unique(np.rint(np.linspace(start, end - 1, SHEET_FRAMES)).astype(int))
            for start, end in parts
        ]
        self._rows: list[list[np.ndarray]] = [[] for _ in parts]

    def add(self, told: GeneratedWindow) -> None:
        window = told.window
        wanted = self._wanted[window.scene]
        chosen = wanted[(wanted >= window.start) & (wanted < window.stop)] - window.start
        if len(chosen):
            self._rows[window.scene].append(media.as_uint8(told.frames[chosen]))

    def rows(self):
        return [np.concatenate(row) for row in self._rows]


def peak_mb() -> float:
    """The most memory that this process has held so far, in MB; it never falls."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
