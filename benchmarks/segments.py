"""Many segments of one long video, decoded once; compared with seeking to each with PyAV alone.

    python benchmarks/segments.py    # minutes; writes its own video and removes it

Both make the same clips: 11 frames of 64 pixels at 8 per second, of --segments random segments of
1.4 to 10 seconds in --hours of video. Each runs in a process of its own. Prints the seconds of one
core, the memory that the clips add (peak, and after each tenth of them), and the ratios. Writes
benchmarks/results/segments.json.
"""

import multiprocessing
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import memory
import numpy as np
import record
from absl import flags

from phenaki import cli

HOURS = flags.DEFINE_float("hours", 2.0, "length of the video", lower_bound=0.01)
SEGMENTS = flags.DEFINE_integer("segments", 2000, "number of segments", lower_bound=1)
OUTPUT = flags.DEFINE_string("output", "benchmarks/results/segments.json", "path of the results")

SOURCE = (180, 320, 12)  # height, width, frames per second
FRAMES, FPS, SIZE = 11, 8, 64
LENGTHS = (1.4, 10.0)  # seconds of a segment

Part = tuple[float, float]


def main(argv):
    """Measures both on one video."""
    del argv
    record.admit(OUTPUT.value)
    seconds, chosen = HOURS.value * 3600, random.Random(0)
    parts = []
    for _ in range(SEGMENTS.value):
        length = chosen.uniform(*LENGTHS)
        start = round(chosen.uniform(0, seconds - length), 3)
        parts.append((start, round(start + length, 3)))
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "long.mp4"
        print(f"writing {HOURS.value:g} hours of video", flush=True)
        _write(path, round(seconds * SOURCE[2]))
        rows = []
        for case, run in (("decoded once", _once), ("seeking to each segment", _seeking)):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                rows.append({"case": case} | pool.apply(_measure, (run, path, parts)))
            print("{case}: {clips} clips, {seconds:.1f} s, {peak_mb} MB".format(**rows[-1]))
            print(
                f"    memory after each tenth of the clips: {rows[-1]['memory_mb']} MB", flush=True
            )
    once, seeking = rows
    assert once["clips"] == seeking["clips"]
    print(
        f"{len(parts)} segments in one file of {HOURS.value:g} hours: "
        f"{seeking['seconds'] / once['seconds']:.1f} times as fast as seeking, "
        f"{once['peak_mb'] / max(1, seeking['peak_mb']):.2f} of its memory"
    )
    record.write(OUTPUT.value, ("av", "numpy"), hours=HOURS.value, segments=len(parts), rows=rows)


def _write(path: Path, count: int) -> None:
    """A camera that moves to the right over a smooth image, again and again."""
    import av

    height, width, fps = SOURCE
    coarse = np.random.default_rng(0).integers(0, 256, (height // 8, 2 * width // 8, 3))
    image = np.repeat(np.repeat(coarse, 8, 0), 8, 1).astype(np.uint8)
    views = []
    for shift in range(width):
        view = np.ascontiguousarray(image[:, shift : shift + width])
        views.append(av.VideoFrame.from_ndarray(view, format="rgb24").reformat(format="yuv420p"))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.codec_context.options = {"preset": "ultrafast"}
        for number in range(count):
            frame = views[number % width]
            frame.pts, frame.time_base = number, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _measure(run: Callable[[Path, list[Part]], Iterator[Any]], path: Path, parts: list[Part]):
    """Seconds of one core and memory of all clips; a run on one segment before imports modules."""
    for _ in run(path, parts[:1]):
        pass
    before, held = memory.resident(), []
    begin = time.process_time()
    for _ in run(path, parts):
        held.append(memory.resident() - before)
    seconds, clips = time.process_time() - begin, len(held)
    tenths = [held[clips * tenth // 10 - 1] for tenth in range(1, 11)]
    return dict(clips=clips, seconds=seconds, peak_mb=max(held), memory_mb=tenths)


def _once(path: Path, parts: list[Part]) -> Iterator[np.ndarray]:
    from phenaki.data.prepare import segments
    from phenaki.data.prepare.items import Segment

    every = [Segment(Fraction(str(start)), Fraction(str(end))) for start, end in parts]
    size: Any = dict(frames=FRAMES, fps=FPS, height=SIZE, width=SIZE)
    for found in segments.clips(path, every, **size):
        if found.clip is not None:
            yield found.clip.video


def _seeking(path: Path, parts: list[Part]) -> Iterator[np.ndarray]:
    import av
    from PIL import Image

    height, width, _ = SOURCE
    wide = round(width * SIZE / height)
    left = (wide - SIZE) // 2
    for start, end in parts:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            container.seek(int(start / stream.time_base), stream=stream)
            taken, images, shown = 0, [], None
            for frame in container.decode(stream):
                while shown is not None and start + taken / FPS < min(frame.time, end):
                    image = Image.fromarray(shown.to_ndarray(format="rgb24"))
                    image = image.resize((wide, SIZE), Image.Resampling.LANCZOS)
                    images.append(np.asarray(image)[:, left : left + SIZE])
                    taken += 1
                    if len(images) == FRAMES:
                        yield np.stack(images)
                        images = []
                shown = frame
                if frame.time >= end:
                    break


if __name__ == "__main__":
    cli.run(main)
