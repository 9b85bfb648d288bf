"""Sampling with trained networks: text to video, image to video, prediction, editing, stories."""

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from phenaki import sharding
from phenaki.blocks.sharding import fetch
from phenaki.errors import UserError
from phenaki.io import checkpoint, stored_params
from phenaki.io.clean_text import clean
from phenaki.io.paths import PathLike
from phenaki.models import factory, load, shapes
from phenaki.sampling import conditioning, sampler, watch
from phenaki.sampling import given as given_values
from phenaki.sampling.conditioning import Known
from phenaki.sampling.decode import Decoded
from phenaki.sampling.options import Critic, Defaults, SamplingOptions, Student, resolve
from phenaki.sampling.seeds import stream
from phenaki.sampling.windows import Scene, check_context, check_scenes, places, segments, windows
from phenaki.schema.rules import Flag, check, whole
from phenaki.text.vocabulary import LabelVocabulary, Vocabulary
from phenaki.types import Text

Prompts = Sequence[str | None]  # None is a sample without text
Rows = TypeVar("Rows")


class Sample(NamedTuple):
    """What `Phenaki.sample` gives for b prompts."""

    video: Float[np.ndarray, "b f h w 3"]  # float32 RGB in [0, 1]
    tokens: Int[np.ndarray, "b t m n"]  # int32; of whole patches, where f is not 1 + a multiple
    trace: Decoded | None  # every decoding step, with the option trace=True
    passes: float = 0  # of each sample through the MaskGIT; guided ones twice, parts of a clip less


