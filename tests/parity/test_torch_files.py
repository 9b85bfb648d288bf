"""Weight files that torch writes, read without torch: the same tensors, in all three formats.

PYTHONPATH=.:tests:tests/helpers python -m parity.test_torch_files   writes golden/tensors*.pt[h]
"""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from phenaki.errors import UserError  # noqa: E402
from phenaki.features import tensor_files  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
GOLDEN = Path(__file__).parents[1] / "golden"
BASE = torch.arange(24).reshape(4, 6)
STATE = {
    "float": BASE / 7,
    "half": (BASE / 7).half(),
    "bfloat": (BASE / 7).bfloat16(),
    "long": BASE - 12,
    "bool": BASE % 3 == 0,
    "scalar": torch.tensor(2.5),
    "empty": torch.zeros(0, 3),
    "part": BASE[1:3, ::2],  # a view of "long"'s memory, with steps
    "parameter": torch.nn.Parameter(BASE.T / 3),
}


class Inner(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter((BASE / 5).half())
        self.scale = 0.5

    def forward(self, x):
        return x * self.scale + self.weight


class Outer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Inner()
        self.sizes = [2, 3]
        self.register_buffer("steps", torch.tensor([3, 1]))

    def forward(self, x):
        return self.inner(x) + self.steps.sum() + self.sizes[0]


def write(directory: Path) -> None:
    """One file of each format."""
    torch.save(STATE, directory / "tensors.pth")
    torch.save(STATE, directory / "tensors_old.pth", _use_new_zipfile_serialization=False)
    torch.jit.script(Outer()).save(str(directory / "tensors_script.pt"))


def same(ours: dict[str, np.ndarray], theirs) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(ours[name].astype(np.float64), tensor.detach().double())
        assert ours[name].dtype.itemsize == tensor.element_size()


@pytest.mark.parametrize("name", ["tensors.pth", "tensors_old.pth"])
def test_state_dicts(tmp_path, name):
    write(tmp_path)
    theirs = torch.load(tmp_path / name, weights_only=True)
    assert theirs.keys() == STATE.keys()
    same(tensor_files.read(tmp_path / name), theirs)
    same(tensor_files.read(GOLDEN / name), theirs)


def test_torchscript(tmp_path):
    write(tmp_path)
    theirs = torch.jit.load(tmp_path / "tensors_script.pt").state_dict()
    same(tensor_files.read(tmp_path / "tensors_script.pt"), theirs)
    same(tensor_files.read(GOLDEN / "tensors_script.pt"), theirs)


def test_safetensors(tmp_path):
    save_file = pytest.importorskip("safetensors.torch").save_file
    state = {name: x.detach().contiguous().clone() for name, x in STATE.items()}
    save_file(state, tmp_path / "tensors.safetensors", metadata={"format": "pt"})
    same(tensor_files.read(tmp_path / "tensors.safetensors"), state)


def test_a_whole_module_is_no_state_dict(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(UserError, match=r"Linear .* Save the state dict alone"):
        tensor_files.read(tmp_path / "module.pth")


if __name__ == "__main__":
    write(GOLDEN)
