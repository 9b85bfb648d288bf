"""Training of stage 2 loads no network that only losses of stage 1 or metrics use."""

import subprocess
import sys

import pytest

NETWORKS = ("clip", "i3d", "inception", "vgg")
PROGRAM = """
import importlib, sys
importlib.import_module(sys.argv[1])
print(*sorted(name for name in sys.modules if name.startswith("phenaki.")))
"""


@pytest.mark.parametrize("module", ["phenaki.train.maskgit", "phenaki.train.critic"])
def test_stage_2_loads_no_feature_network(module):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, module], capture_output=True, text=True, check=True
    )
    loaded = done.stdout.split()
    assert module in loaded
    assert not [name for name in NETWORKS if f"phenaki.features.{name}" in loaded]
    assert "phenaki.losses.perceptual" not in loaded
