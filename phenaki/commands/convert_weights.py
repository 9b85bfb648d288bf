"""Converts a public weight file of a feature network to the file that losses and metrics read.

python scripts/convert_weights.py --list
python scripts/convert_weights.py --network=vgg16 --input=FILE --output=DIR

Writes DIR/<network>.npz. FILE may be .pt, .pth, .safetensors, .h5, .npz, .flax or .msgpack. Nothing
in it is executed, and PyTorch need not be installed.
"""

from absl import flags

from phenaki.errors import UserError
from phenaki.features import weights
from phenaki.io import streams

_NETWORK = flags.DEFINE_enum("network", None, list(weights.NETWORKS), "whose weights FILE holds")
_INPUT = flags.DEFINE_string("input", None, "the public file")
_OUTPUT = flags.DEFINE_string("output", None, "directory of the converted weights")
_LIST = flags.DEFINE_bool("list", False, "print the networks and where their files are published")


def _print_networks() -> None:
    networks = weights.NETWORKS.items()
    streams.result("\n".join(f"{name:<10} {x.file}: {x.source}" for name, x in networks))


def _given(flag: flags.FlagHolder) -> str:
    if not flag.value:
        raise UserError(f"--{flag.name} is required (or --list)")
    return flag.value


def main(argv: list[str]) -> None:
    """Converts the file that the flags name, or lists the networks."""
    del argv
    if _LIST.value:
        return _print_networks()
    name, source, output = _given(_NETWORK), _given(_INPUT), _given(_OUTPUT)
    written = weights.convert(name, source, output)
    if weights.is_published(name, source) is False:
        network = weights.NETWORKS[name]
        print(
            f"note: {source} fits, but is not the published {network.file} "
            f"(its sha256 starts with {network.sha256[:8]})"
        )
    print(f"written: {written}")
