"""The model of the studio, and what a page is shown while it samples."""

import base64
import io
import shlex
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from phenaki import __version__
from phenaki.errors import UserError
from phenaki.io import media
from phenaki.io.paths import PathLike
from phenaki.models.frozen import Tokenizer
from phenaki.pipeline import Phenaki
from phenaki.sampling.options import facts, resolve
from phenaki.sampling.watch import Step
from phenaki.stories import notes
from phenaki.studio.forms import NETWORKS, Prompt
from phenaki.studio.jobs import Job
from phenaki.types import VideoSpec

SHOWN_EVERY = 0.2  # seconds between two previews, which are decoded for them
TOKENS = 20_000  # more are not sent


class Engine:
    """A model, loaded in the thread that samples; others wait for its sizes."""

    def __init__(
        self, model: PathLike, *, critic: PathLike | None = None, student: PathLike | None = None
    ):
        """Folders, as `Phenaki.load`, `load_critic` and `load_student` take them."""
        self.path = model
        given = {"critic": critic, "student": student}
        self.folders = {name: path for name, path in given.items() if path}
        self.model: Any = None
        self.networks: dict[str, Any] = {}  # those of `folders`
        self.failure: str | None = None
        self.ready = threading.Event()

    def load(self) -> None:
        """Loads the model, once.

        Raises:
            UserError: see `Phenaki.load`.
        """
        try:
            model = Phenaki.load(self.path)
            loaders = {"critic": model.load_critic, "student": model.load_student}
            self.networks = {name: loaders[name](path) for name, path in self.folders.items()}
            self.fingerprint = model.fingerprint
            self.tokenizer = Tokenizer(
                model.networks["tokenizer"], model.params["tokenizer"], model.spec, self.fingerprint
            )
            self.model = model
        except UserError as error:
            self.failure = str(error)
            raise
        finally:
            self.ready.set()

    @property
    def spec(self) -> VideoSpec:
        """Clip and patch sizes; waits until the model is loaded."""
        self.ready.wait()
        if self.model is None:
            raise UserError(f"the model cannot be loaded: {self.failure}")
        return self.model.spec

    def info(self) -> dict[str, Any]:
        """What a page is told of the model."""
        told: dict[str, Any] = dict(name=str(self.path), ready=self.model is not None)
        if self.failure:
            told["failure"] = self.failure
        if self.model is None:
            return told
        spec, own = self.model.spec, resolve(self.model.defaults)
        defaults = dict(steps=own.steps, guidance=own.guidance)
        shape = dict(frames=spec.frames, height=spec.height, width=spec.width, fps=spec.fps)
        rest = {"text": self.model.has_text, **{name: name in self.networks for name in NETWORKS}}
        grid = dict(patch=spec.patch, codebook=self.model.codebook, context=self.model.context)
        return {**told, **shape, **grid, **rest, "defaults": defaults}

    def options(self, prompt: Prompt) -> dict[str, Any]:
        """The sampling options of a form.

        Raises:
            UserError: one is out of its range, or the model takes no text or has no such network.
        """
        options = dict(prompt.options)
        for name in NETWORKS:
            if options.pop(name, False):
                if name not in self.networks:
                    raise UserError(f"{name}: the studio was started without --{name}.")
                options[name] = self.networks[name]
        self.model.check_texts([prompt.text], resolve(self.model.defaults, **options))
        return options

    def notes(self, prompt: Prompt, options: dict[str, Any]) -> list[str]:
        """What of a form has no effect, is cut, or was never learned; `options` are its own."""
        chosen = resolve(self.model.defaults, **options)
        found = notes.of_texts([prompt.text], chosen, notes.about_model(self.model))
        return found + notes.of_options([chosen], list(options), self.model.has_text)

    def facts(self, prompt: Prompt, row: int, options: dict[str, Any]) -> dict[str, Any]:
        """How a take is made (`phenaki.io.provenance`)."""
        made = dict(phenaki=__version__, model=self.fingerprint, seed=prompt.seed)
        return {"prompt": prompt.text, "row": row, **made} | {
            "options": facts(self.model.defaults, **options)
        }

    def command(self, prompt: Prompt, row: int) -> str:
        """The command line that gives the same clip as its last file."""
        text = "--unconditional" if prompt.text is None else f"--prompt={prompt.text}"
        words = ["phenaki", "sample", f"--model={self.path}", "--output=out", *[text] * (row + 1)]
        words += [f"--seed={prompt.seed}"]
        given = prompt.options | self.folders
        words += [f"--{name}={x}" for name, x in given.items() if name in prompt.options]
        return shlex.join(words)


def observer(job: Job, **more: Any) -> Callable[[Step], None]:
    """Shows a job's steps: tokens and frames so far, of the first sample of a batch."""
    last = [0.0]

    def show(step: Step) -> None:
        job.check()
        shown: dict[str, Any] = dict(step=step.number, steps=step.total)
        if step.windows > 1:
            shown |= dict(window=step.window, windows=step.windows)
        if step.tokens[0].size <= TOKENS:
            masked = np.where(step.tokens[0] == step.mask_id, -1, step.tokens[0])
            shown |= dict(tokens=masked.ravel().tolist(), grid=masked.shape)
        now = time.monotonic()
        if step.number == step.total or now - last[0] > SHOWN_EVERY:
            shown |= dict(preview=strip(media.as_uint8(step.video()[0])))
            last[0] = time.monotonic()
        job.show(**shown, **more)

    return show


def strip(frames: UInt8[np.ndarray, "f h w 3"]) -> dict[str, Any]:
    """Frames in one row of a PNG, as a URL of data."""
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(list(frames), 1)).save(buffer, "PNG", compress_level=1)
    url = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    return dict(url=url, frames=len(frames), height=frames.shape[1], width=frames.shape[2])
