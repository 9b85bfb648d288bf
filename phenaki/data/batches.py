"""Endless host-local batches of a stage; the state of the iterator is a single number."""

import contextlib
import functools
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from phenaki.data.shapes import render
from phenaki.data.shapes.world import World
from phenaki.errors import UserError, check_seed, one_of

Batch = dict[str, dict[str, np.ndarray]]
Rows = Iterator[tuple[dict[str, np.ndarray], list[str | None]]]  # arrays [b ...], b captions
SEED_BITS = 32  # of config.seed: the keys of a training run have no more
PREFETCH = 4  # batches made in advance; uint8 clips are small
JOIN_TIMEOUT = 10.0  # seconds that `close` waits for a batch in progress


class Batches:
    """Iterator whose whole state is the number of batches taken.

    A thread makes `PREFETCH` batches in advance.

    Args:
        stream: number of batches to skip -> iterator over the others.
    """

    def __init__(self, stream: Callable[[int], Iterator[Batch]]):
        self._stream = stream
        self._start(0)

    def _start(self, taken: int) -> None:
        self._taken = taken
        self._queue: queue.Queue = queue.Queue(PREFETCH)
        self._closed = threading.Event()
        arguments = (self._stream, taken, self._queue, self._closed)
        self._thread = threading.Thread(target=_fill, args=arguments, daemon=True)
        self._thread.start()

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> Batch:
        batch = self._queue.get()
        if isinstance(batch, BaseException):
            raise batch
        self._taken += 1
        return batch

    def get_state(self) -> dict:
        """The argument of `set_state` that continues here; checkpoints store it."""
        return {"taken": self._taken}

    def set_state(self, state: dict) -> None:
        """Continues after the first `state["taken"]` batches."""
        self.close()
        self._start(int(state["taken"]))

    def close(self) -> None:
        """Stops the thread."""
        self._closed.set()
        with contextlib.suppress(queue.Empty):
            while True:  # makes room for the batch that the thread may be waiting to put
                self._queue.get_nowait()
        # TensorFlow aborts the process if a thread is inside it when Python ends.
        self._thread.join(JOIN_TIMEOUT)


def _fill(stream, taken, out, closed):
    try:
        for batch in stream(taken):
            out.put(batch)
            if closed.is_set():
                return
    except BaseException as error:  # raised again by `__next__`
        out.put(error)


def make(
    config, encode_text: Callable[[list], dict[str, np.ndarray]], host: int = 0, hosts: int = 1
) -> Batches:
    """Batches of `config.data` as {kind: {"video": uint8 [b f h w 3], **encode_text(captions)}}.

    Kinds are "video" and "image" (f = 1). `config.data.batch` and `.image_batch` count clips and
    images of all hosts together; "image" is absent if the latter is 0. `config.data.source` is

    - "moving_shapes": rendered;
    - "tfds": data sets in `.sources`, a directory or "DIR=0.8,DIR=0.2" with rates; images may have
      `.image_sources` of their own;
    - "codes": stored tokens, with the same fields: {kind: what `tokens.batches` yields}.

    The stream depends on `config.seed`, not on `hosts`.

    Raises:
        UserError: unknown source, bad rates, or stored tokens in stage 1.
    """
    sizes = {"video": config.data.batch, "image": config.data.image_batch}
    sizes = {kind: size // hosts for kind, size in sizes.items() if size}
    text, fingerprint = config.get("text"), config.get("fingerprint")
    rows = _rows(config.data, config.video, config.seed, text, fingerprint)

    def stream(taken: int) -> Iterator[Batch]:
        parts = {kind: rows(kind, size, taken, host, hosts) for kind, size in sizes.items()}
        while True:
            batch = {}
            for kind, part in parts.items():
                arrays, captions = next(part)
                encoded = {} if "tokens" in arrays else encode_text(captions)
                batch[kind] = {**arrays, **encoded}
            yield batch

    return Batches(stream)


def first(config, count: int) -> tuple[dict[str, np.ndarray], list[str | None]]:
    """(arrays, captions) of the first `count` training clips, the same on every host.

    The arrays are {"video": uint8 [count f h w 3]}, or stored tokens.
    """
    text, fingerprint = config.get("text"), config.get("fingerprint")
    rows = _rows(config.data, config.video, config.seed, text, fingerprint)
    return next(rows("video", count, 0, 0, 1))


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


def _rows(data, video, seed: int, text, fingerprint: str | None) -> Callable[..., Rows]:
    """rows(kind, size, taken, host, hosts) of `config.data.source`, from values of the config."""
    check_seed("config.seed", seed, SEED_BITS)
    sources: dict[str, Callable[[], Callable[..., Rows]]] = {
        "moving_shapes": lambda: functools.partial(_shapes, _world(data, video, seed)),
        "tfds": lambda: _clips(_rates(data), video, seed),
        "codes": lambda: _tokens(_rates(data), video, seed, text, fingerprint),
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


def _shapes(world: World, kind: str, size: int, taken: int, host: int, hosts: int) -> Rows:
    make = render.render if kind == "video" else render.render_images
    while True:
        first = (taken * hosts + host) * size  # no clip occurs in two steps
        made = make(world, "train", np.arange(first, first + size))
        yield {"video": made["video"]}, made["caption"]
        taken += 1


def _clips(rates: Mapping[str, Mapping[str, float]], video, seed: int) -> Callable[..., Rows]:
    from phenaki.data import clips  # TensorFlow, only where it is used

    spec = clips.ClipSize(**video)

    def rows(kind: str, size: int, taken: int, host: int, hosts: int) -> Rows:
        examples = clips.examples(
            rates[kind],
            split="train",
            kind=kind,
            spec=spec,
            seed=seed,
            shard_index=host,
            shard_count=hosts,
            start=taken * size,
        )
        while True:
            group = [next(examples) for _ in range(size)]
            yield {"video": np.stack([g["video"] for g in group])}, [g["caption"] for g in group]

    return rows


def _tokens(
    rates: Mapping[str, Mapping[str, float]], video, seed: int, text, fingerprint: str | None
) -> Callable[..., Rows]:
    from phenaki.data import token_files  # TensorFlow, only where it is used
    from phenaki.data import tokens as stored_tokens

    if fingerprint is None:
        raise UserError('config.data.source="codes": stage 1 trains on pixels; give "tfds".')
    origin = token_files.Origin.of(fingerprint, video, text)

    def rows(kind: str, size: int, taken: int, host: int, hosts: int) -> Rows:
        return stored_tokens.batches(
            rates[kind],
            split="train",
            kind=kind,
            size=size,
            origin=origin,
            seed=seed,
            shard_index=host,
            shard_count=hosts,
            start=taken,
        )

    return rows
