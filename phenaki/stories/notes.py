"""Where the video of a story will differ from what was asked, a sentence each."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

from phenaki.data import batches
from phenaki.data.shapes import captions
from phenaki.sampling.options import SamplingOptions
from phenaki.sampling.windows import Window, segments
from phenaki.stories.storyboard import Shot

STRONG = 30.0  # guidance without a bound that is a slip
MANY = 1000  # windows of a story, more than ten minutes, that may be a slip
NAMED = 6  # words that a sentence has at most

IsCut = Callable[[Sequence[str]], Any]  # whether the text encoder cuts the end of each text
AboutText = Callable[[str], list[str]]  # the sentences on a text


def about_text(is_cut: IsCut | None, words: Collection[str] | None) -> AboutText:
    """Notes texts whose end is cut, or with words that are none of the `words` of all captions.

    None of `is_cut` or `words`: nothing is known of that.
    """

    def about(text: str) -> list[str]:
        found = []
        if is_cut is not None and is_cut([text])[0]:
            found.append(f"the text encoder cuts the end of {text!r}.")
        given = dict.fromkeys(text.replace(",", " ").split())
        strange = [word for word in given if words is not None and word not in words]
        if strange:
            named = ", ".join(map(repr, strange[:NAMED])) + ", ..." * (len(strange) > NAMED)
            found.append(f"the model was trained on no caption with {named}: {text!r}.")
        return found

    return about


def about_model(model: Any) -> AboutText:
    """`about_text` of a `Phenaki`; only of moving shapes the words of all captions are known."""
    is_cut = None if model.vocabulary is None else model.vocabulary.is_cut
    world = batches.known_world(model)
    return about_text(is_cut, None if world is None else captions.words(world))


def of_texts(prompts: Sequence[str | None], chosen: SamplingOptions, about: AboutText) -> list[str]:
    """The sentences on every prompt and negative text."""
    texts = dict.fromkeys(text for text in [*prompts, *chosen.texts()] if text)
    return [sentence for text in texts for sentence in about(text)]


def of_options(
    chosen: Sequence[SamplingOptions], given: Sequence[str], has_text: bool
) -> list[str]:
    """A sentence for every option that was `given` and has no effect.

    `chosen` are the options of all windows: those after the first may have others.
    """
    reasons = [options.without_effect(given, has_text) for options in chosen]
    found = [
        f"{name} has no effect: {reason}."
        for name, reason in reasons[0].items()
        if all(name in others for others in reasons)
    ]
    unguided = [x for x in chosen if has_text and x.guidance and not x.guided_steps()]
    if "steps" in given and unguided:
        interval = ",".join(f"{end:g}" for end in unguided[0].guidance_interval)
        found.append(
            f"steps={unguided[0].steps} guides no step: guidance_interval={interval} holds none."
        )
    return found + (_guidance(chosen) if has_text else [])


def _guidance(chosen):
    """Sentences on a guidance that nobody wants."""
    found = []
    for options in {x.guidance: x for x in chosen}.values():
        if options.guidance < 0:
            found.append(f"guidance={options.guidance:g} leads away from the prompt; 0 is none.")
        if options.guidance > STRONG and not options.guidance_limit:
            found.append(
                f"guidance={options.guidance:g} breaks frames: the paper's strongest is 12; "
                "guidance_limit bounds what it adds."
            )
    return found


def of_story(
    shots: Sequence[Shot],
    plan: Sequence[Window],
    chosen: Sequence[Sequence[SamplingOptions]],
    fps: float,
    about: AboutText,
    has_text: bool,
) -> list[str]:
    """All sentences of a story, `plan` its windows and `chosen` the options of each shot's."""
    scenes: dict[str, list[int]] = {}  # by sentence
    for number, (shot, options) in enumerate(zip(shots, chosen, strict=True), 1):
        given = [name for name, value in shot.sampler.items() if value is not None]
        found = _length(shot, [w for w in plan if w.scene == number - 1], fps)
        found += of_texts([shot.prompt], options[0], about)
        for sentence in found + of_options(options, given, has_text):
            scenes.setdefault(sentence, []).append(number)
    result = [_scenes(sentence, numbers) for sentence, numbers in scenes.items()]
    return result + _equal_starts(shots, chosen) + _total(shots, plan, fps)


def _scenes(sentence, numbers):
    colon = "" if sentence.startswith("asks") else ":"
    if len(numbers) == 1:
        return f"scene {numbers[0]}{colon} {sentence}"
    names = ", ".join(map(str, numbers[:NAMED]))
    more = f" and {len(numbers) - NAMED} more" if len(numbers) > NAMED else ""
    return f"each of scenes {names}{more}{colon} {sentence}"


def _length(shot, windows, fps):
    asked, frames = shot.seconds * fps, windows[-1].stop - windows[0].start
    changed = abs(asked - frames) > 1 - 1e-6
    if not changed and (len(windows) > 1 or asked >= frames):
        return []
    count = "one window" if len(windows) == 1 else f"{len(windows)} windows"
    return [f"asks for {shot.seconds:g} s and lasts {frames / fps:g} s, {count}."]


def _equal_starts(shots, chosen):
    """Scenes after a hard cut that begin with the same clip: seeds count from the cut."""
    first: dict[tuple, int] = {}
    found = []
    for number, (shot, (options, *_)) in enumerate(zip(shots, chosen, strict=True), 1):
        if shot.cut or number == 1:
            key = (shot.prompt, shot.seed, shot.image, repr(options.facts()))
            before = first.setdefault(key, number)
            if before != number:
                found.append(
                    f"scene {number} starts with the clip of scene {before}: both have the same "
                    "prompt, seed and options; give one a seed."
                )
    return found


def _total(shots, plan, fps):
    asked, frames = sum(shot.seconds for shot in shots), segments(plan)[-1][1]
    longest = max(window.stop - window.start for window in plan)
    long = []
    if len(plan) > MANY:
        long = [f"the story has {len(plan):,} windows, {frames / fps / 3600:,.1f} hours of video."]
    if abs(asked * fps - frames) < longest:
        return long
    return [*long, f"the story lasts {frames / fps:g} s; its scenes ask for {asked:g} s."]
