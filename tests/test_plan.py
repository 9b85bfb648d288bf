"""The sizes that scripts/plan.py prints are those of the paper's tables."""

import pytest
import script_calls

from configs import baselines, cvivit, maskgit
from phenaki.errors import UserError
from phenaki.planning import plan
from phenaki.planning.programs import workload
from phenaki.train.maskgit import with_tokenizer


@pytest.mark.parametrize(
    ("variant", "size"), [("vit", 51_195_104), ("conv", 56_350_723), ("laion3d", 43_371_027)]
)
def test_a_tokenizer_and_its_discriminator(variant, size):
    trained, frozen = plan.parameters(workload(baselines.get_config(variant)))
    assert list(trained.values()) == [size, 23_880_833]
    assert sum(frozen.values()) > 1.4e7  # VGG16 and LPIPS


def test_stage_2_has_frozen_networks():
    config = with_tokenizer(maskgit.get_config("t2v"), cvivit.get_config("t2v"), "")
    trained, frozen = plan.parameters(workload(config))
    assert trained == {"MaskGIT": 1_837_010_944}
    assert frozen["tokenizer"] == 51_597_408
    assert 4.5e9 < frozen["text encoder"] < 5e9  # T5 v1.1 XXL


def test_the_script_prints_them(run_script):
    done = run_script("scripts/plan.py", "--config=configs/baselines.py:vit_video")
    assert done.returncode == 0, done.stderr
    assert "vit_vqgan      51,195,104 parameters, 0.76 GiB of training state" in done.stdout
    assert "tokens         2,560 = 10 x 16 x 16, of 8,192" in done.stdout
    done = run_script("scripts/plan.py", "--config=configs/maskgit.py:t2v")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "--stage1 is required" in done.stderr


# Of config files.
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_a_wrong_topology_is_told_before_the_networks_are_traced():
    with pytest.raises(UserError, match=r"--topology=v9:4x4: "):
        script_calls.call("plan.py", "--config=configs/maskgit.py:t2v", "--topology=v9:4x4")
