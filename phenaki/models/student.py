"""The student: a MaskGIT that is told which clip to draw, and draws it in one pass or two.

Not in the paper: see docs/sampling.md#student.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from phenaki.blocks.dense import Dense
from phenaki.models.maskgit import MaskGIT
from phenaki.types import Text


class Student(MaskGIT):
    """Logits of masked tokens given a latent z ~ N(0, I) per clip, which decides the clip.

    One pass over masks alone predicts every token apart from the others: tokens of different clips
    mix. With z as input all of them are those of one clip. z enters at masked tokens only.
    """

    latent: int = 3  # numbers of z
    hidden: int = 96  # features of z

    def setup(self):
        super().setup()
        # Steep, so that neighbouring z may stand for different clips from the start.
        steep = nn.initializers.normal(1.5)
        self.latent_features = Dense(self.hidden, self.dtype, steep)
        self.latent_out = Dense(self.width, self.dtype, nn.initializers.zeros_init())

    def draw(
        self,
        tokens: Int[Array, "b s"],
        text: Text | None = None,
        *,
        latent: Float[Array, "b z"],
        context: Any = None,
    ) -> Float[Array, "b s k"]:
        """Logits as those of a call, which is the MaskGIT without z, of the clips that z says."""
        told = self.latent_out(nn.gelu(self.latent_features(latent)))
        added = told[:, None] * (tokens == self.mask_id)[..., None]
        return self(tokens, text, context=context, added=added)


def of_teacher(teacher: MaskGIT, latent: int, hidden: int) -> Student:
    """A student of the size of its `teacher`."""
    names = [field.name for field in dataclasses.fields(teacher) if field.init]
    fields = {name: getattr(teacher, name) for name in names if name not in ("parent", "name")}
    return Student(latent=latent, hidden=hidden, **fields)


def from_teacher(
    student: Student, teacher: Mapping[str, Any], key: Array, *example: Any
) -> dict[str, Any]:
    """Parameters of a `student` that predicts what its `teacher` does, whatever z is.

    `example` are tokens and text of a sample, for the shapes.
    """
    latent = jnp.zeros((len(example[0]), student.latent))
    params = student.init(key, *example, latent=latent, method="draw")["params"]
    # Copies: training gives its parameters away, and the teacher keeps its own.
    return jax.tree.map(lambda x: jnp.array(x, copy=True), {**params, **teacher})
