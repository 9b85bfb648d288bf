"""Endless host-local batches of a stage; their state counts the examples taken of each kind."""

import contextlib
import functools
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from absl import logging

from phenaki.data import mixture_state
from phenaki.data.host_rows import HostRows
from phenaki.data.mixture_state import MixtureState, MixtureStates
from phenaki.data.shapes import render
from phenaki.data.shapes.world import World, world_of
from phenaki.errors import UserError

Batch = dict[str, dict[str, np.ndarray]]
Rows = Iterator[tuple[dict[str, np.ndarray], list[str | None]]]  # arrays [b ...], b captions
# kind, rows of a batch that this host loads, example of the job at which the first batch starts,
# state of its mixture
Source = Callable[[str, HostRows, int, MixtureState | None], Rows]
FIELDS = {"video": "batch", "image": "image_batch"}  # of config.data: rows of a global batch
PREFETCH = 4  # batches made in advance; uint8 clips are small
JOIN_TIMEOUT = 10.0  # seconds that `close` waits for a batch in progress


class Batches:
    """Iterator whose whole state is how many batches, and examples of each kind, were taken.

    Of a mixture of data sets the state also has how many examples were taken of each
    (`mixture_state`).
    A thread makes `PREFETCH` batches in advance.

    Args:
        stream: examples of the job to skip, by kind -> iterator over this host's batches of the
            others.
        sizes: rows of a global batch by kind.
        mixtures: of the data sets that `stream` reads; None: it reads none.
    """

    def __init__(
        self,
        stream: Callable[[Mapping[str, int]], Iterator[Batch]],
        sizes: Mapping[str, int],
        mixtures: MixtureStates | None = None,
    ):
        self._stream, self._sizes, self._mixtures = stream, sizes, mixtures
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
        state: dict = {"taken": self._taken, "examples": self._examples.copy()}
        if self._mixtures is not None:
            state["mixtures"] = self._mixtures.state()
        return state

    def set_state(self, state: dict, data: Mapping[str, Any] | None = None) -> None:
        """Continues after the examples of `state`, also with batches or data sets of other sizes.

        `data` is the plain config.data with which the state was made: earlier versions stored the
        number of batches only. A warning names data sets that differ.
        """
        self.close()
        if data is not None:
            state = mixture_state.state_of_earlier(state, data, FIELDS)
        taken = int(state["taken"])
        examples = state.get("examples", {kind: taken * n for kind, n in self._sizes.items()})
        examples = dict.fromkeys(self._sizes, 0) | examples
        if self._mixtures is not None:
            for sentence in self._mixtures.restore(state.get("mixtures"), examples):
                logging.warning("%s", sentence)
        self._start(taken, examples)

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
        UserError: unknown source, bad rates, stored tokens in stage 1, or no clips and no images.
    """
    sizes = sizes_of(config.data)
    mine = {kind: HostRows.whole(size) for kind, size in sizes.items()} if rows is None else rows
    text, fingerprint = config.get("text"), config.get("fingerprint")
    source = _source(config.data, config.video, config.seed, text, fingerprint)
    mixtures = None
    if config.data.source in mixture_state.SETS:
        mixtures = mixture_state.open_states(
            config.data, config.video.frames, config.seed, list(sizes)
        )

    def stream(examples: Mapping[str, int]) -> Iterator[Batch]:
        parts = {
            kind: source(kind, mine[kind], examples[kind], mixtures[kind] if mixtures else None)
            for kind in sizes
        }
        while True:
            batch = {}
            for kind, part in parts.items():
                arrays, captions = next(part)
                encoded = {} if "tokens" in arrays else encode_text(captions)
                batch[kind] = {**arrays, **encoded}
            yield batch

    return Batches(stream, sizes, mixtures)


def sizes_of(data) -> dict[str, int]:
    """Rows of a global batch by kind, of the kinds that `config.data` trains on.

    Raises:
        UserError: there are neither clips nor images.
    """
    sizes = {kind: data[field] for kind, field in FIELDS.items() if data[field]}
    if not sizes:
        raise UserError(
            "config.data.batch=0 and config.data.image_batch=0: a step needs clips or images; give "
            "config.data.image_batch=8 to train on images alone."
        )
    return sizes


def sample_frames(data, frames: int) -> int | None:
    """Frames of what a run samples: 1 where it trains on images alone, None for whole clips.

    `data` is config.data, `frames` the length of a clip.
    """
    return None if "video" in sizes_of(data) and frames > 1 else 1


def first(config, count: int) -> tuple[dict[str, np.ndarray], list[str | None]]:
    """(arrays, captions) of the first `count` training clips, the same on every host.

    Images where the config trains on images alone. The arrays are {"video": uint8 [count f h w
    3]}, or stored tokens.
    """
    text, fingerprint = config.get("text"), config.get("fingerprint")
    source = _source(config.data, config.video, config.seed, text, fingerprint)
    kind = next(iter(sizes_of(config.data)))
    return next(source(kind, HostRows.whole(count), 0, None))


def world(config) -> World:
    """The moving-shapes world of `config.data.world`, at the size and length of `config.video`."""
    return _world(config.data, config.video, config.seed)


def known_world(model: Any) -> World | None:
    """`world` of a `Phenaki` of moving shapes, whose films a detector reads; None for others."""
    return world(model.config) if model.config.data.source == "moving_shapes" else None


def _world(data, video, seed: int) -> World:
    values: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list | tuple) else v for k, v in data.world.items()
    }
    if video.height != video.width:
        raise UserError(
            f"config.video.width={video.width}: moving shapes are square; nearest is "
            f"{video.height}, the height."
        )
    return world_of(values, size=video.height, frames=video.frames, seed=seed)


def _source(data, video, seed: int, text, fingerprint: str | None) -> Source:
    """That of `config.data.source`, from values of the config."""
    captions = data.get("captions", "sampled")
    sources: dict[str, Callable[[], Source]] = {
        "moving_shapes": lambda: functools.partial(_shapes, _world(data, video, seed)),
        "tfds": lambda: _clips(mixture_state.rates_of(data), video, seed, captions),
        "codes": lambda: _tokens(
            mixture_state.rates_of(data), video, seed, text, fingerprint, captions
        ),
    }
    return sources[data.source]()


def _shapes(
    world: World, kind: str, rows: HostRows, start: int, state: MixtureState | None = None
) -> Rows:
    del state
    make = render.render if kind == "video" else render.render_images
    while True:
        made = make(world, "train", rows.numbers(start))
        yield {"video": made["video"]}, made["caption"]
        start += rows.total


def _clips(rates: Mapping[str, Mapping[str, float]], video, seed: int, captions: str) -> Source:
    from phenaki.data import clip_records, clips  # TensorFlow, only where it is used

    spec = clip_records.ClipSize(**video)

    def source(kind: str, rows: HostRows, start: int, state: MixtureState | None) -> Rows:
        examples = clips.examples(
            rates[kind],
            split="train",
            kind=kind,
            spec=spec,
            seed=seed,
            rows=rows,
            start=start,
            state=state,
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
    from phenaki.data import clip_records, token_files  # TensorFlow, only where it is used
    from phenaki.data import tokens as stored_tokens

    if fingerprint is None:
        raise UserError('config.data.source="codes": stage 1 trains on pixels; give "tfds".')
    origin = token_files.Origin.of(fingerprint, clip_records.ClipSize(**video), text)

    def source(kind: str, rows: HostRows, start: int, state: MixtureState | None) -> Rows:
        return stored_tokens.batches(
            rates[kind],
            split="train",
            kind=kind,
            rows=rows,
            origin=origin,
            seed=seed,
            start=start,
            state=state,
            captions=captions,
        )

    return source
