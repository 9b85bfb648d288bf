"""The factory: networks from configs, without importing what a config does not ask for."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest

from configs import critic, cvivit, maskgit
from phenaki.errors import UserError
from phenaki.models import factory

ROOT = Path(__file__).parents[1]
# Frozen networks and readers of weight files: a run of MaskGIT needs none of them.
LAZY = {
    *(f"phenaki.features.{name}" for name in ("clip", "i3d", "inception", "vgg")),
    *(f"phenaki.features.{name}" for name in ("bpe", "weights", "tensor_files", "torch_files")),
    "phenaki.models.discriminator",
    "phenaki.text.weights",
    "phenaki.text.t5x_checkpoint",
    "phenaki.text.hugging_face",
}
PROGRAM = """
import json, sys
from configs import cvivit, maskgit
from phenaki.models import factory
config = maskgit.get_config("small")
with config.unlocked():
    config.update(dict(video=cvivit.get_config("small").video,
                       tokenizer=cvivit.get_config("small").tokenizer))
factory.tokenizer(config), factory.maskgit(config), factory.vocabulary(config)
factory.text_params(config)
print(json.dumps(sorted(sys.modules)))
"""


def test_a_run_of_maskgit_imports_no_feature_network_and_no_weight_reader():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=True,
    )
    loaded = set(json.loads(done.stdout))
    assert "phenaki.models.maskgit" in loaded
    assert not loaded & LAZY
    assert not {name.split(".")[0] for name in loaded} & {"gin", "h5py", "tensorflow"}


@pytest.mark.parametrize(
    ("section", "field", "given", "message"),
    [
        (None, "dtype", "float32x", r"config\.dtype='float32x' must be one of .* mean float32\?"),
        (None, "attention", "splosh", r"config\.attention='splosh' must be .* mean splash\?"),
        (None, "attention", "flash", r"config\.attention='flash' must be one of auto, xla, splash"),
        (None, "remat", "ful", r"config\.remat='ful' must be one of none, full, dots"),
        ("tokenizer", "name", "cvivid", r"config\.tokenizer\.name='cvivid' .* mean cvivit\?"),
        ("gan", "network", "stylegan", r"config\.gan\.network='stylegan' .* mean stylegan2\?"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(section, field, given, message):
    config = cvivit.get_config("small")
    (config[section] if section else config)[field] = given
    with pytest.raises(UserError, match=message):
        factory.tokenizer(config)
        factory.discriminator(config.gan.network, config.gan.width)


def test_every_choice_of_the_config_builds():
    for attention in ("auto", "xla", "splash", "cudnn"):
        config = cvivit.get_config("small")
        config.attention = attention
        assert factory.tokenizer(config).attention == attention
    for name, dtype in (("float32", jnp.float32), ("bfloat16", jnp.bfloat16)):
        assert factory.dtype(name) is dtype


def test_a_critic_s_trunk_is_the_generator():
    config = maskgit.get_config("small")
    with config.unlocked():
        stage_1 = cvivit.get_config("small")
        config.update(dict(video=stage_1.video, tokenizer=stage_1.tokenizer))
        config.critic = critic.get_config("demo").critic
    config.critic.kind = "head"
    assert factory.critic(config).trunk == factory.maskgit(config)
