"""Lazy, quiet imports of TensorFlow, TFDS and seqio, kept off the accelerators."""

import contextlib
import functools
import warnings
from collections.abc import Iterator
from types import ModuleType

from phenaki.io import paths
from phenaki.io.quiet import quiet


@functools.cache
def tensorflow() -> ModuleType:
    """The `tensorflow` module with the CPU as its only device: it would claim all GPU memory."""
    paths.load()
    with quiet():
        import tensorflow as tf

        with contextlib.suppress(RuntimeError):  # TensorFlow is initialized already
            tf.config.set_visible_devices([], "GPU")
            tf.config.set_visible_devices([], "TPU")
    return tf


@functools.cache
def datasets() -> ModuleType:
    """The `tensorflow_datasets` module."""
    tensorflow()
    with quiet():
        import tensorflow_datasets as tfds
    return tfds


@functools.cache
def seqio() -> ModuleType:
    """The `seqio` module."""
    tensorflow()
    with quiet():
        import seqio as module
    return module


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
