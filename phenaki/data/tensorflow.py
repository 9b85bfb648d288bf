"""TensorFlow and its kin: imported on first use only, quietly, and kept off the accelerators."""

import contextlib
import functools
import os
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType


@functools.cache
def tensorflow() -> ModuleType:
    """The `tensorflow` module; its devices are the CPU alone, or it would take all GPU memory."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _quiet():
        import tensorflow as tf

        with contextlib.suppress(RuntimeError):  # someone used TensorFlow before us
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


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Drops what C++ libraries write to stderr while they load; no setting of theirs stops it."""
    sys.stderr.flush()
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        with contextlib.suppress(OSError):  # no stderr to speak of
            kept = os.dup(2)
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 2)
            os.close(null)
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, 2)
        yield


@contextlib.contextmanager
def quiet_logs() -> Iterator[None]:
    """Silences warnings that TFDS raises against its own code."""
    from absl import logging

    level = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        logging.set_verbosity(level)
