"""Exact text alignment of videos of moving shapes, which a detector reads from the pixels."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from phenaki.data.shapes import attributes, detector, render
from phenaki.data.shapes import world as shapes_world
from phenaki.data.shapes.attributes import Combinations
from phenaki.data.shapes.world import World
from phenaki.evaluation import devices, two_objects
from phenaki.pipeline import Phenaki
from phenaki.sampling.windows import Scene, segments, windows

ATTRIBUTES = ("colour", "shape", "direction", "present", "all", "identity")
SCENES = 3
GROUP = 50  # videos sampled together


@dataclasses.dataclass(frozen=True)
class Prompts:
    """The texts of b prompts, and the combinations that they ask for."""

    texts: list[str]
    combination: Combinations


@dataclasses.dataclass(frozen=True)
class JudgedClips:
    """Videos, their prompts, and the `frames` to judge; `walls` as in `detector.judge`."""

    video: Float[np.ndarray, "b f h w 3"]
    prompts: Prompts
    frames: slice = dataclasses.field(default_factory=lambda: slice(None))
    walls: bool = False

    def verdict(self, world: World) -> detector.Verdict:
        """The detector's verdict."""
        return verdict(world, self.video[:, self.frames], self.prompts, walls=self.walls)

    def shown(self, world: World) -> Combinations:
        """The combination that the frames show, -1 where an attribute is not clear."""
        reading = detector.read(world, self.video[:, self.frames])
        clear = (reading.overlap > detector.PRESENT_IOU) & (reading.colour >= 0)
        colour = _most_frequent(np.where(reading.colour >= 0, reading.colour, -1))
        shape = _most_frequent(np.where(clear, reading.shape, -1))
        steps = np.array([shapes_world.DIRECTIONS[d] for d in world.directions])
        distance = (reading.centre[:, -1] - reading.centre[:, 0]) @ steps.T
        moved = distance.max(1) > 0.5 * world.speed * (reading.centre.shape[1] - 1)
        return np.stack([colour, shape, np.where(moved, distance.argmax(1), -1)], 1)

    def seen(self, world: World) -> Combinations:
        """As `shown`, with the direction that was asked for where the object obeys it.

        Resting at a wall does, too: only the detector knows.
        """
        found = self.shown(world)
        right = self.verdict(world).direction
        found[:, 2] = np.where(right, self.prompts.combination[:, 2], found[:, 2])
        return found


def prompts_of(world: World, combination: Combinations, then: bool = False) -> Prompts:
    """Prompts "a red circle moves left", or "then a ..." for the later scenes of a story."""
    start = "then a" if then else "a"
    texts = [
        f"{start} {shapes_world.palette(world)[c]} {world.shapes[s]} moves {world.directions[d]}"
        for c, s, d in combination
    ]
    return Prompts(texts, combination)


def verdict(
    world: World,
    video: Float[np.ndarray, "b f h w 3"],
    prompts: Prompts,
    frames: slice = slice(None),
    walls: bool = False,
) -> detector.Verdict:
    """Judges the `frames` of videos by their prompts."""
    reading = detector.read(world, video)
    colour, shape, direction = prompts.combination.T
    return detector.judge(world, reading, colour, shape, direction, frames, walls)


def accuracy(verdict: detector.Verdict) -> dict[str, float]:
    """The fraction of clips that are right, by attribute."""
    return {name: float(getattr(verdict, name).mean()) for name in ATTRIBUTES}


def clarity(world: World, video: Float[np.ndarray, "b f h w 3"]) -> dict[str, float]:
    """The fraction of clips with one clear object, by attribute, whatever its attributes are.

    A colour or a shape is clear where most frames show the same one, a direction where the object
    moves in one of the world's: what a sample without text can be judged by.
    """
    reading = detector.read(world, video)
    colour = _most_frequent(np.where(reading.colour >= 0, reading.colour, -1))
    shape = _most_frequent(reading.shape)
    every = [
        detector.judge(world, reading, colour, shape, np.full(len(video), direction))
        for direction in range(len(world.directions))
    ]
    moves = np.any([one.direction for one in every], axis=0)
    return accuracy(dataclasses.replace(every[0], direction=moves))


def confusion(
    world: World, rows: Sequence[JudgedClips]
) -> dict[str, tuple[list[str], list[str], Int[np.ndarray, "n m"]]]:
    """By attribute: (values asked for, values seen, counts [asked, seen]); the last seen is "-".

    Every row of counts sums to how often its value was asked for.
    """
    names = (shapes_world.palette(world), world.shapes, world.directions)
    asked = np.concatenate([row.prompts.combination for row in rows])
    seen = np.concatenate([row.seen(world) for row in rows])
    found = {}
    for index, (attribute, known) in enumerate(zip(ATTRIBUTES[:3], names, strict=True)):
        counts = np.zeros((len(known), len(known) + 1), int)
        np.add.at(counts, (asked[:, index], seen[:, index]), 1)  # -1 is the last column
        found[attribute] = (list(known), [*known, "-"], counts)
    return found


