"""The flags that several commands of sampling have, and the options of sampling that they give."""

import shlex
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from phenaki import __version__, cli
from phenaki.errors import UserError
from phenaki.io import shipped
from phenaki.io.paths import AnyPath
from phenaki.schema import sampling as schema
from phenaki.schema.rules import Choice, Either, Field, Interval, Number, OrNone

flags.disclaim_key_flags()  # they are of the command that defines them
# Of `phenaki.sampling.options`, by the names of flags; --critic is loaded for the model.
OPTIONS = (
    "steps", "guidance", "guidance_schedule", "guidance_limit", "guidance_min_p",
    "guidance_interval", "choice_temperature", "negative", "temperature", "top_k", "top_p", "min_p",
    "order", "view", "schedule", "critic_guidance", "critic_noise", "preset",
)  # fmt: skip


def define_model() -> None:
    """Defines what every command of sampling needs."""
    flags.declare_key_flag(cli.NO_VERIFY.name)
    flags.DEFINE_string(
        "model",
        None,
        "a bundle, the --workdir of train_maskgit.py, or laptop or shapes64, as released",
        required=True,
    )
    flags.DEFINE_string("output", None, "folder for what is written", required=True)
    flags.DEFINE_integer("seed", 0, "same seed, same video", lower_bound=0, upper_bound=2**64 - 1)
    flags.DEFINE_integer("scale", None, "enlarge pixels; default: to about 256", lower_bound=1)


def define_options() -> None:
    """Defines the sampler's options; the default of each is the model's."""
    for name in OPTIONS:
        if name in schema.OPTIONS:
            _define(name, schema.OPTIONS[name])
    flags.DEFINE_string("preset", None, "named options of the model's config")
    flags.DEFINE_string("critic", None, "the --workdir of train_critic.py")
    flags.DEFINE_string("student", None, "the --output of train_student.py, for --steps=1 or 2")


def _define(name: str, field: Field) -> None:
    """Defines the flag of a sampling option by its rule."""
    rule = field.rule
    if isinstance(rule, Choice):
        flags.DEFINE_enum(name, None, list(rule.names), field.meaning)
    elif isinstance(rule, Interval):
        flags.DEFINE_list(name, None, f"{field.meaning}, such as 0,0.25")
    elif isinstance(rule, OrNone):
        flags.DEFINE_string(name, None, field.meaning)
    else:
        number = rule.one if isinstance(rule, Either) else rule
        assert isinstance(number, Number)
        define: Any = flags.DEFINE_integer if number.whole else flags.DEFINE_float
        define(name, None, field.meaning, lower_bound=number.least, upper_bound=number.most)


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


def value(name: str) -> Any:
    """The value of a flag of the command line, or its default."""
    return flags.FLAGS[name].value


def inputs() -> list[tuple[str, Any]]:
    """The folders that every command of sampling reads, by the names of their flags."""
    given = {name: value(name) for name in ("model", "critic", "student")}
    return [(name, path and shipped.find(path, shipped.MODELS)) for name, path in given.items()]


def options(model: Any) -> dict[str, Any]:
    """The options that the command line gives; --critic and --student are those of the `model`.

    Raises:
        UserError: --guidance_interval is not two numbers.
    """
    found = {name: value(name) for name in OPTIONS if value(name) is not None}
    if "guidance_interval" in found:
        found["guidance_interval"] = _interval(found["guidance_interval"])
    if value("critic"):
        found["critic"] = model.load_critic(value("critic"))
    if value("student"):
        found["student"] = model.load_student(value("student"))
    return found


def _interval(given: Sequence[str]) -> tuple[float, ...]:
    """The numbers of --guidance_interval, whose order and range the options check."""
    try:
        return tuple(float(end) for end in given)
    except ValueError:
        raise UserError(
            f"--guidance_interval={','.join(given)} must be two numbers, such as 0,0.25."
        ) from None


def switched_on() -> dict[str, Any]:
    """The flags of the command line that are switched on, with their values."""
    found = {name: value(name) for name in flags.FLAGS if flags.FLAGS[name].present}
    off = {"best_of": 1}
    return {
        name: given
        for name, given in found.items()
        if given is not None and given is not False and given != off.get(name, [])
    }


def write(
    model: Any, output: AnyPath, videos: Any, texts: Sequence[str | None], options: dict[str, Any]
) -> None:
    """Writes a sample of every text with how it was made, and says so."""
    from phenaki.io import sample_files

    facts = provenance(model, options)
    scale = value("scale")
    names = sample_files.write(output, videos, texts, model.spec.fps, scale, facts)
    for name, video, text in zip(names, videos, texts, strict=True):
        print(f"{output}/{name}: {len(video)} frames, {text or '(no text)'}")


def provenance(model: Any, options: dict[str, Any]) -> dict[str, Any]:
    """What a sample of this call depends on besides its prompt, and the call itself."""
    from phenaki.sampling.options import facts

    return {
        "phenaki": __version__,
        "model": model.fingerprint,
        "seed": value("seed"),
        "options": facts(model.defaults, **options),
        "command": shlex.join(sys.argv),
    }


def note(sentence: str) -> None:
    """Says on stderr what differs from what was asked."""
    print(f"note: {sentence}", file=sys.stderr)


def overridden_preset(model: Any, given: Any) -> list[str]:
    """A sentence if the options `given` override all of --preset."""
    name = value("preset")
    preset = model.defaults.presets.get(name, {})
    if name and preset.keys() <= set(given):
        return [f"--preset={name} has no effect: other flags give all of its options."]
    return []
