"""The kinds of outputs of the commands, and how a folder of each is known."""

from typing import NamedTuple


class Kind(NamedTuple):
    """A kind of output, and how one is known that has no marker.

    Attributes:
        command: what writes it.
        evidence: (pattern of a name, keys of the JSON object in that file), of which one is there.
        names: what the name of a file matches, of which one is there.
        together: names that are all there, with `only` such files.
        only: what the name of every file matches, where those `together` are there.
    """

    command: str
    evidence: tuple[tuple[str, set[str]], ...] = ()
    names: str = r"(?!)"
    together: frozenset[str] = frozenset()
    only: str = ".*"


KINDS = {
    "data set": Kind(
        "scripts/prepare_data.py",
        (("manifest.json", {"config_sha256", "records", "files"}), (".uploading", set())),
    ),
    "preparation": Kind("scripts/prepare_data.py", (), "spool"),
    "tokens": Kind(
        "scripts/encode_dataset.py",
        (("codes.json", {"origin", "files"}), ("*.tfrecord-*.done", {"origin", "input"})),
    ),
    "run": Kind("the training scripts", (("config.json", {"video", "data", "train"}),)),
    "samples": Kind(
        "scripts/sample.py",
        (("story_report.json", {"windows_made"}),),
        r"rerolls\.json",
        frozenset({"sample_0.mp4", "sample_0.gif", "sample_0.png"}),
        r"sample_\d+\.(mp4|gif|png)",
    ),
    "windows": Kind("scripts/sample.py", (), r"[0-9a-f]{24}\.npz"),
    "evaluation": Kind(
        "scripts/evaluate.py",
        (("*-????????????/settings.json", {"per_shard"}), ("table[1-5]-*.json", {"records"})),
    ),
    "model": Kind("scripts/export.py", (("bundle.json", {"schema", "config"}),)),
    "shared model": Kind("phenaki push", (("config.json", {"format", "files"}),)),
    "programs": Kind("scripts/export.py", (("programs.json", {"programs", "mask_id"}),)),
    "weights": Kind(
        "scripts/convert_weights.py", (), r"(vgg16|lpips_vgg|inception|i3d|clip_[bl]\d\d)\.npz"
    ),
    "studio": Kind("phenaki studio"),
    "demo": Kind(
        "scripts/demo.py",
        (("seconds.json", {"stage 1", "stage 2"}), ("cvivit/config.json", {"video", "data"})),
    ),
    "experiment": Kind(
        "an experiment",
        (
            ("table[23].json", {"steps"}),
            ("guidance.json", {"axes"}),
            ("*_[0-9]/config.json", {"video", "data", "train"}),
        ),
    ),
}
