"""Lazy, quiet imports of TensorFlow, TFDS and seqio, kept off the accelerators."""

import contextlib
import functools
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
