"""Renders a story to disk: video, subtitles, contact sheet, drift report.

story.mp4         with a chapter per scene; story.png, a row of frames per scene
story.gif         of stories up to 30 seconds
story.srt         the prompts as subtitles
drift.json, .png  statistics of every window (`phenaki.stories.drift`)
story_report.json time, memory and, for moving shapes, how many windows obey their prompts
windows/          frames and tokens of every window (`phenaki.stories.generate`)
"""

import collections
import re
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from phenaki.data.shapes.world import World
from phenaki.io import media, outputs, sample_files
from phenaki.io.artifacts import atomic, write_json
from phenaki.io.contact_sheet import contact_sheet
from phenaki.io.paths import AnyPath
from phenaki.pipeline import Phenaki
from phenaki.sampling import watch
from phenaki.sampling.options import facts as facts_of
from phenaki.sampling.windows import Window, segments
from phenaki.stories import drift, prompt_check
from phenaki.stories.generate import (
    NO_DRIFT_OPTIONS,
    DriftOptions,
    GeneratedWindow,
    WindowCache,
    generate_windows,
)
from phenaki.stories.storyboard import Shot, Storyboard

SHEET_FRAMES = 8  # per scene
FILES = [f"story.{kind}" for kind in ("mp4", "srt", "png", "gif")]
FILES += ["drift.json", "drift.png", "story_report.json"]
_MARK = re.compile(r"<(?=[a-zA-Z/])|\\(?=[nNh])")  # what begins a tag, or a break, in a subtitle


