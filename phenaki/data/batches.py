"""Endless host-local batches of a stage; their state counts the examples taken of each kind."""

import contextlib
import functools
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from phenaki.data.host_rows import HostRows
from phenaki.data.shapes import render
from phenaki.data.shapes.world import World
from phenaki.errors import UserError, check_seed, one_of

Batch = dict[str, dict[str, np.ndarray]]
Rows = Iterator[tuple[dict[str, np.ndarray], list[str | None]]]  # arrays [b ...], b captions
# kind, rows of a batch that this host loads, example of the job at which the first batch starts
Source = Callable[[str, HostRows, int], Rows]
FIELDS = {"video": "batch", "image": "image_batch"}  # of config.data: rows of a global batch
SEED_BITS = 32  # of config.seed: the keys of a training run have no more
PREFETCH = 4  # batches made in advance; uint8 clips are small
JOIN_TIMEOUT = 10.0  # seconds that `close` waits for a batch in progress


class Batches:
    """Iterator whose whole state is how many batches, and examples of each kind, were taken.

    A thread makes `PREFETCH` batches in advance.

    Args:
        stream: examples of the job to skip, by kind -> iterator over this host's batches of the
            others.
        sizes: rows of a global batch by kind.
    """

    def __init__(
        self, stream: Callable[[Mapping[str, int]], Iterator[Batch]], sizes: Mapping[str, int]
    ):
        self._stream, self._sizes = stream, sizes
        self._start(0, dict.fromkeys(sizes, 0))

    def _start(self, taken: int, examples: dict[str, int]) -> None:
        self._taken, self._examples = taken, examples
        self._queue: queue.Queue = queue.Queue(PREFETCH)
        self._closed = threading.Event()
        arguments = (self._stream, examples.copy(), self._queue, self._closed)
        self._thread = threading.Thread(target=_fill, args=arguments, daemon=True)
        self._thread.start()

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> Batch:
        batch = self._queue.get()
        if isinstance(batch, BaseException):
            raise batch
        self._taken += 1
        for kind, size in self._sizes.items():
            self._examples[kind] += size
        return batch

    def get_state(self) -> dict:
        """The argument of `set_state` that continues here; checkpoints store it."""
        return {"taken": self._taken, "examples": self._examples.copy()}

    def set_state(self, state: dict) -> None:
        """Continues after the examples of `state`, also with batches of another size."""
        self.close()
        taken = int(state["taken"])
        # Earlier versions stored batches only: those of today's size.
        examples = state.get("examples", {kind: taken * n for kind, n in self._sizes.items()})
        self._start(taken, dict.fromkeys(self._sizes, 0) | examples)

    def close(self) -> None:
        """Stops the thread."""
        self._closed.set()
        with contextlib.suppress(queue.Empty):
            while True:  # makes room for the batch that the thread may be waiting to put
                self._queue.get_nowait()
        # TensorFlow aborts the process if a thread is inside it when Python ends.
        self._thread.join(JOIN_TIMEOUT)


def _fill(stream, examples, out, closed):
    try:
        for batch in stream(examples):
            out.put(batch)
            if closed.is_set():
                return
    except BaseException as error:  # raised again by `__next__`
        out.put(error)


def make(
    config,
    encode_text: Callable[[list], dict[str, np.ndarray]],
    rows: Mapping[str, HostRows] | None = None,
) -> Batches:
    """Batches of `config.data` as {kind: {"video": uint8 [b f h w 3], **encode_text(captions)}}.

    Kinds are "video" and "image" (f = 1). `config.data.batch` and `.image_batch` count clips and
    images of all hosts together; "image" is absent if the latter is 0. `rows` are those that this
    host loads, by kind; all by default. `config.data.source` is

    - "moving_shapes": rendered;
    - "tfds": data sets in `.sources`, a directory or "DIR=0.8,DIR=0.2" with rates; images may have
      `.image_sources` of their own, and `.captions` "sampled" (by default) or "first" of several;
    - "codes": stored tokens, with the same fields: {kind: what `tokens.batches` yields}.

    The stream depends on `config.seed`, not on hosts and mesh.

    Raises:
        UserError: unknown source, bad rates, or stored tokens in stage 1.
    """
    sizes = {kind: config.data[field] for kind, field in FIELDS.items() if config.data[field]}
    mine = {kind: HostRows.whole(size) for kind, size in sizes.items()} if rows is None else rows
    text, fingerprint = config.get("text"), config.get("fingerprint")
    source = _source(config.data, config.video, config.seed, text, fingerprint)

    def stream(examples: Mapping[str, int]) -> Iterator[Batch]:
        parts = {kind: source(kind, mine[kind], examples[kind]) for kind in sizes}
        while True:
            batch = {}
            for kind, part in parts.items():
                arrays, captions = next(part)
                encoded = {} if "tokens" in arrays else encode_text(captions)
                batch[kind] = {**arrays, **encoded}
            yield batch

    return Batches(stream, sizes)


