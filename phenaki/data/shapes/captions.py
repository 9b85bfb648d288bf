"""Captions of moving-shapes clips and images, by templates."""

import functools

import numpy as np

from phenaki.data.shapes.attributes import ClipAttributes, uniform, wanders
from phenaki.data.shapes.world import World, palette

SINGLE = (
    "a {object} moves {direction}",
    "a {object} is moving {direction}",
    "the {object} moves {direction} on a {background} background",
    "a {object} goes {direction}",
)
AND = "a {object} moves {direction} and a {other} moves {other_direction}"
THEN = (
    "a {object} moves {direction}, then a {next} moves {next_direction}",
    "then a {next} moves {next_direction}",
)
IMAGE = ("a {object} on a {background} background", "a picture of a {object}", "a {object}")


def words(world: World) -> set[str]:
    """Every word of the captions of a `world`, of clips and images."""
    sizes = world.sizes if len(world.sizes) > 1 else ()
    names = {*palette(world), *world.shapes, *world.directions, *world.backgrounds, *sizes}
    clips = (*SINGLE * (world.pair < 1), *(AND,) * (world.pair > 0), *THEN * (world.then > 0))
    templates = " ".join((*clips, *IMAGE)).replace(",", " ").split()
    return names | {word for word in templates if not word.startswith("{")}


def name(world: World, clips: ClipAttributes, row: int, leg: int, colour: bool = True) -> str:
    """ "large red circle", optionally without colour; with a size if the world has several."""
    words = [palette(world)[clips.colour[row, leg]]] * colour
    words.append(world.shapes[clips.shape[row, leg]])
    return " ".join([world.sizes[clips.size[row]]] * (len(world.sizes) > 1) + words)


def _object(world: World, clips: ClipAttributes, row: int, leg: int, nameless: np.ndarray) -> str:
    colour = palette(world)[clips.colour[row, leg]]
    return name(world, clips, row, leg, not nameless[row] and colour not in world.unnamed)


def of_videos(world: World, split: str, indices: np.ndarray, clips: ClipAttributes) -> list[str]:
    """Captions of the clips `indices` of `split`, whose attributes are `clips`."""
    random = functools.partial(uniform, world, split, indices)
    wandering = wanders(world, split, indices, clips.then)
    nameless, which, sized = random(25) < world.nameless, random(7), random(8) >= 0.5
    captions = []
    for row in range(len(which)):
        words = dict(
            object=_object(world, clips, row, 0, nameless),
            direction=world.directions[clips.direction[row, 0]],
            next=_object(world, clips, row, 1, nameless),
            next_direction=world.directions[clips.direction[row, 1]],
            background=world.backgrounds[clips.background[row]],
        )
        differs = words["object"] != words["next"] or words["direction"] != words["next_direction"]
        templates: tuple[str, ...] = SINGLE + THEN[1:] if clips.then[row] else SINGLE
        if wandering[row]:  # the first window of a story never starts so
            templates = THEN[1:]
        elif differs:
            templates = THEN
        template = templates[int(which[row] * len(templates))]
        other = clips.other
        if other is not None and clips.pair is not None and clips.pair[row]:
            template = AND
            words["other"] = _object(world, other, row, 0, nameless)
            words["other_direction"] = world.directions[other.direction[row, 0]]
        if not sized[row]:  # half of the captions: prompts need not name sizes
            words = {k: w.removeprefix("small ").removeprefix("large ") for k, w in words.items()}
        captions.append(template.format(**words))
    return captions


def of_images(world: World, split: str, indices: np.ndarray, clips: ClipAttributes) -> list[str]:
    """Captions of the images `indices` of `split`, whose attributes are `clips`."""
    which = (uniform(world, split, indices, 32) * len(IMAGE)).astype(int)
    return [
        IMAGE[k].format(
            object=name(world, clips, row, 0), background=world.backgrounds[clips.background[row]]
        )
        for row, k in enumerate(which)
    ]
