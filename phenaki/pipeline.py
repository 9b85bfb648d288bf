"""Sampling with trained networks: what most users touch."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from phenaki.blocks import sharding
from phenaki.errors import UserError
from phenaki.io import checkpoint
from phenaki.models import factory
from phenaki.sampling import conditioning, decode, options
from phenaki.sampling.schedules import SCHEDULES
from phenaki.sampling.windows import Scene, segments, stream, windows
from phenaki.types import Text


class Critic(NamedTuple):
    """A token critic of one generator: the option `critic` of its sampling."""

    network: Any
    params: Any


class _Form(NamedTuple):
    """What is compiled of the options; all else changes from call to call as it likes."""

    steps: int
    schedule: str
    guided: bool
    ramp: str
    narrowed: bool
    critic: Any  # a network or None
    critic_guided: bool
    trace: bool


def form_of(chosen: options.SamplingOptions) -> _Form:
    """The compiled part of resolved options."""
    return _Form(
        steps=int(chosen.steps),
        schedule=chosen.schedule,
        guided=float(chosen.guidance) != 0,
        ramp=chosen.guidance_schedule,
        narrowed=bool(chosen.top_k) or chosen.top_p < 1,
        critic=chosen.critic and chosen.critic.network,
        critic_guided=float(chosen.critic_guidance) != 0,
        trace=bool(chosen.trace),
    )


def numbers_of(chosen: options.SamplingOptions) -> dict[str, float]:
    """The part that may change without compiling."""
    names = ("guidance", "choice_temperature", "temperature", "top_p", "critic_guidance")
    numbers: dict[str, float] = {n: float(getattr(chosen, n)) for n in (*names, "critic_noise")}
    return numbers | {"top_k": int(chosen.top_k)}


class Phenaki:
    """A tokenizer, a MaskGIT and a text encoder. Videos are float32 [b f h w 3] in [0, 1].

    Every call takes `seed` and the fields of `SamplingOptions`, where None means the config's own:
    `steps`, `choice_temperature`, `guidance` (λ of (1 + λ) l_c - λ l_u), `preset` and so on. Sample
    i of a call depends on `seed` and i only. A new prompt, seed, λ, temperature or top_p compiles
    nothing; a new batch size, number of steps or schedule does, and so does λ between 0 and not 0.
    """

    def __init__(self, config: ConfigDict, params: dict):
        self.config = config
        self.params = jax.tree.map(jnp.asarray, params)
        self.spec = factory.video_spec(config)
        self._tokenizer = factory.tokenizer(config)
        self.network = factory.maskgit(config)
        self._encoder: Any = factory.text_encoder(config) if config.text else None
        # Compiled per object: what is compiled goes when the object does.
        self._sample = jax.jit(self.sample_tokens, static_argnames="form")
        self._apply = jax.jit(self.apply_tokenizer, static_argnames="method")
        self._embed = jax.jit(self._embed_text)
        self.mesh: jax.sharding.Mesh | None = None  # see `shard`
        self.tokens = None  # [b s] of the last window
        self.history = None  # [steps b s]: what each of its steps handed on
        self.trace = None  # with the option `trace`: the whole `sampling.Decoded`

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
        if config.kind == "critic":
            raise UserError(
                f"{directory}: is a critic's run; sampling takes it with its generator."
            )
        if config.kind != "maskgit":
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
            params["text"] = factory.text_params(config)
        return cls(config, params)

    def save(self, directory: str | Path, dtype=jnp.float32, **facts) -> None:
        """Writes a self-contained bundle; `dtype` bfloat16 halves it."""
        params = jax.tree.map(lambda x: x.astype(dtype), self.params)
        checkpoint.save_bundle(directory, params, self.config.to_dict(), kind="phenaki", **facts)

    @property
    def fingerprint(self) -> str:
        """Changes with any parameter or size of the tokenizer or the MaskGIT."""
        return checkpoint.fingerprint(self.params, self.config.to_dict())

    @property
    def generator(self) -> str:
        """Changes with what a critic has learned to judge: the tokenizer and the MaskGIT."""
        return checkpoint.fingerprint(
            {name: self.params[name] for name in ("tokenizer", "maskgit")}, self.config.to_dict()
        )

    def load_critic(self, directory: str | Path) -> Critic:
        """The critic that scripts/train_critic.py trained beside this model.

        Raises:
            UserError: it is none, or another generator's.
        """
        params, config = checkpoint.load_critic(directory)
        if config.generator != self.generator:
            raise UserError(
                f"{directory}: is a critic of generator {config.generator}, but this one is "
                f"{self.generator}."
            )
        return Critic(factory.critic(config), jax.tree.map(jnp.asarray, params))

    def generate(
        self, prompts: Sequence[str | None], *, seed: int, frames: int | None = None, **sampler
    ):
        """Text to video, or to an image with frames=1. None is an unconditional sample."""
        nothing = np.zeros(self.spec.grid(frames), bool)
        return self.fill(None, nothing, prompts, seed=seed, **sampler)

    def animate(self, images: np.ndarray, prompts: Sequence[str | None], *, seed: int, **sampler):
        """Images [b h w 3] and text to video (§3.2); frame 0 is the image itself, not decoded."""
        return self._continue(np.asarray(images)[:, None], prompts, seed, **sampler)

    def extend(self, videos: np.ndarray, prompts: Sequence[str | None], *, seed: int, **sampler):
        """The given videos and one window after them, from their last K frames (§2.2).

        K is `config.sample.context`, or fewer for shorter videos, always 1 + a multiple of the
        patch.
        """
        context = min(self.config.sample.context, self.spec.nearest_frames(videos.shape[1]))
        new = self.follow(videos[:, -context:], prompts, seed=seed, **sampler)
        return np.concatenate([np.asarray(videos, np.float32), new], axis=1)

    def follow(self, given: np.ndarray | None, prompts, *, seed: int, **sampler):
        """The new frames of one window after the frames `given`; all of a clip after None."""
        if given is None:
            return self.generate(prompts, seed=seed, **sampler)
        return self._continue(given, prompts, seed, **sampler)[:, given.shape[1] :]

    def fill(
        self,
        video: np.ndarray | None,
        known: np.ndarray,
        prompts: Sequence[str | None],
        *,
        seed: int,
        approximate: bool = False,
        **sampler,
    ) -> np.ndarray:
        """One clip [b f h w 3] around what is known of it: the task that all others are.

        `known` is a mask of pixels [f h w] or of codes [t m n], or has a batch axis in front. Known
        pixels are returned as they are, and what `video` holds at unknown ones does not matter.
        A code stands if all pixels that it depends on are known; with C-ViViT, which sees whole
        frames and all before them, these are the codes of the first frames only. Known pixels that
        no code can stand for are a `UserError`; with `approximate` a code stands if those of its
        own patch are known, encoded beside stand-ins for the others (`receptive.stand_in`): between
        given frames, and to paint within them. Known codes are those of `video` as it is.

        f may be any length up to a clip: what 1 + n patches have more is filled, too, and cut off.
        """
        sees = self._tokenizer.receptive_field
        given = conditioning.read(
            video, known, len(prompts), self.spec, conditioning.BY_PATCH if approximate else sees
        )
        tokens = jnp.full(given.tokens.shape, self.network.mask_id, jnp.int32)
        latents = np.flatnonzero(given.tokens.any((0, 2, 3)))
        if len(latents):
            # What comes after the last known code need not be encoded, unless codes see it.
            count = tokens.shape[1] if sees == "clip" else int(latents[-1]) + 1
            encoded = self.encode(given.video[:, : 1 + (count - 1) * self.spec.patch[0]])
            encoded = jnp.where(given.tokens[:, :count], encoded, self.network.mask_id)
            tokens = tokens.at[:, :count].set(encoded)
        filled = self._fill(tokens.reshape(len(tokens), -1), prompts, seed, **sampler)
        pixels = np.where(
            given.pixels[..., None], given.video, sharding.fetch(self._decode(filled))
        )
        return pixels[:, : given.frames]

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
        given = None
        for number, window in enumerate(plans[0]):
            prompts = [scenes[window.scene].prompt for scenes in stories]
            if window.starts:
                given = None
            new = self.follow(given, prompts, seed=stream(seed, number), **sampler)
            given = new if given is None else np.concatenate([given, new], axis=1)
            given = given[:, -context:]
            yield new

    def shard(self, mesh: jax.sharding.Mesh, shardings: Callable[[Any, Any], Any]) -> None:
        """Samples on `mesh` from now on, rows split over its batch axes: the same tokens.

        `shardings(params, mesh)` says where parameters lie, such as `train.parallel.shardings`.
        Calls must then have a multiple of data x fsdp rows.
        """
        self.mesh = mesh
        self.params = jax.device_put(self.params, shardings(self.params, mesh))

    def _on_mesh(self):
        return contextlib.nullcontext() if self.mesh is None else jax.set_mesh(self.mesh)

    def _split(self, rows):
        if self.mesh is None:
            return rows
        parts, count = sharding.batch_parts(self.mesh), len(jax.tree.leaves(rows)[0])
        if count % parts:
            raise UserError(
                f"{count} samples must be a multiple of the mesh's {parts} (data times fsdp); "
                f"nearest is {max(round(count / parts), 1) * parts}."
            )
        split = jax.sharding.NamedSharding(self.mesh, jax.sharding.PartitionSpec(sharding.BATCH))
        return jax.device_put(rows, split)

    def embed(self, prompts: Sequence[str | None]) -> Text:
        """The encoder's embeddings of `prompts`, for models with text."""
        ids = factory.vocabulary(self.config).encode(prompts)
        return self._embed(self.params["text"], ids)

    def _embed_text(self, params, ids):
        return factory.embed(self._encoder, params, ids)

    def reconstruct(self, videos: np.ndarray) -> np.ndarray:
        """`videos` through the tokenizer."""
        return sharding.fetch(self._decode(self.encode(videos).reshape(len(videos), -1)))

    def _continue(self, known, prompts, seed, **sampler):
        """One clip whose first frames are `known` [b k h w 3], which are kept as they are."""
        known = conditioning.frames(known, self.spec)
        rest = max(self.spec.frames - known.shape[1], 0)
        video = np.pad(known, ((0, 0), (0, rest), (0, 0), (0, 0), (0, 0)))
        mask = np.zeros((video.shape[1], self.spec.height, self.spec.width), bool)
        mask[: known.shape[1]] = True
        return self.fill(video, mask, prompts, seed=seed, **sampler)

    def _fill(self, tokens, prompts, seed, **sampler):
        """`codes` [b s] with every mask filled; `sampler` are options."""
        chosen = options.resolve(self.config, **sampler)
        form = form_of(chosen)
        params = self.params
        if chosen.critic is not None:
            params = {**params, "critic": chosen.critic.params}
        ids = negative = None
        if self._encoder is not None:
            vocabulary = factory.vocabulary(self.config)
            ids = vocabulary.encode(prompts)
            if chosen.negative and form.guided:
                one = isinstance(chosen.negative, str)
                texts: Any = [chosen.negative] * len(tokens) if one else list(chosen.negative)
                if len(texts) != len(tokens):
                    raise UserError(
                        f"{len(texts)} negative texts for {len(tokens)} samples: give one, or one "
                        "each."
                    )
                negative = vocabulary.encode(texts)
        key = jax.random.key(seed)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(len(tokens)))
        rows = self._split((tokens, ids, negative, keys))
        with self._on_mesh():
            decoded = self._sample(params, *rows, numbers_of(chosen), form=form)
        self.tokens, self.history = decoded.tokens, decoded.history
        self.trace = decoded if form.trace else None
        return decoded.tokens

    def sample_tokens(self, params, tokens, ids, negative, keys, numbers, *, form):
        text = other = None
        if self._encoder is not None:
            text = factory.embed(self._encoder, params["text"], ids)
            # Without a negative prompt l_u sees no text.
            other = jax.tree.map(jnp.zeros_like, text)
            if negative is not None:
                other = factory.embed(self._encoder, params["text"], negative)
        ramp = decode.RAMPS[form.ramp]

        def scale(step):
            return numbers["guidance"] * ramp((step + 1) / form.steps)

        score_fn = None
        if form.critic is not None:
            critic = form.critic
            whole = critic.merge_params(params["critic"], params["maskgit"])
            seen = (text, other) if critic.reads_text else (None, None)
            guided = _guided(critic, whole, *seen, form.critic_guided)
            score_fn = functools.partial(guided, scale=numbers["critic_guidance"])
        logits = _guided(self.network, params["maskgit"], text, other, form.guided)
        narrow = None
        if form.narrowed:
            narrow = functools.partial(
                decode.restrict, top_k=numbers["top_k"], top_p=numbers["top_p"]
            )
        decoded = decode.decode(
            lambda tokens, step: logits(tokens, scale=scale(step)),
            tokens,
            keys,
            steps=form.steps,
            choice_temperature=numbers["choice_temperature"],
            mask_id=self.network.mask_id,
            schedule=SCHEDULES[form.schedule],
            temperature=numbers["temperature"],
            narrow=narrow,
            score_fn=score_fn,
            score_noise=numbers["critic_noise"],
        )
        return decoded if form.trace else decoded._replace(sampled=None, scores=None)

    def encode(self, videos: np.ndarray | jax.Array):
        """Tokens [b t m n] of `videos`, 1 + a multiple of the patch frames."""
        return self._through(jnp.asarray(videos, jnp.float32), "encode")

    def _decode(self, tokens):
        _, rows, columns = self.spec.grid()
        tokens = tokens.reshape(len(tokens), -1, rows, columns)
        # The networks' output is linear; only what people see is clipped.
        return jnp.clip(self._through(tokens, "decode"), 0, 1)

    def _through(self, rows, method):
        with self._on_mesh():
            return self._apply(self.params["tokenizer"], self._split(rows), method=method)

    def apply_tokenizer(self, params, x, *, method):
        return self._tokenizer.apply({"params": params}, x, method=method)


def _guided(network, params, text, other, guided):
    """logits(codes, scale) of `network`, guided away from the text `other` as one doubled batch."""
    apply = functools.partial(network.apply, {"params": params})
    if text is None:
        return lambda tokens, scale: apply(tokens)
    if guided:
        text = jax.tree.map(lambda *halves: jnp.concatenate(halves), text, other)
    context = apply(text, method="context")  # once for all steps

    def logits(tokens, scale):
        if not guided:
            return apply(tokens, context=context)
        conditional, unconditional = jnp.split(apply(jnp.tile(tokens, (2, 1)), context=context), 2)
        return decode.guide(conditional, unconditional, scale)

    return logits
