"""What a student learns from: its teacher's samples, each with the z that is to draw it.

Not in the paper: see docs/sampling.md#student.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from phenaki.data import batches
from phenaki.data.shapes import attributes
from phenaki.errors import UserError
from phenaki.evaluation import alignment, two_objects
from phenaki.features import resize
from phenaki.io.clean_text import clean, read_lines
from phenaki.pipeline import Phenaki
from phenaki.progress import Progress

POOLED = 8  # rows and columns of the images by which clips are compared
LATER = 2  # windows after the first, of a story


@dataclasses.dataclass(frozen=True)
class Prompts:
    """Texts of first windows and of later ones, and which text may follow which."""

    first: list[str]
    later: list[str]
    after: Callable[[Int[np.ndarray, " b"], np.random.Generator], Int[np.ndarray, " b"]]


class Pairs(NamedTuple):
    """e clips of the teacher."""

    tokens: Int[np.ndarray, "e s"]
    latents: Float[np.ndarray, "e z"]
    given: Int[np.ndarray, " e"]  # how many tokens, the first ones, are given: 0 in first windows
    text: Int[np.ndarray, " e"]  # index into the texts, those of `Prompts.first` then `.later`


def prompts_of(model: Phenaki, count: int, file: str = "") -> Prompts:
    """Up to `count` prompts: those of `file`, one a line, or what the `model` was trained on.

    Of moving shapes these are the combinations that it saw, and as often as in its clips two
    objects; of other data, captions of its clips.
    """
    world = batches.known_world(model)
    if not file and world is not None:
        return _of_shapes(world, count)
    if file:
        lines = read_lines(file)
    else:
        lines = [clean(text) or "" for text in batches.first(model.config, 4 * count)[1]]
    texts = list(dict.fromkeys(filter(None, lines)))[:count]
    if not texts:
        where = f"--prompts={file}: has" if file else "--prompts: the model's data have"
        raise UserError(f"{where} no text; give a file with one prompt a line.")

    def after(index, random):
        other = random.integers(len(texts), size=len(index))
        return np.where(random.random(len(index)) < 0.5, other, index)

    return Prompts(texts, texts, after)


def _of_shapes(world, count):
    seen, _ = world.combinations
    count = int(min(count, len(seen) / max(1 - world.pair, 1e-9)))
    both = round(world.pair * count)
    drawn = two_objects.prompts(world, "train", 4 * both).texts if both else []
    drawn = list(dict.fromkeys(drawn))[:both]
    seen = seen[np.linspace(0, len(seen) - 1, count - both).astype(int)]
    number = {tuple(row): index for index, row in enumerate(seen.tolist())}

    def after(index, random):
        one, result = index < len(seen), index.copy()  # two objects move on
        own = index[one]
        changed = attributes.changed(world, seen[own], lambda slot: random.random(len(own)))
        # One that is not among the prompts: the same one continues.
        found = np.array([number.get(tuple(row), -1) for row in changed.tolist()], int)
        result[one] = np.where(found < 0, own, found)
        return result

    first, later = (alignment.prompts_of(world, seen, then=then).texts for then in (False, True))
    return Prompts(first + drawn, later + drawn, after)


def make(
    model: Phenaki, prompts: Prompts, *, each: int, stories: int, size: int, seed: int
) -> Pairs:
    """`each` samples of every prompt with z of `size`, and later windows of `stories` stories.

    Both are by the model's own sampler. Within a prompt z is normal, and near z belong to clips
    that look alike (`latents_of`).
    """
    count, random = len(prompts.first), np.random.default_rng(seed)
    later = LATER if model.spec.frames > model.context else 0
    groups = -(-stories // each)
    tokens, looks, ends = [], [], []
    with Progress(count + later * groups, "samples of the teacher") as progress:
        for number, text in enumerate(prompts.first):
            clips = model.sample([text] * each, seed=seed, first_row=number * each, progress=False)
            tokens.append(clips.tokens.reshape(each, -1))
            looks.append(_pooled(clips.video))
            # A copy: a view would keep all the clips.
            ends.append(clips.video[: -(-stories // count), -model.context :].copy())
            progress.update()
        points = principal(np.stack(looks), size)
        latents = [latents_of(own, random) for own in points]
        index = np.repeat(np.arange(count), each)
        parts = [Pairs(np.concatenate(tokens), np.concatenate(latents), 0 * index, index)]
        if later and stories:
            shown, last = np.repeat(np.arange(count), len(ends[0])), np.concatenate(ends)
            order = np.resize(random.permutation(len(shown)), groups * each)
            for rows in np.split(order, groups):
                call: Any = dict(given=last[rows], shown=shown[rows], random=random, size=size)
                parts += _later(model, prompts, **call, progress=progress)
    return Pairs(*map(np.concatenate, zip(*parts, strict=True)))


def _later(model, prompts, given, shown, random, size, progress):
    """The windows after the frames `given`, of which `shown` are the prompts."""
    _, rows, columns = model.spec.grid()
    known = model.spec.grid(model.context)[0] * rows * columns
    for _ in range(LATER):
        shown = prompts.after(shown, random)
        texts, seed = [prompts.later[index] for index in shown], int(random.integers(2**31))
        clips = model.sample(texts, seed=seed, video=given, progress=False)
        given = clips.video[:, -model.context :]
        progress.update()
        latents = random.normal(size=(len(shown), size)).astype(np.float32)
        tokens = clips.tokens.reshape(len(shown), -1)
        text = len(prompts.first) + shown
        yield Pairs(tokens, latents, np.full(len(shown), known), text)


def _pooled(video: Float[np.ndarray, "n f h w 3"]) -> Float[np.ndarray, "n p"]:
    """The light of the first, middle and last frame in few pixels: what a clip looks like."""
    # Colour is left out: most of it is the prompt's, and what differs within a prompt, such as
    # where things are, would have other directions with every colour.
    shown = video[:, [0, video.shape[1] // 2, -1]].mean(-1, keepdims=True)
    return resize.area(shown, (POOLED, POOLED)).reshape(len(video), -1)


def principal(looks: Float[np.ndarray, "p n d"], size: int) -> Float[np.ndarray, "p n z"]:
    """The `size` principal components of what clips of a prompt differ in, by rank.

    The directions are those of all prompts together, so that z means the same with all of them.
    Within a prompt every component has the quantiles of N(0, 1).
    """
    apart = looks - looks.mean(1, keepdims=True)
    flat = apart.reshape(-1, apart.shape[-1]).astype(np.float64)
    directions = np.linalg.eigh(flat.T @ flat)[1][:, ::-1][:, :size]
    ranks = (apart @ directions).argsort(1).argsort(1)
    return _quantiles((ranks + 0.5) / looks.shape[1])


def normal_points(count: int, size: int, random: np.random.Generator) -> Float[np.ndarray, "n z"]:
    """Points that fill N(0, I) evenly: fewer gaps than random ones have."""
    from scipy.stats import qmc

    whole = int(np.ceil(np.log2(max(count, 2))))
    return _quantiles(qmc.Sobol(size, rng=random).random_base2(whole)[:count])


def _quantiles(fractions):
    from scipy.stats import norm

    return norm.ppf(np.clip(fractions, 1e-4, 1 - 1e-4)).astype(np.float32)


def couple(
    points: Float[np.ndarray, "n z"], latents: Float[np.ndarray, "n z"]
) -> Float[np.ndarray, "n z"]:
    """`latents` in the order in which their rows are nearest to `points`: optimal transport."""
    from scipy.optimize import linear_sum_assignment

    distance = np.square(points[:, None] - latents[None]).sum(-1)
    return latents[linear_sum_assignment(distance)[1]]


def latents_of(
    points: Float[np.ndarray, "n z"], random: np.random.Generator
) -> Float[np.ndarray, "n z"]:
    """z of the clips of a prompt, whose components are `points`: half way to coupled normal points.

    Components alone have gaps, such as between two backgrounds, into which z of N(0, I) would fall;
    coupled points have none, but say little about the clip: neighbours are 3 pixels apart where
    there are 200 clips of a prompt. Half way the gaps are closed, and clips that look alike remain
    neighbours.
    """
    latents = (points + couple(points, normal_points(len(points), points.shape[1], random))) / 2
    return latents / np.maximum(latents.std(0), 1e-6)