class Phenaki:
    """A tokenizer, a MaskGIT and a text encoder. Videos are float32 RGB [b f h w 3] in [0, 1].

    Every call takes `seed`, 0 to 2**64 - 1, and, as keywords, the fields of `SamplingOptions` and
    `preset`; None means the model's own (`config.sample`). Sample i of a call depends on `seed` and
    i only; the keyword `first_row` is the number of a call's first sample, so that several calls
    give what one does. `progress` is called with a `phenaki.sampling.watch.Step` after every
    decoding step, and changes no sample; by default it is a bar in notebooks, False is none. A new
    prompt, seed, λ, temperature or top_p compiles nothing; a new batch size, number of steps or
    schedule does, and so does λ between 0 and not 0, and with view="begun" another number of given
    latent frames. Calls change nothing in the object.

    Attributes:
        config: of stage 2, with the sizes of its tokenizer.
        params: by network, "tokenizer", "maskgit" and, where the model has text, "text".
        networks: of the same names; "text" is None for a model without text.
        spec: clip and patch sizes.
        settings: context K, codebook size, default options and vocabulary of the config.
        mesh: see `shard`.
    """

    def __init__(self, config: ConfigDict, params: Mapping[str, Any]):
        self.config = config
        self.params = jax.device_put(dict(params))
        self.spec = factory.video_spec(config)
        self.settings = factory.sampling_settings(config)
        self.network = factory.layer_by_layer(factory.maskgit(config))
        self.mesh: jax.sharding.Mesh | None = None
        self._pad = False
        self._tokenizer = factory.layer_by_layer(factory.tokenizer(config))
        encoder = factory.text_encoder(config) if self.has_text else None
        embed = None if encoder is None else functools.partial(factory.embed, encoder)
        self.networks = {"tokenizer": self._tokenizer, "maskgit": self.network, "text": encoder}
        # Pure functions of parameters and inputs; compiled per object, and freed with it.
        self.sample_tokens = functools.partial(sampler.sample_tokens, self.network, embed)
        self._sample_tokens = jax.jit(self.sample_tokens, static_argnames="static")
        self._apply_tokenizer = jax.jit(self.apply_tokenizer, static_argnames="method")
        self._embed = jax.jit(embed) if embed else None

    @classmethod
    def load(cls, directory: PathLike) -> "Phenaki":
        """Loads a bundle, or the newest EMA parameters of a MaskGIT run (`phenaki.models.load`)."""
        stored = load.load_model(directory)
        model = cls(stored.config, stored.params)
        if stored.is_foreign:
            shapes.check(directory, stored.params, model.networks, model.spec)
        return model

    def save(self, directory: PathLike, dtype: Any = jnp.float32, **facts: Any) -> None:
        """Writes a self-contained bundle; bfloat16 halves it. `facts` go into bundle.json."""
        kind = stored_params.float_type(dtype)
        params = jax.tree.map(lambda x: x.astype(kind), self.params)
        checkpoint.save_bundle(directory, params, self.config.to_dict(), kind="phenaki", **facts)

    def shard(self, mesh: jax.sharding.Mesh, *, pad: bool = False) -> "Phenaki":
        """Samples on `mesh` from now on, the rows of a batch split over "data" and "fsdp".

        Tokens are those of a single device. Calls must then have a multiple of data x fsdp rows;
        with `pad`, copies of the last row fill up other batches. Returns the object itself.
        """
        self.mesh, self._pad = mesh, pad
        self.params = jax.device_put(self.params, sharding.shardings(self.params, mesh))
        return self

    @property
    def fingerprint(self) -> str:
        """Changes with any parameter of any network, or size of the tokenizer."""
        return checkpoint.fingerprint(self.params, self.config.to_dict())

    @property
    def generator(self) -> str:
        """Changes with any parameter of what a critic judges, the tokenizer and the MaskGIT."""
        networks = {name: self.params[name] for name in ("tokenizer", "maskgit")}
        return checkpoint.fingerprint(networks, self.config.to_dict())

    @property
    def context(self) -> int:
        """K, on how many frames the next window of a video is conditioned."""
        return self.settings.context

    @property
    def codebook(self) -> int:
        """Number of codes."""
        return self.settings.codebook

    @property
    def has_text(self) -> bool:
        """False for an unconditional model, whose prompts are None."""
        return self.settings.vocabulary is not None

    @property
    def defaults(self) -> Defaults:
        """The sampling options and presets of the config."""
        return self.settings.defaults

    @functools.cached_property
    def vocabulary(self) -> Vocabulary | LabelVocabulary | None:
        """Captions -> ids; None for a model without text."""
        return factory.vocabulary(self.config) if self.has_text else None

    def load_critic(self, directory: PathLike) -> Critic:
        """The critic that scripts/train_critic.py trained for this model, as option `critic`."""
        return load.load_critic(directory, self.generator)

    def load_student(self, directory: PathLike) -> Student:
        """The student that phenaki train-student made of this model, as option `student`."""
        return load.load_student(directory, self.generator)

    def generate(
        self, prompts: Prompts, *, seed: int, frames: int | None = None, **options: Any
    ) -> Float[np.ndarray, "b f h w 3"]:
        """Text to video, or to an image with frames=1."""
        given_values.check_task("generate", options)
        nothing = np.zeros(self.spec.grid(frames), bool)
        return self.sample(prompts, seed=seed, known=nothing, **options).video

    def animate(
        self, images: np.ndarray, prompts: Prompts, *, seed: int, **options: Any
    ) -> Float[np.ndarray, "b f h w 3"]:
        """Images [b h w 3] and text to video (§3.2); frame 0 is the image itself, not decoded."""
        given_values.check_task("animate", options)
        images = given_values.frames(images)
        if images.ndim != 4:
            raise UserError(f"images are {images.shape}; they must be [b h w 3].")
        first = images[:, None]
        return self.sample(prompts, seed=seed, video=first, **options).video

    def extend(
        self,
        videos: np.ndarray,
        prompts: Prompts,
        *,
        seed: int,
        context: int | None = None,
        **options: Any,
    ) -> Float[np.ndarray, "b f h w 3"]:
        """`videos` [b k h w 3] and one window after them, from their last K frames (§2.2).

        K is `context`, by default the model's, or fewer for shorter videos; always 1 + a multiple
        of the patch.
        """
        given_values.check_task("extend", options)
        videos = conditioning.check_size(videos, self.spec)
        if context is None:
            context = min(self.context, self.spec.nearest_frames(videos.shape[1]))
        check_context(self.spec, context, "context")
        if videos.shape[1] < context:
            raise UserError(f"context={context}: there are {videos.shape[1]} frames only.")
        new = self.follow(videos[:, -context:], prompts, seed=seed, **options)
        return np.concatenate([videos, new], axis=1)

    def follow(
        self, given: np.ndarray | None, prompts: Prompts, *, seed: int, **options: Any
    ) -> Float[np.ndarray, "b f h w 3"]:
        """The new frames of one window after the frames `given`; all of a clip after None."""
        given_values.check_task("follow", options)
        given = None if given is None else conditioning.check_size(given, self.spec)
        new = 0 if given is None else given.shape[1]
        return self.sample(prompts, seed=seed, video=given, **options).video[:, new:]

    def fill(
        self,
        video: np.ndarray | None,
        known: np.ndarray,
        prompts: Prompts,
        *,
        seed: int,
        approximate: bool = False,
        **options: Any,
    ) -> Float[np.ndarray, "b f h w 3"]:
        """The video of `sample`: any part of a clip around the `known` rest (docs/fill.md)."""
        task: Any = dict(video=video, known=known, approximate=approximate)
        return self.sample(prompts, seed=seed, **task, **options).video

    def sample(
        self,
        prompts: Prompts,
        *,
        seed: int,
        video: np.ndarray | None = None,
        known: np.ndarray | None = None,
        approximate: bool = False,
        first_row: int = 0,
        progress: watch.Given = None,
        **options: Any,
    ) -> Sample:
        """One clip per prompt around what is known of it: the task that all others are.

        `known` is a mask of pixels [f h w] or of tokens [t m n], or has a batch axis in front. By
        default all of `video` is known, and is how the clip starts. Known pixels are returned as
        they are, and what `video` holds at unknown ones does not matter.

        A token is known if all pixels that it depends on are; with C-ViViT, which sees whole frames
        and all before them, these are the tokens of the first frames only. Known pixels that fix
        no token are a `UserError`. With `approximate` a token is known if the pixels of its own
        patch are; it is encoded with stand-ins for the others (`conditioning.stand_in`). That is
        how to interpolate, and to paint within frames.

        f may be any length up to a clip: frames beyond whole patches are cut off. Row r is sample
        `first_row` + r of `seed`.
        """
        prompts = given_values.prompts(prompts)
        check("first_row", first_row, whole())
        check("approximate", approximate, Flag())
        if taken := options.keys() & {"defaults", "continues"}:  # the names of resolve's own
            raise UserError(f"sampling option {min(taken)!r}: no such option.")
        if known is None:
            video, known = conditioning.first_frames(video, self.spec)
        field = conditioning.BY_PATCH if approximate else self._tokenizer.receptive_field
        given = conditioning.prepare(video, known, len(prompts), self.spec, field)
        chosen = resolve(self.defaults, continues=bool(given.tokens.any()), **options)
        self.check_texts(prompts, chosen)
        keys = sampler.row_keys(seed, len(prompts), first_row)
        observer = watch.observer(progress)
        decoded = self._fill_tokens(self._encode_known(given), prompts, keys, chosen, observer)
        rows = slice(len(prompts))  # without padding rows, see `shard`
        pixels = fetch(self._decode(decoded.tokens))[rows]
        pixels = np.where(given.pixels[..., None], given.video, pixels)[:, : given.frames]
        tokens: Any = fetch(decoded.tokens)[rows]
        passes: Any = fetch(decoded.passes)
        trace = None
        if chosen.trace:
            steps: Any = jax.tree.map(lambda x: fetch(x)[:, rows], decoded[2:5])
            trace = Decoded(tokens, passes, *steps)
        passes = round(float(passes), 3)  # a sum of float32
        return Sample(pixels, tokens.reshape(given.tokens.shape), trace, passes)

    def story(
        self, scenes: Sequence[Scene], *, seed: int, context: int | None = None, **options: Any
    ) -> tuple[Float[np.ndarray, "f h w 3"], list[tuple[int, int]]]:
        """A video of scenes one after another, and each scene's (first frame, end).

        K is `context`, by default the model's, of scenes without one of their own.
        """
        scenes = scenes if isinstance(scenes, str | Scene) else list(scenes)
        check_scenes(scenes)
        given_values.check_task("story", options)
        parts = list(self.story_windows([scenes], seed=seed, context=context, **options))
        plan = windows(scenes, self.spec, self.context if context is None else context)
        return np.concatenate(parts, axis=1)[0], segments(plan)

    def story_windows(
        self,
        stories: Sequence[Sequence[Scene]],
        *,
        seed: int,
        context: int | None = None,
        progress: watch.Given = None,
        **options: Any,
    ) -> Iterator[Float[np.ndarray, "b f h w 3"]]:
        """The new frames of window after window, for stories of equal scene lengths and K."""
        if context is None:
            context = self.context
        check_context(self.spec, context, "context")
        if not stories:
            raise UserError("stories: there is none; give lists of scenes.")
        plans = [windows(scenes, self.spec, context) for scenes in stories]
        given_counts = [[scene.context_of(context) for scene in scenes] for scenes in stories]
        if any(plan != plans[0] for plan in plans) or any(
            counts != given_counts[0] for counts in given_counts
        ):
            raise UserError("stories sampled together must have scenes of the same lengths and K.")
        given, observer = None, watch.observer(progress)
        for count, (window, number) in enumerate(zip(plans[0], places(plans[0]), strict=True), 1):
            prompts = [scenes[window.scene].prompt for scenes in stories]
            if window.starts:
                given = None
            if given is not None:
                given = given[:, -given_counts[0][window.scene] :]
            seen = watch.of_window(observer, count, len(plans[0]))
            call: Any = dict(seed=stream(seed, number), progress=seen)
            new = self.follow(given, prompts, **call, **options)
            given = new if given is None else np.concatenate([given, new], axis=1)
            yield new

    def check_texts(self, prompts: Prompts, chosen: SamplingOptions) -> None:
        """Raises `UserError` for a prompt or a negative text of a model without text."""
        for what, texts in (("prompt", prompts), ("negative", chosen.texts())):
            text = next(filter(clean, texts), None)
            if text is not None and not self.has_text:
                raise UserError(
                    f"{what}={text!r}: this model has no text encoder (config.text is None) and "
                    "takes no text; give an empty one."
                )

    def embed(self, prompts: Prompts) -> Text:
        """The text encoder's embeddings of `prompts`."""
        if self.vocabulary is None or self._embed is None:
            raise UserError("embed: this model has no text encoder (config.text is None).")
        ids = self.vocabulary.encode(given_values.prompts(prompts))
        return self._embed(self.params["text"], ids)

    def encode(self, videos: np.ndarray | Array) -> Int[Array, "b t m n"]:
        """Tokens of `videos` [b f h w 3], of 1 + a multiple of the patch frames.

        Raises:
            UserError: they have another size or number of frames, or values outside [0, 1].
        """
        videos = conditioning.check_size(given_values.frames(videos), self.spec)
        self.spec.grid(videos.shape[1])  # f is 1 + a multiple of the patch
        if not len(videos):
            raise UserError("videos: has no clip in it; there is nothing to encode.")
        tokens = self._run_tokenizer(videos, "encode")
        return tokens[: len(videos)] if self._pad else tokens

    def reconstruct(self, videos: np.ndarray) -> Float[np.ndarray, "b f h w 3"]:
        """`videos` through the tokenizer."""
        return fetch(self._decode(self.encode(videos)))[: len(videos)]

    def apply_tokenizer(self, params: Any, x: Array, *, method: str) -> Any:
        """The tokenizer's "encode" (videos) or "decode" (tokens), as a pure function."""
        return self._tokenizer.apply({"params": params}, x, method=method)

    def _encode_known(self, given: Known) -> Int[np.ndarray, "b s"]:
        """Tokens with a mask where nothing is known."""
        tokens: Any = np.full(given.tokens.shape, self.network.mask_id, np.int32)
        latents = np.flatnonzero(given.tokens.any((0, 2, 3)))
        if len(latents):
            # Frames after the last known token need not be encoded, unless tokens depend on them.
            whole = self._tokenizer.receptive_field == "clip"
            count = tokens.shape[1] if whole else int(latents[-1]) + 1
            encoded = fetch(self.encode(given.video[:, : 1 + (count - 1) * self.spec.patch[0]]))
            tokens[:, :count] = np.where(given.tokens[:, :count], encoded, self.network.mask_id)
        return tokens.reshape(len(tokens), -1)

    def _fill_tokens(
        self, tokens, prompts, keys, chosen: SamplingOptions, observer: watch.Observer | None
    ) -> Decoded:
        params, ids, negative = self.params, None, None
        if chosen.critic is not None:
            params = {**params, "critic": chosen.critic.params}
        if chosen.student is not None:
            params = {**params, "student": chosen.student.params}
        if self.vocabulary is not None:
            ids = self.vocabulary.encode(prompts)
            texts = chosen.negatives(len(prompts))
            negative = None if texts is None else self.vocabulary.encode(texts)
        rows = self._split((tokens, ids, negative, keys))
        with self._on_mesh():
            sample = functools.partial(self._sample_tokens, params, *rows, chosen.traced())
            static = sampler.with_views(chosen.static(), self.network, tokens)
            if observer is None:
                return sample(static=static)
            _, height, width = self.spec.grid()
            grid, mask = (-1, height, width), self.network.mask_id
            clip = watch.Clip(len(prompts), grid, mask, self._decode, fetch)
            one = functools.partial(sample, static=static)
            return watch.run(one, rows[0], static.steps, clip, observer)

    def _decode(self, tokens) -> Float[Array, "b f h w 3"]:
        _, height, width = self.spec.grid()
        video = self._run_tokenizer(tokens.reshape(len(tokens), -1, height, width), "decode")
        # The networks' output is linear; only what people see is clipped.
        return jnp.clip(video, 0, 1)

    def _run_tokenizer(self, x, method) -> Array:
        with self._on_mesh():
            return self._apply_tokenizer(self.params["tokenizer"], self._split(x), method=method)

    def _split(self, rows: Rows) -> Rows:
        if self.mesh is None:
            return rows
        return sharding.split_rows(rows, self.mesh, pad=self._pad)

    def _on_mesh(self) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext() if self.mesh is None else jax.set_mesh(self.mesh)