def measure(
    model: Phenaki, world: World, count: int = 200, seed: int = 0, **options: Any
) -> dict[str, dict[str, float]]:
    """Accuracies of `count` unseen clips per row: ceiling, seen, held_out and story.

    And pair, both objects right, where the world has clips with two.

    "ceiling" is ground truth through the tokenizer; "story" is the mean over the scenes of
    three-scene stories. "start_bits" is the entropy of where objects start, on a grid of 4x4 (at
    most 4): a sampler that repeats its easiest sample is accurate and has an entropy close to 0.
    `options` are those of `Phenaki.sample`.
    """
    plain = _plain(world)
    truth = render.render(plain, "test", np.arange(count))
    combination = truth["clips"].combination
    video = _in_groups(
        lambda rows: model.reconstruct(truth["video"][rows].astype(np.float32) / 255), count
    )
    found = {"ceiling": accuracy(verdict(world, video, prompts_of(world, combination)))}
    error = np.mean((video - truth["video"] / 255.0) ** 2)
    found["ceiling"]["psnr"] = float(-10 * np.log10(error))
    for name, split in (("seen", "test"), ("held_out", "held_out")):
        clips = attributes.sample(plain, split, np.arange(count))
        prompts = prompts_of(world, clips.combination)
        video = sample(model, prompts.texts, seed, **options)
        bits = {"start_bits": _start_bits(world, video)}
        found[name] = accuracy(verdict(world, video, prompts)) | bits
    if world.pair:
        pairs = two_objects.prompts(world, "test", count)
        video = sample(model, pairs.texts, seed, **options)
        found["pair"] = accuracy(two_objects.verdict(world, video, pairs))
    scenes = stories(model, world, combination, seed, **options)
    found["story"] = _mean_of_scenes([accuracy(scene.verdict(world)) for scene in scenes])
    return found


def judged_clips(
    model: Phenaki, world: World, count: int = 200, seed: int = 0, **options: Any
) -> dict[str, JudgedClips]:
    """The videos behind the rows of `measure` but the ceiling, with a row per scene of a story.

    With colours that only images show (`World.still_colours`), "stills_only" asks for clips of
    them.
    """
    rows = {}
    for name, split in (("seen", "test"), ("held_out", "held_out"), ("stills_only", "test")):
        combination = attributes.sample(_plain(world), split, np.arange(count)).combination
        if name == "stills_only":
            if not world.still_colours:
                continue
            extra = attributes.uniform(world, "test", np.arange(count), 77)
            combination[:, 0] = len(world.colours) + (extra * len(world.still_colours)).astype(int)
        prompts = prompts_of(world, combination)
        rows[name] = JudgedClips(sample(model, prompts.texts, seed, **options), prompts)
    scenes = stories(model, world, rows["seen"].prompts.combination, seed, **options)
    return rows | {f"scene_{i + 1}": scene for i, scene in enumerate(scenes)}


def sample(
    model: Phenaki,
    texts: Sequence[str | None],
    seed: int,
    negative: Sequence[str] | None = None,
    **options: Any,
) -> Float[np.ndarray, "b f h w 3"]:
    """One video per text, video i of `seed` and i; in groups of one size: they compile once.

    `negative` has a text for each of them, which guidance leads away from.
    """

    def generate(rows):
        prompts = [texts[row] for row in rows]
        away: dict[str, Any] = (
            {} if negative is None else {"negative": [negative[row] for row in rows]}
        )
        return model.generate(prompts, seed=seed, first_row=int(rows[0]), **away, **options)

    return _in_groups(generate, len(texts))


def stories(
    model: Phenaki,
    world: World,
    combination: Combinations,
    seed: int,
    scenes: int = SCENES,
    **options: Any,
) -> list[JudgedClips]:
    """Stories of `scenes` windows that change one attribute, or none, from each to the next.

    A scene is one window. Returns the same films for every scene, with its frames to judge.
    """
    prompts = [prompts_of(world, combination)]
    for scene in range(1, scenes):

        def random(slot, first=100 * scene):
            return attributes.uniform(world, "test", np.arange(len(combination)), first + slot)

        changed = attributes.changed(world, prompts[-1].combination, random)
        prompts.append(prompts_of(world, changed, then=True))
    seconds = [model.spec.frames / model.spec.fps] + [0.1] * (scenes - 1)  # one window each

    def generate(rows):
        told = [
            [Scene(p.texts[row], s) for p, s in zip(prompts, seconds, strict=True)] for row in rows
        ]
        parts = model.story_windows(told, seed=seed, first_row=int(rows[0]), **options)
        return np.concatenate(list(parts), axis=1)

    video = _in_groups(generate, len(combination))
    plan = windows([Scene("", s) for s in seconds], model.spec, model.context)
    return [
        JudgedClips(video, scene, slice(*part), walls=index > 0)
        for index, (scene, part) in enumerate(zip(prompts, segments(plan), strict=True))
    ]


def _in_groups(make, count):
    return devices.in_groups(make, count, min(GROUP, count))


def _plain(world: World) -> World:
    """`world` with one object and one movement per clip, as the prompts say."""
    return dataclasses.replace(world, then=0.0, pair=0.0)


def _most_frequent(x):
    """The most frequent value of each row."""
    values = np.arange(-1, x.max() + 1)
    return values[(x[..., None] == values).sum(1).argmax(1)]


def _mean_of_scenes(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of the scenes' accuracies, and "all" of each scene."""
    mean = {name: float(np.mean([s[name] for s in scores])) for name in ATTRIBUTES}
    return mean | {f"scene_{i + 1}": s["all"] for i, s in enumerate(scores)}


def _start_bits(world, video):
    """Entropy of the first frames' positions, in bits."""
    centre = detector.read(world, video[:, :1]).centre[:, 0]
    cell = np.clip(centre * 4 // world.size, 0, 3).astype(int) @ (4, 1)
    fraction = np.bincount(cell, minlength=16) / len(cell)
    fraction = fraction[fraction > 0]
    return float(-(fraction * np.log2(fraction)).sum())