def first(config, count: int) -> tuple[dict[str, np.ndarray], list[str | None]]:
    """(arrays, captions) of the first `count` training clips, the same on every host.

    The arrays are {"video": uint8 [count f h w 3]}, or stored tokens.
    """
    text, fingerprint = config.get("text"), config.get("fingerprint")
    source = _source(config.data, config.video, config.seed, text, fingerprint)
    return next(source("video", HostRows.whole(count), 0))


def world(config) -> World:
    """The moving-shapes world of `config.data.world`, at the size and length of `config.video`."""
    return _world(config.data, config.video, config.seed)


def _world(data, video, seed: int) -> World:
    values: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list | tuple) else v for k, v in data.world.items()
    }
    if video.height != video.width:
        raise UserError(
            f"config.video.width={video.width}: moving shapes are square; nearest is "
            f"{video.height}, the height."
        )
    check_seed("config.seed", seed, SEED_BITS)
    return World(size=video.height, frames=video.frames, seed=seed, **values)


def _source(data, video, seed: int, text, fingerprint: str | None) -> Source:
    """That of `config.data.source`, from values of the config."""
    check_seed("config.seed", seed, SEED_BITS)
    captions = data.get("captions", "sampled")
    sources: dict[str, Callable[[], Source]] = {
        "moving_shapes": lambda: functools.partial(_shapes, _world(data, video, seed)),
        "tfds": lambda: _clips(_rates(data), video, seed, captions),
        "codes": lambda: _tokens(_rates(data), video, seed, text, fingerprint, captions),
    }
    return one_of("config.data.source", data.source, sources)()


def _rates(data) -> dict[str, dict[str, float]]:
    """Directory -> rate, by kind."""
    videos = _parsed("sources", data.sources)
    images = _parsed("image_sources", data.get("image_sources", ""))
    return {"video": videos, "image": images or videos}


def _parsed(field: str, sources: str) -> dict[str, float]:
    """ "a=0.8,b=0.2" or "a" as directory -> rate."""
    rates = {}
    for part in sources.split(",") if sources else ():
        directory, _, rate = part.partition("=")
        try:
            rates[directory.strip()] = float(rate or 1)
        except ValueError:
            raise UserError(
                f"config.data.{field}={sources!r}: {rate!r} must be a number, as in "
                "DIR=0.8,DIR=0.2."
            ) from None
    return rates


def _shapes(world: World, kind: str, rows: HostRows, start: int) -> Rows:
    make = render.render if kind == "video" else render.render_images
    while True:
        made = make(world, "train", rows.numbers(start))
        yield {"video": made["video"]}, made["caption"]
        start += rows.total


def _clips(rates: Mapping[str, Mapping[str, float]], video, seed: int, captions: str) -> Source:
    from phenaki.data import clips  # TensorFlow, only where it is used

    spec = clips.ClipSize(**video)

    def source(kind: str, rows: HostRows, start: int) -> Rows:
        examples = clips.examples(
            rates[kind],
            split="train",
            kind=kind,
            spec=spec,
            seed=seed,
            rows=rows,
            start=start,
            captions=captions,
        )
        while True:
            group = [next(examples) for _ in rows.rows]
            yield {"video": np.stack([g["video"] for g in group])}, [g["caption"] for g in group]

    return source


def _tokens(
    rates: Mapping[str, Mapping[str, float]],
    video,
    seed: int,
    text,
    fingerprint: str | None,
    captions: str,
) -> Source:
    from phenaki.data import token_files  # TensorFlow, only where it is used
    from phenaki.data import tokens as stored_tokens

    if fingerprint is None:
        raise UserError('config.data.source="codes": stage 1 trains on pixels; give "tfds".')
    origin = token_files.Origin.of(fingerprint, video, text)

    def source(kind: str, rows: HostRows, start: int) -> Rows:
        return stored_tokens.batches(
            rates[kind],
            split="train",
            kind=kind,
            rows=rows,
            origin=origin,
            seed=seed,
            start=start,
            captions=captions,
        )

    return source
