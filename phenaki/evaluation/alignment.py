"""How well videos of moving shapes obey their prompts, as numbers read from the pixels."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from phenaki.data.shapes import attributes, detector, render
from phenaki.data.shapes import world as shapes_world
from phenaki.data.shapes.world import World
from phenaki.pipeline import Phenaki
from phenaki.sampling.windows import Scene, segments, windows

ATTRIBUTES = ("colour", "shape", "direction", "present", "all")
CHUNK = 50  # videos sampled together
SCENES = 3


@dataclasses.dataclass(frozen=True)
class Asked:
    """What b prompts ask for, as indices into the world's lists."""

    prompts: list[str]
    combination: np.ndarray  # [b, 3] colour, shape, direction


def ask(world: World, combination: np.ndarray, then: bool = False) -> Asked:
    """Prompts "a red circle moves left", or "then a ..." for the later scenes of a story."""
    start = "then a" if then else "a"
    prompts = [
        f"{start} {shapes_world.palette(world)[c]} {world.shapes[s]} moves {world.directions[d]}"
        for c, s, d in combination
    ]
    return Asked(prompts, combination)


def verdict(
    world: World, video: np.ndarray, asked: Asked, frames=slice(None), walls=False
) -> detector.Verdict:
    """Judges videos [b f h w 3] by what was asked of their frames `frames`."""
    reading = detector.read(world, video)
    colour, shape, direction = asked.combination.T
    return detector.judge(world, reading, colour, shape, direction, frames, walls)


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Videos and what is asked of their frames `frames`; `walls` as in `detector.judge`."""

    video: np.ndarray  # [b f h w 3]
    asked: Asked
    frames: slice = dataclasses.field(default_factory=lambda: slice(None))
    walls: bool = False

    def verdict(self, world: World) -> detector.Verdict:
        """Judged by the detector."""
        return verdict(world, self.video, self.asked, self.frames, self.walls)

    def seen(self, world: World) -> np.ndarray:
        """[b, 3] the colour, shape and direction that the frames show, -1 where none is clear."""
        reading = detector.read(world, self.video[:, self.frames])
        clear = (reading.overlap > detector.PRESENT_IOU) & (reading.colour >= 0)
        colour = _most(np.where(reading.colour >= 0, reading.colour, -1))
        shape = _most(np.where(clear, reading.shape, -1))
        steps = np.array([shapes_world.DIRECTIONS[d] for d in world.directions])
        along = (reading.centre[:, -1] - reading.centre[:, 0]) @ steps.T
        best = along.argmax(1)
        far = along.max(1) > 0.5 * world.speed * (reading.centre.shape[1] - 1)
        # At a wall, resting is right: only the detector knows.
        right = self.verdict(world).direction
        direction = np.where(right, self.asked.combination[:, 2], np.where(far, best, -1))
        return np.stack([colour, shape, direction], 1)


def _most(x):
    """The most frequent value of each row."""
    values = np.arange(-1, x.max() + 1)
    return values[(x[..., None] == values).sum(1).argmax(1)]


def confusion(world: World, rows: Sequence[Evidence]) -> dict[str, tuple[list, list, np.ndarray]]:
    """By attribute: (what was asked, what was seen, counts [asked, seen]); the last column is "-".

    Every row of counts sums to how often its value was asked for.
    """
    names = (shapes_world.palette(world), world.shapes, world.directions)
    asked = np.concatenate([row.asked.combination for row in rows])
    seen = np.concatenate([row.seen(world) for row in rows])
    found = {}
    for index, (attribute, known) in enumerate(zip(ATTRIBUTES[:3], names, strict=True)):
        counts = np.zeros((len(known), len(known) + 1), int)
        np.add.at(counts, (asked[:, index], seen[:, index]), 1)  # -1 is the last column
        found[attribute] = (list(known), [*known, "-"], counts)
    return found


def shares(verdict: detector.Verdict) -> dict[str, float]:
    """Share of clips, 0..1, that are right in each attribute."""
    return {name: float(getattr(verdict, name).mean()) for name in ATTRIBUTES}


def measure(
    model: Phenaki, world: World, count: int = 200, seed: int = 0, **sampler
) -> dict[str, dict]:
    """Scores of `count` unseen seeds per row: ceiling, seen, held_out and story.

    "ceiling" is ground truth through the tokenizer; "story" counts every scene of three-scene
    stories as one. "start_bits" is the entropy of where objects start, on a grid of 4x4 (at most
    4): a sampler that repeats its easiest sample scores well there and here close to 0.
    """
    plain = dataclasses.replace(world, then=0.0, pair=0.0)
    truth = render.render(plain, "test", np.arange(count))
    combination = _combination(truth["clips"])
    video = _chunks(
        lambda rows: model.reconstruct(truth["video"][rows].astype(np.float32) / 255), count
    )
    rows = {"ceiling": shares(verdict(world, video, ask(world, combination)))}
    rows["ceiling"]["psnr"] = float(-10 * np.log10(np.mean((video - truth["video"] / 255.0) ** 2)))
    for name, split in (("seen", "test"), ("held_out", "held_out")):
        asked = ask(world, _combination(attributes.sample(plain, split, np.arange(count))))
        video = sample(model, asked, seed, **sampler)
        rows[name] = shares(verdict(world, video, asked)) | {
            "start_bits": _start_bits(world, video)
        }
    rows["story"] = _stories(model, world, combination, seed, **sampler)
    return rows


def sample(model: Phenaki, asked: Asked, seed: int, **sampler) -> np.ndarray:
    """One video per prompt."""

    def make(rows):
        return model.generate(asked.prompts[rows], seed=seed + rows.start, **sampler)

    return _chunks(make, len(asked.prompts))


def _combination(clips):
    return np.stack([clips.colour[:, 0], clips.shape[:, 0], clips.direction[:, 0]], -1)


def _chunks(make, count):
    """make(rows) of `count` rows, in groups of one size: they compile once."""
    size = min(CHUNK, count)
    parts = [make(slice(start, start + size)) for start in range(0, count - size + 1, size)]
    if rest := count % size:
        parts.append(make(slice(count - size, count))[-rest:])
    return np.concatenate(parts)


def _stories(model, world, combination, seed, **sampler):
    """Scores of `stories`, the mean of scenes and "all" of each."""
    scores = [
        shares(scene.verdict(world))
        for scene in stories(model, world, combination, seed, **sampler)
    ]
    mean = {name: float(np.mean([s[name] for s in scores])) for name in ATTRIBUTES}
    return mean | {f"scene_{i + 1}": s["all"] for i, s in enumerate(scores)}


def stories(model, world, combination, seed, **sampler) -> list[Evidence]:
    """Stories that change one attribute per scene; every scene is a segment to judge."""
    asked = [ask(world, combination)]
    for scene in range(1, SCENES):

        def random(slot, first=100 * scene):
            return attributes.uniform(world, "test", np.arange(len(combination)), first + slot)

        asked.append(
            ask(world, attributes.changed(world, asked[-1].combination, random), then=True)
        )
    seconds = [model.spec.frames / model.spec.fps] + [0.1] * (SCENES - 1)  # one window each
    parts = segments(
        windows([Scene("", s) for s in seconds], model.spec, model.config.sample.context)
    )

    def make(rows):
        scenes = zip(
            *([Scene(p, s) for p in a.prompts[rows]] for a, s in zip(asked, seconds, strict=True)),
            strict=True,
        )
        return np.concatenate(
            list(model.story_windows(list(scenes), seed=seed + rows.start, **sampler)), axis=1
        )

    video = _chunks(make, len(combination))
    return [
        Evidence(video, a, slice(*part), walls=index > 0)
        for index, (a, part) in enumerate(zip(asked, parts, strict=True))
    ]


def evidence(
    model: Phenaki, world: World, count: int = 200, seed: int = 0, **sampler
) -> dict[str, Evidence]:
    """The videos behind `measure`'s rows but the ceiling, a row per scene of a story.

    With colours that only stills show (`World.still_colours`), "stills_only" asks for them to move.
    """
    plain = dataclasses.replace(world, then=0.0, pair=0.0)
    rows = {}
    for name, split in (("seen", "test"), ("held_out", "held_out"), ("stills_only", "test")):
        combination = _combination(attributes.sample(plain, split, np.arange(count)))
        if name == "stills_only":
            if not world.still_colours:
                continue
            extra = attributes.uniform(world, "test", np.arange(count), 77)
            combination[:, 0] = len(world.colours) + (extra * len(world.still_colours)).astype(int)
        asked = ask(world, combination)
        rows[name] = Evidence(sample(model, asked, seed, **sampler), asked)
    told = stories(model, world, rows["seen"].asked.combination, seed, **sampler)
    return rows | {f"scene_{i + 1}": scene for i, scene in enumerate(told)}


def _start_bits(world, video):
    centre = detector.read(world, video[:, :1]).centre[:, 0]
    cell = np.clip(centre * 4 // world.size, 0, 3).astype(int) @ (4, 1)
    share = np.bincount(cell, minlength=16) / len(cell)
    return float(-(share[share > 0] * np.log2(share[share > 0])).sum())