class WindowMetrics:
    """Statistics of every window: a few numbers each, so that memory does not grow with frames."""

    def __init__(
        self,
        shots: Sequence[Shot],
        fps: float,
        distance: drift.Distance,
        world: World | None,
        measured: Callable[[Sequence[Mapping[str, Any]]], None] | None = None,
    ):
        """`world` is that of a model of moving shapes, whose prompts can be checked.

        `measured` is called after every window with the lines so far.
        """
        self.shots, self.fps, self.distance, self.world = shots, fps, distance, world
        self.measured = measured
        self.lines: list[dict[str, Any]] = []  # per window, of drift.json
        self.verdicts: dict[int, list] = collections.defaultdict(list)  # per scene
        self._last = None  # frame

    def add(self, generated: GeneratedWindow, seconds: float) -> None:
        """Measures a window that took `seconds`."""
        window = generated.window
        before = None if window.starts else self._last
        line = drift.measure(generated.frames, generated.tokens, before, self.distance)
        self.lines.append(
            line
            | {
                "scene": window.scene + 1,
                "start": window.start / self.fps,
                "made": generated.sampled,
                "seconds": seconds,
                "peak_mb": peak_mb(),
            }
        )
        if self.world is not None:
            prompt = self.shots[window.scene].prompt
            verdict = prompt_check.check_window(self.world, generated.frames, before, prompt)
            if verdict is not None:
                self.verdicts[window.scene].append(verdict)
        self._last = generated.frames[-1].copy()
        if self.measured is not None:
            self.measured(self.lines)

    def write(
        self,
        output: AnyPath,
        label: str,
        parts: Sequence[tuple[int, int]],
        made: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Writes drift.json, drift.png and story_report.json; returns the report.

        `label` names the distance; `parts` are the `segments` of the story, `made` says how it was
        made.
        """
        content = {"distance": label, "summary": drift.summary(self.lines), "windows": self.lines}
        write_json(output / "drift.json", content, indent=1)
        seconds = [line["start"] for line in self.lines]
        starts = [start / self.fps for start, _ in parts]
        title = f"{label} of neighbouring frames"
        drift.chart(output / "drift.png", self.lines, seconds, starts, title)
        report = self._report(parts) | ({"made": made} if made else {})
        write_json(output / "story_report.json", report, indent=1)
        return report

    def _report(self, parts):
        sampled = [line for line in self.lines if line["made"]]
        warm = sampled[1:] or sampled  # the first one compiles
        frames = parts[-1][1]
        per_window = float(np.median([line["seconds"] for line in warm])) if warm else None
        per_second = None
        if len(sampled) == len(self.lines):  # cached windows take no time
            per_second = sum(line["seconds"] for line in sampled) * self.fps / frames
        report: dict[str, Any] = {
            "seconds_of_video": frames / self.fps,
            "frames": frames,
            "windows": len(self.lines),
            "windows_made": len(sampled),
            "seconds": sum(line["seconds"] for line in self.lines),
            "seconds_per_window": per_window,
            "seconds_per_second_of_video": per_second,
            "peak_mb": {
                "first": self.lines[0]["peak_mb"],
                "tenth": self.lines[min(9, len(self.lines) - 1)]["peak_mb"],
                "last": self.lines[-1]["peak_mb"],
            },
            "scenes": [self._scene(index, part) for index, part in enumerate(parts)],
        }
        verdicts = [v for of_scene in self.verdicts.values() for v in of_scene]
        if verdicts:
            report["windows_right"] = prompt_check.accuracy(verdicts)
        return report

    def _scene(self, index, part):
        start, end = part
        scene = {"prompt": self.shots[index].prompt, "start": start / self.fps}
        scene["end"] = end / self.fps
        if self.verdicts[index]:
            scene["windows_right"] = prompt_check.accuracy(self.verdicts[index])
        return scene


def render(
    model: Phenaki,
    storyboard: Storyboard,
    plan: Sequence[Window],
    output: AnyPath,
    cache: WindowCache,
    *,
    read_image: Callable[[AnyPath], np.ndarray],
    distance: tuple[drift.Distance, str],
    progress: Callable[[int], Any],
    world: World | None = None,
    options: DriftOptions = NO_DRIFT_OPTIONS,
    scale: int = 1,
    facts: Mapping[str, Any] | None = None,
    observer: watch.Observer | None = None,
    measured: Callable[[Sequence[Mapping[str, Any]]], None] | None = None,
) -> dict[str, Any]:
    """Generates the windows `plan` of `storyboard`, writes the folder `output`, returns its report.

    `progress` (number of windows) is a context manager whose `update(note=...)` is called once per
    window. `world` is that of a model of moving shapes. `scale` enlarges pixels. `facts` are those
    of the call (`phenaki.io.provenance`); each scene adds its own. `observer` sees every decoding
    step, `measured` after every window the lines of drift.json so far. Memory does not grow with
    the story: it holds one window, `SHEET_FRAMES` uint8 images per scene, and statistics.
    """
    outputs.enlist(output, FILES, replaced=r"story\.gif")  # a long story has none
    shots, fps, parts = storyboard.shots, model.spec.fps, segments(plan)
    prompts = [shot.prompt for shot in shots]
    chapters = [(prompt or "", *part) for prompt, part in zip(prompts, parts, strict=True)]
    how = made(facts, model, storyboard)
    sheet = _ContactSheet(parts)
    metrics = WindowMetrics(shots, fps, distance[0], world, measured)
    generated = generate_windows(model, storyboard, plan, cache, read_image, options, observer)
    with (
        progress(len(plan)) as shown,
        media.Mp4Writer(output / "story.mp4", fps, scale, chapters=chapters, facts=how) as writer,
    ):
        begun = time.monotonic()
        for part in generated:
            writer.append(part.frames)
            seconds = time.monotonic() - begun  # sampling, storing and encoding; not measuring
            sheet.add(part)
            metrics.add(part, seconds)
            shown.update(note=f"scene {part.window.scene + 1} of {len(shots)}")
            begun = time.monotonic()
    _write_prompts(output, prompts, parts, fps, sheet, how)
    if plan[-1].stop <= sample_files.GIF_FRAMES:  # from the cache, where all windows are now
        again = generate_windows(model, storyboard, plan, cache, read_image, options)
        video = np.concatenate([media.as_uint8(part.frames) for part in again])
        media.write_gif(output / "story.gif", *media.gif_frames(video, fps), scale, how)
    return metrics.write(output, distance[1], parts, how)


def _write_prompts(output, prompts, parts, fps, sheet, made):
    """Subtitles, and the contact sheet with a prompt above each row."""
    with atomic(output / "story.srt") as partial:
        partial.write_text(srt(prompts, parts, fps), encoding="utf-8")
    rows = contact_sheet(sheet.rows(), prompts, SHEET_FRAMES)
    media.write_png(output / "story.png", rows, facts=made)


def made(facts: Mapping[str, Any] | None, model: Phenaki, storyboard: Storyboard) -> dict[str, Any]:
    """How a story is made: `facts` of the call; of each scene its prompt, seed and options."""
    if facts is None:
        return {}
    scenes = [
        {
            "prompt": shot.prompt,
            "seconds": shot.seconds,
            "seed": shot.seed,
            "cut": shot.cut,
            "image": None if shot.image is None else str(shot.image),
            "options": facts_of(model.defaults, **shot.sampler),
            **({} if shot.context is None else {"context": shot.context}),
        }
        for shot in storyboard.shots
    ]
    call = {name: value for name, value in facts.items() if name not in ("seed", "options")}
    return {**call, "context": storyboard.context, "scenes": scenes}


class _ContactSheet:
    """A few evenly spread frames of every scene, as uint8."""

    def __init__(self, parts):
        self._wanted = [
            np.unique(np.rint(np.linspace(start, end - 1, SHEET_FRAMES)).astype(int))
            for start, end in parts
        ]
        self._rows: list[list[np.ndarray]] = [[] for _ in parts]

    def add(self, generated: GeneratedWindow) -> None:
        window = generated.window
        wanted = self._wanted[window.scene]
        chosen = wanted[(wanted >= window.start) & (wanted < window.stop)] - window.start
        if len(chosen):
            self._rows[window.scene].append(media.as_uint8(generated.frames[chosen]))

    def rows(self):
        return [np.concatenate(row) for row in self._rows]


def srt(prompts: Sequence[str | None], parts: Sequence[tuple[int, int]], fps: float) -> str:
    """A SubRip file of the `prompts` shown in the frames `parts` (first, end); None shows none."""
    entries: list[str] = []
    for prompt, (start, end) in zip(prompts, parts, strict=True):
        if prompt:
            # A blank line would end the entry. Players obey tags, and hide what is in braces.
            line = " ".join(prompt.split()).translate(str.maketrans("{}", "()"))
            line = _MARK.sub("\\g<0>\N{WORD JOINER}", line)
            times = f"{_srt_time(start / fps)} --> {_srt_time(end / fps)}"
            entries.append(f"{len(entries) + 1}\n{times}\n{line}\n")
    return "\n".join(entries)


def _srt_time(seconds: float) -> str:
    whole, thousandths = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d},{thousandths:03d}"


def peak_mb() -> float:
    """The peak memory of this process so far, in MB; it never falls."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
