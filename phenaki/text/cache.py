"""Cache of caption embeddings, so that each caption is encoded once."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int32

from phenaki.text.vocabulary import LabelVocabulary, Vocabulary

LIMIT = 2**32  # bytes; a full cache is emptied


class CachedText:
    """Encodes captions; `embed` runs only on those that are not in the cache (§2: "pre-computed").

    Useful where captions repeat and the encoder fits on one device. `LIMIT` bounds host memory.
    """

    def __init__(
        self,
        vocabulary: Vocabulary | LabelVocabulary,
        embed: Callable[[Int32[np.ndarray, "b l"]], Float[np.ndarray, "b l d"]],
    ):
        self._vocabulary = vocabulary
        self._embed = embed
        self._known: dict[bytes, np.ndarray] = {}

    def __call__(self, captions: Sequence[str | None]) -> dict[str, np.ndarray]:
        """{"text_ids": int32 [b l], "text": embeddings [b l d]}."""
        ids = self._vocabulary.encode(captions)
        names = [row.tobytes() for row in ids]
        # What is known now: another thread may empty the cache meanwhile.
        known = dict(self._known)
        if sum(row.nbytes for row in known.values()) > LIMIT:
            known = {}
        new = {name: row for row, name in enumerate(names) if name not in known}
        if new:
            padded = np.zeros_like(ids)  # one shape, so that `embed` compiles once
            padded[: len(new)] = ids[list(new.values())]
            rows = np.asarray(self._embed(padded))[: len(new)]
            known |= {name: row.copy() for name, row in zip(new, rows, strict=True)}
            self._known = known
        return {"text_ids": ids, "text": np.stack([known[name] for name in names])}
