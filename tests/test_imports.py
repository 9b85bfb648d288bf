"""Commands load only what they use: imports are much of the start of a small model."""

import subprocess
import sys

import pytest

NETWORKS = ("clip", "i3d", "inception", "vgg")
LATE = ("tensorflow", "orbax.checkpoint._src", "jax.experimental.pallas", "matplotlib", "av")
PROGRAM = """
import importlib, sys
importlib.import_module(sys.argv[1])
print(*sorted(sys.modules))
"""


def loaded(module: str) -> list[str]:
    """The names of all modules that importing `module` loads."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, module], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@pytest.mark.parametrize("module", ["phenaki.train.maskgit", "phenaki.train.critic"])
def test_stage_2_loads_no_feature_network(module):
    modules = loaded(module)
    assert module in modules
    assert not [name for name in NETWORKS if f"phenaki.features.{name}" in modules]
    assert "phenaki.losses.perceptual" not in modules


def test_the_pipeline_loads_no_library_before_it_is_used():
    modules = loaded("phenaki.pipeline")
    assert "phenaki.pipeline" in modules
    assert not [name for name in LATE if name in modules]


def test_videos_are_written_without_loading_a_library_for_plots():
    assert "matplotlib" not in loaded("phenaki.io.sample_files")


def test_tensorflow_is_loaded_without_keras_and_finds_it_when_asked():
    program = """
import os, sys
from phenaki.data import tensorflow
tf = tensorflow.tensorflow()
print("keras" in sys.modules, "TF_USE_LEGACY_KERAS" in os.environ, tf.keras.__version__[:2])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False", "3."], done.stderr
