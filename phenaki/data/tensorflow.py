"""Lazy, quiet imports of TensorFlow, TFDS and seqio, kept off the accelerators."""

import contextlib
import functools
import os
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any


@functools.cache
def tensorflow() -> ModuleType:
    """The `tensorflow` module with the CPU as its only device: it would claim all GPU memory."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _quiet():
        import tensorflow as tf

        with contextlib.suppress(RuntimeError):  # TensorFlow is initialized already
            tf.config.set_visible_devices([], "GPU")
            tf.config.set_visible_devices([], "TPU")
    return tf


@functools.cache
def datasets() -> ModuleType:
    """The `tensorflow_datasets` module."""
    tensorflow()
    with _quiet():
        import tensorflow_datasets as tfds
    return tfds


@functools.cache
def seqio() -> ModuleType:
    """The `seqio` module."""
    tensorflow()
    with _quiet():
        import seqio as module
    return module


class GFiles:
    """`io.artifacts.FileSystem` of every path that TensorFlow opens, buckets included."""

    def open(self, path: str, mode: str) -> Any:
        """Opens a file; text is UTF-8."""
        return tensorflow().io.gfile.GFile(path, mode)

    def replace(self, source: str, target: str) -> None:
        """Renames `source`, replacing `target`."""
        tensorflow().io.gfile.rename(source, target, overwrite=True)

    def remove(self, path: str) -> None:
        """Removes a file."""
        tensorflow().io.gfile.remove(path)

    def size(self, path: str) -> int:
        """Bytes of a file; -1 if there is none."""
        gfile = tensorflow().io.gfile
        return gfile.stat(path).length if gfile.exists(path) else -1


GFILES = GFiles()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Drops what C++ libraries write to stderr while they load; they have no setting for it."""
    sys.stderr.flush()
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        with contextlib.suppress(OSError):  # stderr is closed
            kept = os.dup(2)
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 2)
            os.close(null)
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, 2)
        yield


@contextlib.contextmanager
def quiet_logs() -> Iterator[None]:
    """Silences warnings that TFDS raises about its own code."""
    from absl import logging

    level = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        logging.set_verbosity(level)
