"""Do the scenes of a told story show what their prompts say? For models of moving shapes."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from phenaki.data.shapes.world import World, palette
from phenaki.evaluation import alignment
from phenaki.evaluation.alignment import ATTRIBUTES, Asked


def asked(world: World, prompt: str | None) -> Asked | None:
    """What a prompt asks for in the end; None if it does not name a colour, shape and direction."""
    words = (prompt or "").replace(",", " ").split()
    found = []
    for names in (palette(world), world.shapes, world.directions):
        named = [names.index(word) for word in words if word in names]
        if not named:
            return None
        found.append(named[-1])  # "a red circle moves up, then a blue circle moves up"
    return Asked([str(prompt)], np.array([found]))


def window(
    world: World,
    frames: Float[np.ndarray, "f h w 3"],
    before: Float[np.ndarray, "h w 3"] | None,
    prompt: str | None,
) -> dict[str, bool] | None:
    """Whether a window's new frames obey its prompt, by attribute; None for other prompts.

    `before`, the last frame shown, is where the first step of a movement starts from. An object
    that rests at the wall it was sent to is right, too.
    """
    wanted = asked(world, prompt)
    if wanted is None:
        return None
    video = frames if before is None else np.concatenate([before[None], frames])
    shown = slice(None) if before is None else slice(1, None)
    still = alignment.verdict(world, video[None], wanted, shown, walls=True)
    moved = alignment.verdict(world, video[None], wanted, walls=True)
    rest = {name: bool(getattr(still, name)[0]) for name in ("colour", "shape", "present")}
    direction = bool(moved.direction[0])
    return rest | {"direction": direction, "all": direction and all(rest.values())}


def shares(verdicts: Sequence[dict[str, bool]]) -> dict[str, float]:
    """Share of windows that are right, by attribute."""
    return {name: float(np.mean([v[name] for v in verdicts])) for name in ATTRIBUTES}
