"""Endless host-local batches of a stage, resumable by their number."""

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from phenaki.data.shapes import render as moving_shapes
from phenaki.data.shapes import world as shapes_world
from phenaki.errors import UserError

Batch = dict[str, dict[str, np.ndarray]]
AHEAD = 4  # batches made in advance; uint8 clips are small
PATIENCE = 10.0  # seconds that a batch in the making may take before it is left alone


class Batches:
    """Iterator over `make(number)`-th batches whose whole state is the number of batches taken."""

    def __init__(self, stream: Callable[[int], Iterator[Batch]]):
        self._stream = stream
        self._start(0)

    def _start(self, taken: int) -> None:
        self._taken = taken
        self._queue: queue.Queue = queue.Queue(AHEAD)
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

    def state(self) -> dict:
        """What `restore` needs; goes into the checkpoint."""
        return {"taken": self._taken}

    def restore(self, state: dict) -> None:
        """Goes on as an iterator from which `state["taken"]` batches were taken."""
        self.close()
        self._start(int(state["taken"]))

    def close(self) -> None:
        """Stops making batches."""
        self._closed.set()
        with contextlib.suppress(queue.Empty):
            while True:  # room for the batch that the thread may be waiting to hand over
                self._queue.get_nowait()
        # TensorFlow aborts the process if a thread is still inside it when Python ends.
        self._thread.join(PATIENCE)


def _fill(stream, taken, out, closed):
    try:
        for batch in stream(taken):
            out.put(batch)
            if closed.is_set():
                return
    except BaseException as error:  # raised again where the batch is taken
        out.put(error)


def make(
    config, encode_text: Callable[[list], dict[str, np.ndarray]], host: int = 0, hosts: int = 1
) -> Batches:
    """Batches of `config.data` as {kind: {"video": uint8 [b f h w 3], ...}}.

    The rest of a part is what `encode_text(captions)` gives: arrays by name, [b ...]. Kinds are
    "video" and "image" (f = 1). `config.data.batch` and `.image_batch` count clips and stills of
    all hosts together; "image" is absent where the latter is 0. `config.data.source` is
    "moving_shapes", or "tfds" with `.sources`: a directory, or several with rates as
    "DIR=0.8,DIR=0.2"; stills may have `.image_sources` of their own. "codes" has the same fields,
    of directories of codes: parts are then what `stored_codes.batches` gives. The stream depends
    on `config.seed` only, not on `hosts`.
    """
    kinds = {"video": config.data.batch, "image": config.data.image_batch}
    kinds = {kind: size // hosts for kind, size in kinds.items() if size}
    rows = _rows(config, host, hosts)

    def stream(taken):
        parts = {kind: rows(kind, size, taken) for kind, size in kinds.items()}
        while True:
            batch = {}
            for kind, part in parts.items():
                arrays, captions = next(part)
                text = {} if "tokens" in arrays else encode_text(captions)
                batch[kind] = {**arrays, **text}
            yield batch

    return Batches(stream)


def captions(config, count: int) -> list[str | None]:
    """Captions of the first training clips, as prompts to look at while training."""
    return next(_rows(config, 0, 1)("video", count, 0))[1]


def world(config) -> shapes_world.World:
    """The moving-shapes world of `config.data.world`, at the size and length of `config.video`."""
    values: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list | tuple) else v for k, v in config.data.world.items()
    }
    if config.video.height != config.video.width:
        raise UserError(
            f"config.video.width={config.video.width}: moving shapes are square; nearest is "
            f"{config.video.height}, the height."
        )
    return shapes_world.World(
        size=config.video.height, frames=config.video.frames, seed=config.seed, **values
    )


def _rows(config, host, hosts):
    sources = {"moving_shapes": _shapes, "tfds": _tfds, "codes": _codes}
    if config.data.source not in sources:
        raise UserError(
            f"config.data.source={config.data.source!r} must be one of {', '.join(sources)}."
        )
    return sources[config.data.source](config, host, hosts)


def _shapes(config, host, hosts):
    shapes = world(config)

    def rows(kind, size, taken):
        render = moving_shapes.render if kind == "video" else moving_shapes.render_stills
        while True:
            first = (taken * hosts + host) * size  # every step has clips that no other step has
            made = render(shapes, "train", np.arange(first, first + size))
            yield {"video": made["video"]}, made["caption"]
            taken += 1

    return rows


def _sources(config, kind: str) -> dict[str, float]:
    """ "a=0.8,b=0.2" or "a" as directory -> rate."""
    stills = config.data.get("image_sources", "") if kind == "image" else ""
    sources, rates = stills or config.data.sources, {}
    for part in sources.split(","):
        directory, _, rate = part.partition("=")
        try:
            rates[directory.strip()] = float(rate or 1)
        except ValueError:
            raise UserError(
                f"config.data.sources={sources!r}: {rate!r} must be a number, as in "
                "DIR=0.8,DIR=0.2."
            ) from None
    return rates


def _tfds(config, host, hosts):
    from phenaki.data import clips  # TensorFlow, only where it is used

    def rows(kind, size, taken):
        examples = clips.examples(
            _sources(config, kind),
            split="train",
            kind=kind,
            spec=config.video,
            seed=config.seed,
            shard_index=host,
            shard_count=hosts,
            start=taken * size,
        )
        while True:
            group = [next(examples) for _ in range(size)]
            yield {"video": np.stack([g["video"] for g in group])}, [g["caption"] for g in group]

    return rows


def _codes(config, host, hosts):
    from phenaki.data import tokens

    if config.kind == "tokenizer":
        raise UserError('config.data.source="codes": stage 1 trains on pixels; give "tfds".')
    origin = tokens.Origin.of(config)

    def rows(kind, size, taken):
        return tokens.batches(
            _sources(config, kind),
            split="train",
            kind=kind,
            size=size,
            origin=origin,
            seed=config.seed,
            shard_index=host,
            shard_count=hosts,
            start=taken,
        )

    return rows
