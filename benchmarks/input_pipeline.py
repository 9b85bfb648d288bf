"""Clips per second read by one core: raw mp4, prepared JPEG clips, stored tokens; and their limits.

    python benchmarks/input_pipeline.py    # minutes; writes its own data and removes it

Every rate is that of one core. The limits do the same work with a library alone, in stored order:
PyAV with the same resize, TensorFlow's reader and JPEG decoder, its reader of records, and a copy
in memory. "late" simulates a network disk by sleeping --late seconds in every read; its limit is
one read at a time. Prints a table, the number of cores that feed --batch samples at --rate steps
per second, and the memory of reading tokens over --steps steps. Writes
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

import memory
import numpy as np
import record
from absl import flags

from phenaki import cli
from phenaki.io.quiet import no_logs

REPEATS = flags.DEFINE_integer(
    "repeats", 3, "measurements, of which the median is used", lower_bound=1
)
SECONDS = flags.DEFINE_float("seconds", 4.0, "seconds per measurement", lower_bound=0.1)
STEPS = flags.DEFINE_integer("steps", 10_000, "steps over which memory is measured", lower_bound=10)
BATCH = flags.DEFINE_integer("batch", 512, "samples per step", lower_bound=1)
RATE = flags.DEFINE_float("rate", 2.3, "steps per second to feed", lower_bound=0.001)
LATE = flags.DEFINE_float(
    "late", 0.03, "simulated latency of a read, in seconds", lower_bound=0.001
)
OUTPUT = flags.DEFINE_string(
    "output", "benchmarks/results/input_pipeline.json", "path of the results"
)

FRAMES, SIZE, FPS, TOKENS, IMAGE_TOKENS, LENGTH = 11, 128, 8.0, 1536, 256, 128
SOURCE = (256, 340, 25, 250)  # height, width, frames per second, frames
CLIPS, ROWS = 160, 20_000  # stored clips, stored samples of tokens


def main(argv):
    """Measures every case and its limit."""
    del argv
    record.admit(OUTPUT.value)
    core = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})  # before TensorFlow counts them
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        print("writing the data", flush=True)
        video, clips, tokens = _write_video(root), _write_clips(root), _write_tokens(root)
        rows: list[dict[str, Any]] = []
        for case, unit, limit, measure in (
            ("raw mp4, 340x256 h264", "clips", "PyAV and the same resize", _raw(video)),
            ("prepared 11x128x128 JPEG clips", "clips", "TFRecord and decode_jpeg", _clips(clips)),
            ("tokens of clips, and ids", "samples", "TFRecord", _tokens(tokens)),
        ):
            ours, bare = (_rate(one) for one in measure)
            rows.append(dict(case=case, unit=unit, per_second=ours, limit=limit, bare=bare))
            print(f"{case}: {ours:,.0f} {unit}/s; {limit}: {bare:,.0f}", flush=True)
        for case, unit, (measure, _) in (
            ("the clips, late", "clips", _clips(clips)),
            ("the tokens, late", "samples", _tokens(tokens)),
        ):
            with _late(LATE.value):
                ours, bare = _rate(measure), 1 / LATE.value
            limit = "one read after another"
            rows.append(dict(case=case, unit=unit, per_second=ours, limit=limit, bare=bare))
            print(f"{case}: {ours:,.0f} {unit}/s; {limit}: {bare:,.0f}", flush=True)
        memory = _memory(tokens)
    need = BATCH.value * RATE.value
    print(
        f"{BATCH.value} samples at {RATE.value} steps per second are {need:,.0f} samples per second"
    )
    print(f"{'of one core':34} {'per second':>12} {'bare':>10} {'ratio':>6} {'cores for that':>16}")
    for row in rows:
        row["share"] = row["per_second"] / row["bare"]
        row["cores"] = need / row["per_second"]
        print(
            f"{row['case']:34} {row['per_second']:12,.0f} {row['bare']:10,.0f} "
            f"{row['share']:6.0%} {row['cores']:16,.2f}"
        )
    copy = _copy_rate()
    print(f"a copy in memory: {copy / 1e9:.1f} GB/s")
    print("memory while tokens are read: " + ", ".join(f"{k}: {v} MB" for k, v in memory.items()))
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
    """Items per second of an endless iterator of counts, without its start."""
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
    """Adds a latency to every read of a stored record."""
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
    """Images [n h w 3] that compress like photographs, not like noise."""
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
    image = _smooth(1, height, width + frames, np.random.default_rng(0))[0]
    path = root / "video.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for shift in range(frames):  # the camera moves to the right
            frame = np.ascontiguousarray(image[:, shift : shift + width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def _write_clips(root: Path) -> Path:
    from phenaki.data import format, tensorflow

    directory, random = root / "clips", np.random.default_rng(0)
    directory.mkdir()
    records = []
    for number in range(CLIPS):
        image = _smooth(1, SIZE, SIZE + FRAMES, random)[0]
        video = np.stack([image[:, shift : shift + SIZE] for shift in range(FRAMES)])
        encoded, size = format.encode(video), (SIZE, SIZE)
        record = format.ClipRecord(f"{number}", encoded, "a caption", "", "", size, 0.0, FPS)
        records.append(record.example())
    info = format.describe(directory, format.ClipFormat(FRAMES, FPS, SIZE, SIZE, "jpeg"))
    writer = tensorflow.datasets().core.SequentialWriter(info, max_examples_per_shard=512)
    with no_logs():
        writer.initialize_splits(["video_train"])
        writer.add_examples({"video_train": records})
        writer.close_all()
    return directory


def _write_tokens(root: Path) -> Path:
    from phenaki.data import records, tensorflow, token_files

    directory, random = root / "tokens", np.random.default_rng(0)
    directory.mkdir()
    tf, files = tensorflow.tensorflow(), []
    for shard in range(8):
        path = directory / f"clips-video_train.tfrecord-{shard:05d}"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for number in range(ROWS // 8):
                tokens = random.integers(0, 8192, TOKENS, dtype=np.uint16)
                ids = np.zeros(LENGTH, np.int32)
                ids[:24] = random.integers(1, 32_000, 24)
                text = b"a caption of some words, as long as most"
                caption = token_files.Caption(text, ids, None)
                record = token_files.example(tokens, [caption], True, b"%d" % number, "")
                writer.write(record)
        with open(f"{path}{records.LENGTHS}", "wb") as file:
            np.save(file, records.lengths(str(path)))
        files.append({"name": path.name})
    manifest = {
        "schema": token_files.SCHEMA,
        "origin": dict(tokenizer="t", pixels="p", text="t", encoder=""),
        "sizes": dict(video=TOKENS, image=IMAGE_TOKENS, text=LENGTH, width=0),
        "files": {"video_train": files},
        "records": {"video_train": ROWS},
    }
    (directory / token_files.MANIFEST).write_text(json.dumps(manifest))
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


def _tokens(directory: Path):
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
    from phenaki.data import tokens as stored_tokens
    from phenaki.data.host_rows import HostRows
    from phenaki.data.token_files import Origin

    origin = Origin("t", "p", "t", "")
    rows = HostRows.whole(BATCH.value)
    return stored_tokens.batches(
        str(directory), split="train", kind="video", rows=rows, origin=origin, seed=0
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
    """Resident megabytes after some steps."""
    shown = {}
    marks = {max(STEPS.value // 100, 1), STEPS.value // 10, STEPS.value // 2, STEPS.value}
    for number, _ in enumerate(itertools.islice(_batches(directory), STEPS.value), 1):
        if number in marks:
            shown[f"step {number}"] = memory.resident()
    return shown


if __name__ == "__main__":
    cli.run(main)
