"""Evaluation protocol of a table row: samples, features and scores; resumes at any shard."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from phenaki.errors import UserError
from phenaki.evaluation import aggregate, extractors, settings
from phenaki.evaluation.extractors import Extractor, bytes_of
from phenaki.evaluation.metrics import checks, reconstruction
from phenaki.evaluation.references import ReferenceClips
from phenaki.evaluation.score import Score
from phenaki.evaluation.store import Store
from phenaki.evaluation.task import PREDICTED, Evaluation, Task
from phenaki.evaluation.tokenizer import FrozenTokenizer
from phenaki.io.paths import PathLike
from phenaki.pipeline import Phenaki

Model = Phenaki | FrozenTokenizer


def evaluate(
    task: Task, model: Model, clips: ReferenceClips, output: PathLike, weights: str, seed: int
) -> list[Score]:
    """Computes what `output` lacks, on all devices, and returns the scores of `task`.

    `weights` is the directory of converted feature networks, or "random" for proxies.

    Raises:
        UserError: clips, frames or weights do not suffice; before anything is sampled.
    """
    if clips.total < 2:
        raise UserError(f"{clips.total} reference clip: a comparison needs 2 or more.")
    networks = {name: extractors.build(name, weights) for name in task.networks}
    of_real, of_fake = real_settings(task, model, clips, networks), fake_settings(task, model, seed)
    real = Store(output, "real", of_real, clips.total, task.per_shard)
    total = clips.total * task.samples
    fake = Store(output, "generated", of_real | of_fake, total, task.per_shard)
    real.fill(lambda start, stop: _real(task, networks, clips, start, stop), "reference clips")
    fake.fill(
        lambda start, stop: _fake(task, networks, clips, model, seed, start, stop),
        task.task.replace("_", " "),
    )
    facts = dict(
        size=(model.spec.height, model.spec.width),
        fps=float(model.spec.fps),
        seed=seed,
        sampler=of_fake["sampler"],
        settings=of_real | of_fake | dict(used=clips.total, resamples=task.resamples),
    )
    windows = clips.identity.get("windows", 1)
    # Of the frames that are scored: Table 3 counts 2560 for ten frames one by one, not 2816.
    spec = model.spec
    shown = spec.covering_frames(task.view_frames)
    tokens = spec.tokens(shown) if "tokens" in task.metrics else 0
    found = Evaluation(task, real, fake, networks, facts, model.codebook, windows, tokens)
    return aggregate.scores(found)


def real_settings(
    task: Task, model: Model, clips: ReferenceClips, networks: Mapping[str, Extractor]
) -> dict[str, Any]:
    """What the features of reference clips depend on."""
    fields = ("checksum", "trained", "resize", "value_range")
    return settings.plain(
        dict(
            environment=settings.environment(),
            clips=clips.identity,
            size=(model.spec.height, model.spec.width),
            fps=model.spec.fps,
            frames=task.frames,
            views=task.scored,
            frame_step=task.frame_step,
            networks={
                name: {field: getattr(network, field) for field in fields}
                for name, network in networks.items()
            },
            metrics=sorted(task.metrics),
        )
    )


def fake_settings(task: Task, model: Model, seed: int) -> dict[str, Any]:
    """What samples depend on, besides `real_settings`."""
    sampler = None
    if isinstance(model, Phenaki):
        sampler = settings.of_sampler(model.defaults, task.sampler)
    return settings.plain(
        dict(
            model=settings.of_model(model),
            task=task.task,
            given=task.given,
            samples=task.samples,
            prompt=task.prompt,
            sampler=sampler,
            seed=seed,
        )
    )


def _real(task, networks, clips, start, stop):
    video, _ = clips.read(start, stop)
    video = bytes_of(video[:, : task.frames])
    checks.clips(video, "reference clips", task.frames)
    return _features(task, networks, dict.fromkeys(task.scored, video), video)


def _fake(task, networks, clips, model, seed, start, stop):
    first, last = start // task.samples, (stop - 1) // task.samples
    video, captions = clips.read(first, last + 1)
    rows = np.arange(start, stop) // task.samples - first
    video, captions = video[rows][:, : task.frames], [captions[row] for row in rows]
    generated = SAMPLE[task.task](task, model, video, captions, seed, start)
    videos = {view: bytes_of(fake) for view, fake in generated.videos.items()}
    for fake in videos.values():
        checks.pairs(video, fake, task.frames)
    any_fake = next(iter(videos.values()))
    found = dict(generated.others) | _features(task, networks, videos, any_fake)
    if "clip_score" in task.metrics:
        found |= networks["clip"].run(any_fake, [c or "" for c in captions])
    if "psnr" in task.metrics:
        found["psnr"] = np.asarray(reconstruction.frame_psnr(video, any_fake))
    if "ssim" in task.metrics:
        found["ssim"] = np.asarray(reconstruction.frame_ssim(video, any_fake))
    if "lpips" in task.metrics:
        found |= networks["lpips"].run(*(x[:, :: task.frame_step] for x in (video, any_fake)))
    return found


def _features(task, networks, videos, any_video):
    """Features of whole views by I3D, of every `frame_step`-th frame by Inception."""
    found: dict[str, np.ndarray] = {}
    if "i3d" in networks:
        for view, (start, stop) in task.scored.items():
            features = networks["i3d"].run(videos[view][:, start:stop])
            found |= {f"i3d_{name}/{view}": value for name, value in features.items()}
    if "inception" in networks:
        features = networks["inception"].run(any_video[:, :: task.frame_step])
        found["inception_pool"] = features["pool"]
        if "inception_score" in task.metrics:
            found["inception_logits"] = features["logits"]
    return found


class Generated(NamedTuple):
    """Generated clips of items from `start` on, by view, and other arrays to store of each."""

    videos: Mapping[str, Any]
    others: Mapping[str, np.ndarray]


def _reconstruct(task, model, video, captions, seed, start) -> Generated:
    del captions, seed, start
    fake, tokens = model.reconstruct(video)
    return Generated(dict.fromkeys(task.scored, fake), {"codes": tokens})


def _from_text(task, model, video, captions, seed, start) -> Generated:
    del video
    # A clip without caption is sampled without text.
    prompts = [caption and task.prompt.format(caption) for caption in captions]
    chosen = dict(seed=seed, first_row=start, **task.sampler)
    fake = model.generate(prompts, frames=task.frames, **chosen)
    return Generated(dict.fromkeys(task.scored, fake), {})


def _predict(task, model, video, captions, seed, start) -> Generated:
    """Continues the given frames, without text (B.2.4).

    16 frames are not 1 + 2n: `fill` samples 17 and cuts the last. The paper leaves open whether the
    given frames are scored as they are or as the tokenizer shows them: both are.
    """
    del captions
    known = np.zeros((video.shape[1], *video.shape[2:4]), bool)
    known[: task.given] = True
    chosen = dict(seed=seed, first_row=start, **task.sampler)
    fake = np.array(model.fill(video, known, [None] * len(video), **chosen))
    coded = fake.copy()
    coded[:, : task.given] = model.reconstruct(video[:, : task.given])
    return Generated(dict(zip(PREDICTED, (fake, coded), strict=True)), {})


SAMPLE = {
    "text_to_video": _from_text,
    "text_to_image": _from_text,
    "reconstruction": _reconstruct,
    "prediction": _predict,
}
