"""Clips a second that one core reads: raw mp4, prepared JPEG clips, codes; beside bare limits.

    python benchmarks/input_pipeline.py    # some minutes; makes its own data and removes it

Every rate is of one core. The bare limits do the same work with a library alone and in the stored
order: PyAV with the same resize, TensorFlow's reader and JPEG decoder, its reader of records, and a
copy in memory. "late" is a disk behind a network, played by waiting --late seconds in every read;
beside it, what one read after another could give. Prints a table, how many cores feed --batch
samples at --rate steps a second, and the memory of reading codes over --steps steps; writes
benchmarks/results/input_pipeline.json.
"""

import contextlib
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import record
from absl import flags

from phenaki import cli

REPEATS = flags.DEFINE_integer("repeats", 3, "measurements; the median counts", lower_bound=1)
SECONDS = flags.DEFINE_float("seconds", 4.0, "of each measurement", lower_bound=0.1)
STEPS = flags.DEFINE_integer("steps", 10_000, "over which memory is watched", lower_bound=10)
BATCH = flags.DEFINE_integer("batch", 512, "samples of a step", lower_bound=1)
RATE = flags.DEFINE_float("rate", 2.3, "steps a second that are to be fed", lower_bound=0.001)
LATE = flags.DEFINE_float(
    "late", 0.03, "seconds that a read waits for a network", lower_bound=0.001
)
OUTPUT = flags.DEFINE_string(
    "output", "benchmarks/results/input_pipeline.json", "where the figures are written"
)

FRAMES, SIZE, FPS, CODES, STILL, LENGTH = 11, 128, 8.0, 1536, 256, 128
SOURCE = (256, 340, 25, 250)  # height, width, frames a second, frames
CLIPS, ROWS = 160, 20_000  # stored clips, stored rows of codes


def main(argv):
    """Measures every stage and its limit."""
    del argv
    core = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})  # before TensorFlow counts them
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        print("making the data", flush=True)
        video, clips, codes = _write_video(root), _write_clips(root), _write_codes(root)
        rows: list[dict[str, Any]] = []
        for case, unit, limit, measure in (
            ("raw mp4, 340x256 h264", "clips", "PyAV and the same resize", _raw(video)),
            ("prepared 11x128x128 JPEG clips", "clips", "TFRecord and decode_jpeg", _clips(clips)),
            ("codes of clips, and ids", "samples", "TFRecord", _codes(codes)),
        ):
            ours, bare = (_rate(one) for one in measure)
            rows.append(dict(case=case, unit=unit, per_second=ours, limit=limit, bare=bare))
            print(f"{case}: {ours:,.0f} {unit}/s; {limit}: {bare:,.0f}", flush=True)
        for case, unit, (measure, _) in (
            ("the clips, late", "clips", _clips(clips)),
            ("the codes, late", "samples", _codes(codes)),
        ):
            with _late(LATE.value):
                ours, bare = _rate(measure), 1 / LATE.value
            limit = "one read after another"
            rows.append(dict(case=case, unit=unit, per_second=ours, limit=limit, bare=bare))
            print(f"{case}: {ours:,.0f} {unit}/s; {limit}: {bare:,.0f}", flush=True)
        memory = _memory(codes)
    need = BATCH.value * RATE.value
    print(f"{BATCH.value} samples at {RATE.value} steps a second are {need:,.0f} samples a second")
    print(f"{'of one core':34} {'per second':>12} {'bare':>10} {'share':>6} {'cores for that':>16}")
    for row in rows:
        row["share"] = row["per_second"] / row["bare"]
        row["cores"] = need / row["per_second"]
        print(
            f"{row['case']:34} {row['per_second']:12,.0f} {row['bare']:10,.0f} "
            f"{row['share']:6.0%} {row['cores']:16,.2f}"
        )
    copy = _copy_rate()
    print(f"a copy in memory: {copy / 1e9:.1f} GB/s")
    print("memory while codes are read: " + ", ".join(f"{k}: {v} MB" for k, v in memory.items()))
    record.write(
        OUTPUT.value,
        ("numpy", "tensorflow", "av"),
        batch=BATCH.value,
        rate=RATE.value,
        late_seconds=LATE.value,
        rows=rows,
        copy_bytes_per_second=copy,
        memory_mb=memory,
    )


