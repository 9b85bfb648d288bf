"""The flags that several commands of sampling have, and the options of sampling that they give."""

import shlex
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from phenaki import __version__, cli
from phenaki.io.paths import AnyPath
from phenaki.sampling.guidance import RAMPS
from phenaki.sampling.schedules import SAMPLER_SCHEDULES

flags.disclaim_key_flags()  # they are of the command that defines them
GIVEN = flags.FLAGS
# Of `phenaki.sampling.options`, by the names of flags; --critic is loaded for the model.
OPTIONS = (
    "steps", "guidance", "guidance_schedule", "choice_temperature", "negative", "temperature",
    "top_k", "top_p", "schedule", "critic_guidance", "critic_noise", "preset",
)  # fmt: skip


def define_model() -> None:
    """Defines what every command of sampling needs."""
    flags.declare_key_flag(cli.NO_VERIFY.name)
    flags.DEFINE_string(
        "model",
        None,
        "a bundle, the --workdir of train_maskgit.py, or laptop, the released model",
        required=True,
    )
    flags.DEFINE_string("output", None, "folder for what is written", required=True)
    flags.DEFINE_integer("seed", 0, "same seed, same video", lower_bound=0, upper_bound=2**64 - 1)
    flags.DEFINE_integer("scale", None, "enlarge pixels; default: to about 256", lower_bound=1)


def define_options() -> None:
    """Defines the sampler's options; the default of each is the model's."""
    flags.DEFINE_integer("steps", None, "decoding steps", lower_bound=1)
    flags.DEFINE_float("guidance", None, "lambda; 0 is off, other tools' scale is 1 + lambda")
    flags.DEFINE_enum(
        "guidance_schedule", None, list(RAMPS), "of lambda: the same in all steps, or growing"
    )
    flags.DEFINE_float("choice_temperature", None, "noise on the choice of tokens", lower_bound=0)
    flags.DEFINE_float("temperature", None, "of the sampled tokens", lower_bound=0)
    flags.DEFINE_integer("top_k", None, "sample from the k likeliest codes; 0: all", lower_bound=0)
    flags.DEFINE_float(
        "top_p", None, "sample from the likeliest codes of this mass", lower_bound=0, upper_bound=1
    )
    flags.DEFINE_enum("schedule", None, list(SAMPLER_SCHEDULES), "of the masked fraction")
    flags.DEFINE_string("negative", None, "a text that guidance leads away from")
    flags.DEFINE_string("preset", None, "named options of the model's config")
    flags.DEFINE_string("critic", None, "the --workdir of train_critic.py")
    flags.DEFINE_float("critic_guidance", None, "lambda of the critic's logits")
    flags.DEFINE_float("critic_noise", None, "noise on the critic's logits", lower_bound=0)


def define_story() -> None:
    """Defines what only stories have."""
    flags.DEFINE_multi_string("scene", [], "TEXT@SECONDS, a scene of one story; several times")
    flags.DEFINE_string("story", None, "a YAML file of scenes, or the name of one that is shipped")
    flags.DEFINE_integer("context", None, "frames that the next window is conditioned on")
    flags.DEFINE_integer(
        "reroll", None, "a new seed for this scene of the story, 1 for the first", lower_bound=1
    )
    flags.DEFINE_bool("preview", False, "the story in a few steps, to OUTPUT/preview")
    flags.DEFINE_string("windows", None, "folder of the window cache; default: OUTPUT/windows")
    flags.DEFINE_bool("reanchor", False, "match each scene to the colours of its first window")
    flags.DEFINE_integer("best_of", 1, "samples per window; one is kept", lower_bound=1)
    flags.DEFINE_enum(
        "score",
        "seam",
        ["seam", "detector"],
        "what --best_of keeps: the smallest change across the seam, or the most attributes of "
        "moving shapes as prompted",
    )
    flags.DEFINE_string(
        "weights",
        "weights",
        "directory of vgg16.npz and lpips_vgg.npz, without which LPIPS is a proxy",
    )


def options(model: Any) -> dict[str, Any]:
    """The options that the command line gives; --critic is that of the `model`."""
    found = {name: GIVEN[name].value for name in OPTIONS if GIVEN[name].value is not None}
    if GIVEN["critic"].value:
        found["critic"] = model.load_critic(GIVEN["critic"].value)
    return found


def switched_on() -> dict[str, Any]:
    """The flags of the command line that are switched on, with their values."""
    found = {name: GIVEN[name].value for name in GIVEN if GIVEN[name].present}
    off = {"best_of": 1}
    return {
        name: value
        for name, value in found.items()
        if value is not None and value is not False and value != off.get(name, [])
    }


def write(
    model: Any, output: AnyPath, videos: Any, texts: Sequence[str | None], options: dict[str, Any]
) -> None:
    """Writes a sample of every text with how it was made, and says so."""
    from phenaki.io import sample_files

    facts = provenance(model, options)
    scale = GIVEN["scale"].value
    names = sample_files.write(output, videos, texts, model.spec.fps, scale, facts)
    for name, video, text in zip(names, videos, texts, strict=True):
        print(f"{output}/{name}: {len(video)} frames, {text or '(no text)'}")


def provenance(model: Any, options: dict[str, Any]) -> dict[str, Any]:
    """What a sample of this call depends on besides its prompt, and the call itself."""
    from phenaki.sampling.options import resolve

    return {
        "phenaki": __version__,
        "model": model.fingerprint,
        "seed": GIVEN["seed"].value,
        "options": resolve(model.defaults, **options).facts(),
        "command": shlex.join(sys.argv),
    }


def note(sentence: str) -> None:
    """Says on stderr what differs from what was asked."""
    print(f"note: {sentence}", file=sys.stderr)


def is_cut(model: Any) -> Any:
    """Texts -> whether the model's text encoder cuts the end of each."""
    if model.vocabulary is None:
        return lambda texts: [False] * len(texts)
    return model.vocabulary.is_cut


def overridden_preset(model: Any, given: Any) -> list[str]:
    """A sentence if the options `given` override all of --preset."""
    name = GIVEN["preset"].value
    preset = model.defaults.presets.get(name, {})
    if name and preset.keys() <= set(given):
        return [f"--preset={name} has no effect: other flags give all of its options."]
    return []
