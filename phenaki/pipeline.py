"""Sampling with trained networks: what most users touch."""

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from phenaki import build, checkpoint, sampling
from phenaki.errors import UserError
from phenaki.story import Scene, segments, windows
from phenaki.types import Text


class Phenaki:
    """A tokenizer, a MaskGIT and a text encoder. Videos are float32 [b f h w 3] in [0, 1].

    Every call takes `seed` and, where None means the config's own, `steps`, `choice_temperature`
    and `guidance` (λ of (1 + λ) l_c - λ l_u). Sample i of a call depends on `seed` and i only.
    A new prompt, seed, λ or temperature compiles nothing; a new batch size, number of steps or λ
    between 0 and not 0 does.
    """

    def __init__(self, config: ConfigDict, params: dict):
        self.config = config
        self.params = jax.tree.map(jnp.asarray, params)
        self.spec = build.video_spec(config)
        self._tokenizer = build.tokenizer(config)
        self.network = build.maskgit(config)
        self._encoder: Any = build.text_encoder(config) if config.text else None
        # Compiled per object: what is compiled goes when the object does.
        self._sample = jax.jit(self._sample_codes, static_argnames=("steps", "guided"))
        self._apply = jax.jit(self._apply_tokenizer, static_argnames="method")
        self._embed = jax.jit(self._embed_text)
        self.codes = None  # [b s] of the last window
        self.history = None  # [steps b s]: what each of its steps handed on

    @classmethod
    def load(cls, directory: str | Path) -> "Phenaki":
        """Loads a bundle, or the newest averaged parameters of a MaskGIT run."""
        directory = Path(directory)
        if (directory / "bundle.json").is_file():
            params, config, facts = checkpoint.load_bundle(directory)
            if facts["kind"] != "phenaki":
                raise UserError(f"{directory}: holds a {facts['kind']}, not a whole model.")
            return cls(config, params)
        maskgit, config, _ = checkpoint.load_run(directory)
        if "model" not in config:
            raise UserError(
                f"{directory}: is a tokenizer's run; sampling needs one of "
                "scripts/train_maskgit.py."
            )
        tokenizer, _, digest = checkpoint.load_tokenizer(directory / "tokenizer")
        if digest != config.fingerprint:
            raise UserError(
                f"{directory}: was trained on the codes of tokenizer {config.fingerprint}, but "
                f"{directory / 'tokenizer'} is {digest}."
            )
        params = {"tokenizer": tokenizer, "maskgit": maskgit}
        if config.text:
            params["text"] = build.text_params(config)
        return cls(config, params)

    def save(self, directory: str | Path, dtype=jnp.float32, **facts) -> None:
        """Writes a self-contained bundle; `dtype` bfloat16 halves it."""
        params = jax.tree.map(lambda x: x.astype(dtype), self.params)
        checkpoint.save_bundle(directory, params, self.config, kind="phenaki", **facts)

    @property
    def fingerprint(self) -> str:
        """Changes with any parameter or size of the tokenizer or the MaskGIT."""
        return checkpoint.fingerprint(self.params, self.config)

    def generate(
        self, prompts: Sequence[str | None], *, seed: int, frames: int | None = None, **sampler
    ):
        """Text to video, or to an image with frames=1. None is an unconditional sample."""
        codes = jnp.full((len(prompts), self.spec.tokens(frames)), self.network.mask_id, jnp.int32)
        return np.asarray(self._decode(self._fill(codes, prompts, seed, **sampler)))

    def animate(self, images: np.ndarray, prompts: Sequence[str | None], *, seed: int, **sampler):
        """Images [b h w 3] and text to video (§3.2); frame 0 is the image itself, not decoded."""
        return self._continue(images[:, None], prompts, seed, **sampler)

    def extend(self, videos: np.ndarray, prompts: Sequence[str | None], *, seed: int, **sampler):
        """The given videos and one window after them, from their last K frames (§2.2).

        K is `config.sample.context`, or fewer for shorter videos, always 1 + a multiple of the
        patch.
        """
        context = min(self.config.sample.context, self.spec.nearest_frames(videos.shape[1]))
        new = self._continue(videos[:, -context:], prompts, seed, **sampler)[:, context:]
        return np.concatenate([np.asarray(videos, np.float32), new], axis=1)

    def story(self, scenes: Sequence[Scene], *, seed: int, **sampler):
        """A video [f h w 3] of scenes one after another, and each scene's (first frame, end)."""
        parts = windows(scenes, self.spec, self.config.sample.context)
        video = np.concatenate(list(self.story_windows([scenes], seed=seed, **sampler)), axis=1)
        return video[0], segments(parts)

    def story_windows(
        self, stories: Sequence[Sequence[Scene]], *, seed: int, **sampler
    ) -> Iterator[np.ndarray]:
        """The new frames [b f h w 3] of window after window, for stories of equal scene lengths."""
        context = self.config.sample.context
        plans = [windows(scenes, self.spec, context) for scenes in stories]
        if any(plan != plans[0] for plan in plans):
            raise UserError("stories sampled together must have scenes of the same lengths.")
        video = None
        for number, window in enumerate(plans[0]):
            prompts = [scenes[window.scene].prompt for scenes in stories]
            stream = seed + 1_000_003 * number  # fresh noise in every window
            if video is None:
                video = new = self.generate(prompts, seed=stream, **sampler)
            else:
                new = self._continue(video[:, -context:], prompts, stream, **sampler)[:, context:]
                video = np.concatenate([video, new], axis=1)[:, -self.spec.frames :]
            yield new

    def embed(self, prompts: Sequence[str | None]) -> Text:
        """The encoder's embeddings of `prompts`, for models with text."""
        ids = build.vocabulary(self.config).encode(prompts)
        return self._embed(self.params["text"], ids)

    def _embed_text(self, params, ids):
        return build.embed(self._encoder, params, ids)

    def reconstruct(self, videos: np.ndarray) -> np.ndarray:
        """`videos` through the tokenizer."""
        return np.asarray(self._decode(self.encode(videos).reshape(len(videos), -1)))

    def _continue(self, known, prompts, seed, **sampler):
        """One clip whose first frames are `known` [b k h w 3], which are kept as they are."""
        size = (self.spec.height, self.spec.width, 3)
        if known.ndim != 5 or known.shape[2:] != size:
            raise UserError(
                f"given frames are {known.shape}; they must be [b f {size[0]} {size[1]} 3]."
            )
        codes = self.encode(known).reshape(len(known), -1)
        rest = self.spec.tokens() - codes.shape[1]
        codes = jnp.pad(codes, ((0, 0), (0, rest)), constant_values=self.network.mask_id)
        video = self._decode(self._fill(codes, prompts, seed, **sampler))
        return np.concatenate(
            [np.asarray(known, np.float32), np.asarray(video)[:, known.shape[1] :]], axis=1
        )

    def _fill(self, codes, prompts, seed, steps=None, choice_temperature=None, guidance=None):
        preset = self.config.sample
        steps = preset.steps if steps is None else steps
        temperature = (
            preset.choice_temperature if choice_temperature is None else choice_temperature
        )
        guidance = preset.guidance if guidance is None else guidance
        if steps < 1:
            raise UserError(f"steps={steps} must be at least 1.")
        ids = build.vocabulary(self.config).encode(prompts) if self._encoder else None
        key = jax.random.key(seed)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(len(codes)))
        decoded = self._sample(
            self.params,
            codes,
            ids,
            keys,
            float(guidance),
            float(temperature),
            steps=int(steps),
            guided=float(guidance) != 0,
        )
        self.codes, self.history = decoded
        return decoded.codes

    def _sample_codes(self, params, codes, ids, keys, guidance, temperature, *, steps, guided):
        network = functools.partial(self.network.apply, {"params": params["maskgit"]})
        context = None
        if self._encoder is not None:
            text = build.embed(self._encoder, params["text"], ids)
            if guided:  # the second half of the batch has no text
                text = jax.tree.map(lambda x: jnp.concatenate([x, jnp.zeros_like(x)]), text)
            context = network(text, method="context")

        def logits_fn(codes):
            if context is None or not guided:
                return network(codes, context=context)
            logits: Any = network(jnp.concatenate([codes, codes]), context=context)
            conditional, unconditional = jnp.split(logits, 2)
            return sampling.guide(conditional, unconditional, guidance)

        return sampling.decode(
            logits_fn,
            codes,
            keys,
            steps=steps,
            choice_temperature=temperature,
            mask_id=self.network.mask_id,
        )

    def encode(self, videos: np.ndarray):
        """Codes [b t m n] of `videos`, 1 + a multiple of the patch frames."""
        return self._apply(
            self.params["tokenizer"], jnp.asarray(videos, jnp.float32), method="encode"
        )

    def _decode(self, codes):
        _, rows, columns = self.spec.grid()
        codes = codes.reshape(len(codes), -1, rows, columns)
        # The networks' output is linear; only what people see is clipped.
        return jnp.clip(self._apply(self.params["tokenizer"], codes, method="decode"), 0, 1)

    def _apply_tokenizer(self, params, x, *, method):
        return self._tokenizer.apply({"params": params}, x, method=method)
