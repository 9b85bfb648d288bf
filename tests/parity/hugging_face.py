"""transformers, where torchvision may be absent or compiled for another torch."""

import importlib
import sys

import pytest

try:
    importlib.import_module("torchvision")
except (ImportError, RuntimeError):
    # transformers asks once, when it is imported, whether there is one, and does not test it.
    sys.modules["torchvision"] = None  # type: ignore[assignment]
transformers = pytest.importorskip("transformers")
