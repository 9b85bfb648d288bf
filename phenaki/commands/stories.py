"""Stories from the command line: of --scene or of a --story file, rendered to --output."""

import dataclasses
import functools
from typing import Any

from absl import flags

from phenaki.commands import sampling_flags
from phenaki.commands.sampling_flags import value
from phenaki.errors import UserError
from phenaki.io import artifacts, outputs, paths, shipped, takes
from phenaki.io.clean_text import clean
from phenaki.progress import Progress


def scenes() -> list[tuple[str, float]]:
    """(prompt, seconds) of every --scene.

    Raises:
        UserError: one is not TEXT@SECONDS.
    """
    return [_scene(text) for text in value("scene")]


def _scene(text):
    prompt, _, seconds = text.rpartition("@")
    try:
        found = clean(prompt), float(seconds)
    except ValueError:
        raise UserError(
            f"--scene={text!r}: must be TEXT@SECONDS, such as 'a red circle moves left@1.5'."
        ) from None
    if found[0] is None:
        sampling_flags.note(f"--scene={text!r}: is a scene without text.")
    return found


def inputs() -> list[tuple[str, Any]]:
    """The file of --story, by the name of its flag."""
    story = value("story")
    return [("story", shipped.find(story, shipped.STORIES) if story else None)]


def tell(
    model: Any, scenes: list[tuple[str, float]], output: paths.AnyPath, given: dict[str, Any]
) -> None:
    """Samples and writes the story of --story, or of `scenes`, with the options `given`."""
    storyboard, plan = _storyboard(model, scenes, given)
    facts = sampling_flags.provenance(model, given)
    _story(model, storyboard, plan, output, facts)


def _storyboard(model, scenes, given):
    """The story of --story or --scene and its windows; its options go before those of flags."""
    from phenaki.sampling.windows import check_context, windows
    from phenaki.stories import notes, shot_options, storyboard

    seed, context = value("seed"), value("context")
    if context is None:
        context = model.context
    else:
        check_context(model.spec, context, "--context")
    if value("story"):
        story = storyboard.read(value("story"), model.spec, context, seed)
    else:
        shots = [storyboard.Shot(prompt, seconds, seed=seed) for prompt, seconds in scenes]
        story = storyboard.Storyboard(shots, context)
    plan = windows(story.shots, model.spec, story.context)
    shots, options = shot_options.given(
        model.defaults, model.check_texts, story.shots, given, plan, preview=value("preview")
    )
    shots = _rerolled(story.shots, shots)
    about = notes.about_model(model)
    for sentence in [
        *_overridden(model, story, given),
        *notes.of_story(shots, plan, options, model.spec.fps, about, model.has_text),
    ]:
        sampling_flags.note(sentence)
    return dataclasses.replace(story, shots=shots), plan


def _overridden(model, story, given):
    """A sentence for every flag whose option all scenes of the `story` set themselves."""
    names = [name for name in given if all(name in shot.sampler for shot in story.shots)]
    names += ["seed"] if story.own_seeds and flags.FLAGS["seed"].present else []
    found = [f"--{name} has no effect: every scene of the story sets {name}." for name in names]
    if value("context") not in (None, story.context):
        found.append("--context has no effect: the story sets context.")
    return found + sampling_flags.overridden_preset(model, given)


def _rerolled(own, shots):
    """`shots` with the seeds of every --reroll of this and earlier calls; `own` are the file's."""
    from phenaki.stories import rerolls

    path = paths.path(value("output")) / "rerolls.json"
    if value("reroll"):
        rerolls.record(path, own, value("reroll"))
    for sentence in rerolls.notes(path, own):
        sampling_flags.note(sentence)
    return rerolls.reroll(shots, rerolls.read(path))


def _story(model, storyboard, plan, output, facts):
    from phenaki.data import batches
    from phenaki.io import images, media
    from phenaki.stories import drift, generate, render

    spec = model.spec

    @functools.cache
    def read_image(path):
        with paths.local(path) as file:
            return images.read_frame(file, (spec.height, spec.width), sampling_flags.note)

    for shot in storyboard.shots:  # before hours of sampling
        if shot.image is not None:
            read_image(shot.image)
    cache = generate.WindowCache(value("windows") or output / "windows")
    if value("preview"):
        output = output / "preview"
        outputs.admit("output", output, "samples")
        outputs.make("output", output)
    elif (before := artifacts.marked(output / "story_report.json")) is not None:
        _keep(output, render.made(facts, model, storyboard), before.get("made", {}))
    distance, world = drift.distance(value("weights")), batches.known_world(model)
    options = generate.DriftOptions(
        match_colours=value("reanchor"),
        candidates=value("best_of"),
        score=_score(world, distance),
        score_name=value("score"),
    )
    scale = value("scale") or media.scale_to_see(spec.height, spec.width)
    report = render.render(
        model,
        storyboard,
        plan,
        output,
        cache,
        read_image=read_image,
        distance=distance,
        progress=lambda total: Progress(total, "windows"),
        world=world,
        options=options,
        scale=scale,
        facts=facts,
    )
    _print(report, output)


def _keep(output, made, before):
    """Moves the story that is in `output` aside, if `before`, how it was made, is not `made`."""
    from phenaki.stories import render

    if folder := takes.keep(output, render.FILES, made, before):
        sampling_flags.note(f"the story that was in {output} is now in {folder}.")


def _score(world, distance):
    """What --best_of keeps the highest of."""
    if value("score") == "seam":

        def small_seam(context, frames, prompt):
            del prompt
            return 0.0 if context is None else -float(distance[0](context[-1:], frames[:1])[0])

        return small_seam
    from phenaki.stories import prompt_check

    if world is None:
        raise UserError("--score=detector: reads moving shapes only; use --score=seam.")

    def right_attributes(context, frames, prompt):
        before = None if context is None else context[-1]
        verdict = prompt_check.check_window(world, frames, before, prompt)
        return 0.0 if verdict is None else float(sum(verdict.values()))

    return right_attributes


def _print(report, output):
    seconds = report["seconds_of_video"]
    print(
        f"{output}/story.mp4: {report['frames']} frames, {seconds:.1f} s; "
        f"{report['windows_made']} of {report['windows']} windows sampled in "
        f"{report['seconds']:.0f} s"
    )
    if report["seconds_per_second_of_video"]:
        print(f"{report['seconds_per_second_of_video']:.2f} s per second of video")
    memory = report["peak_mb"]
    tenth = f"{memory['tenth']:.0f} after the tenth, " if report["windows"] > 10 else ""
    print(
        f"peak memory: {memory['first']:.0f} MB after the first window, {tenth}"
        f"{memory['last']:.0f} after the last"
    )
    if "windows_right" in report:
        found = dict(report["windows_right"])
        identity = found.pop("identity")
        right = ", ".join(f"{name} {x:.1%}" for name, x in found.items())
        print(f"windows that the detector finds right: {right}")
        print(f"windows whose every frame has the right colour and shape: {identity:.1%}")