def _rate(make: Callable[[], Iterator[int]]) -> float:
    """Items a second of an endless iterator of counts, its start left out."""
    rates = []
    for _ in range(REPEATS.value):
        counts = make()
        for _ in range(3):
            next(counts)
        start, items = time.perf_counter(), 0
        while (seconds := time.perf_counter() - start) < SECONDS.value:
            items += next(counts)
        rates.append(items / seconds)
    return statistics.median(rates)


@contextlib.contextmanager
def _late(seconds: float) -> Iterator[None]:
    """Every read of a stored record waits."""
    from phenaki.data import records

    read = records._read

    def late(*arguments):
        time.sleep(seconds)
        return read(*arguments)

    records._read = late
    try:
        yield
    finally:
        records._read = read


def _smooth(count: int, height: int, width: int, random) -> np.ndarray:
    """Pictures with the detail of photographs rather than of noise: [n h w 3]."""
    coarse = random.integers(0, 256, (count, height // 16 + 2, width // 16 + 2, 3))
    fine = np.repeat(np.repeat(coarse, 16, 1), 16, 2)[:, :height, :width].astype(np.float32)
    kernel = np.ones(15) / 15
    for axis in (1, 2):
        fine = np.apply_along_axis(lambda x: np.convolve(x, kernel, "same"), axis, fine)
    noise = random.normal(0, 3, fine.shape)
    return np.clip(fine + noise, 0, 255).astype(np.uint8)


def _write_video(root: Path) -> Path:
    import av

    height, width, fps, frames = SOURCE
    picture = _smooth(1, height, width + frames, np.random.default_rng(0))[0]
    path = root / "video.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for shift in range(frames):  # the camera moves to the right
            image = np.ascontiguousarray(picture[:, shift : shift + width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def _write_clips(root: Path) -> Path:
    from phenaki.data import format

    directory, random = root / "clips", np.random.default_rng(0)
    directory.mkdir()
    form = format.Format(FRAMES, FPS, SIZE, SIZE, "jpeg")
    with format.Writer(directory, form) as writer:
        for number in range(CLIPS):
            picture = _smooth(1, SIZE, SIZE + FRAMES, random)[0]
            video = np.stack([picture[:, shift : shift + SIZE] for shift in range(FRAMES)])
            encoded = format.encode(video)
            writer.add(
                "video_train",
                format.ClipRecord(
                    f"{number}", encoded, "a caption", "", "", (SIZE, SIZE), 0.0, FPS
                ),
            )
    return directory


def _write_codes(root: Path) -> Path:
    from phenaki.data import records, tensorflow, tokens

    directory, random = root / "codes", np.random.default_rng(0)
    directory.mkdir()
    tf, files = tensorflow.tensorflow(), []
    for shard in range(8):
        path = directory / f"clips-video_train.tfrecord-{shard:05d}"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for number in range(ROWS // 8):
                codes = random.integers(0, 8192, CODES, dtype=np.uint16)
                ids = np.zeros(LENGTH, np.int32)
                ids[:24] = random.integers(1, 32_000, 24)
                record = tokens.example(
                    codes, ids, None, b"a caption of some words, as long as most", True,
                    b"%d" % number, "",
                )  # fmt: skip
                writer.write(record)
        with open(f"{path}{records.LENGTHS}", "wb") as file:
            np.save(file, records.lengths(str(path)))
        files.append({"name": path.name})
    manifest = {
        "schema": tokens.SCHEMA,
        "origin": dict(tokenizer="t", pixels="p", text="t", encoder=""),
        "sizes": dict(video=CODES, image=STILL, text=LENGTH, width=0),
        "files": {"video_train": files},
    }
    (directory / tokens.MANIFEST).write_text(json.dumps(manifest))
    return directory


def _raw(path: Path):
    import av
    from PIL import Image

    from phenaki.data.prepare import video

    height, width, fps, _ = SOURCE

    def ours():
        while True:
            for _ in video.clips(path, frames=FRAMES, fps=FPS, height=SIZE, width=SIZE):
                yield 1

    def bare():
        kept = 0
        while True:
            with av.open(str(path)) as container:
                due = 0.0
                for frame in container.decode(video=0):
                    if frame.time < due - 1e-6:
                        continue
                    due += 1 / FPS
                    image = Image.fromarray(frame.to_ndarray(format="rgb24"))
                    image = image.resize(
                        (round(width * SIZE / height), SIZE), Image.Resampling.LANCZOS
                    )
                    np.asarray(image)[:, :SIZE]
                    kept += 1
                    if kept % FRAMES == 0:
                        yield 1

    return ours, bare


def _clips(directory: Path):
    from phenaki.data import clips as stored_clips
    from phenaki.data import tensorflow
    from phenaki.types import VideoSpec

    spec, size = VideoSpec(FRAMES, SIZE, SIZE, FPS, (2, 8, 8)), 16
    tf = tensorflow.tensorflow()

    def ours():
        stream = stored_clips.examples(
            str(directory), split="train", kind="video", spec=spec, seed=0
        )
        while True:
            np.stack([example["video"] for example in itertools.islice(stream, size)])
            yield size

    def decode(record):
        kind = tf.io.FixedLenFeature([FRAMES], tf.string)
        frames = tf.io.parse_single_example(record, {"video": kind})["video"]
        return tf.map_fn(
            lambda frame: tf.io.decode_jpeg(frame, dct_method="INTEGER_ACCURATE"),
            frames,
            fn_output_signature=tf.uint8,
        )

    def bare():
        files = sorted(str(path) for path in directory.glob("*tfrecord*") if path.suffix != ".npy")
        data = tf.data.TFRecordDataset(files).repeat().map(decode).batch(size).prefetch(2)
        for _ in data.as_numpy_iterator():
            yield size

    return ours, bare


def _codes(directory: Path):
    from phenaki.data import tensorflow

    tf = tensorflow.tensorflow()

    def ours():
        for _ in _batches(directory):
            yield BATCH.value

    def bare():
        files = sorted(str(path) for path in directory.glob("*tfrecord*") if path.suffix != ".npy")
        data = tf.data.TFRecordDataset(files).repeat().batch(BATCH.value).prefetch(2)
        for _ in data.as_numpy_iterator():
            yield BATCH.value

    return ours, bare


def _batches(directory: Path):
    from phenaki.data import tokens

    origin = tokens.Origin("t", "p", "t", "")
    return tokens.batches(
        str(directory), split="train", kind="video", size=BATCH.value, origin=origin, seed=0
    )


def _copy_rate() -> float:
    source = np.zeros(2**28, np.uint8)
    target = np.empty_like(source)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        np.copyto(target, source)
        times.append(time.perf_counter() - start)
    return len(source) / statistics.median(times)


def _memory(directory: Path) -> dict[str, int]:
    """Resident megabytes after some of the steps."""
    shown = {}
    marks = {max(STEPS.value // 100, 1), STEPS.value // 10, STEPS.value // 2, STEPS.value}
    for number, _ in enumerate(itertools.islice(_batches(directory), STEPS.value), 1):
        if number in marks:
            shown[f"step {number}"] = _resident()
    return shown


def _resident() -> int:
    """Megabytes of this process, mapped files left out."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) // 1024
    raise AssertionError("no RssAnon in /proc/self/status")


if __name__ == "__main__":
    cli.run(main)
