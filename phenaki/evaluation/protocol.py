"""One row of a table, from a model and reference clips to records; restartable at any shard."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from phenaki.errors import UserError
from phenaki.evaluation import aggregate, extractors
from phenaki.evaluation.extractors import bytes_of
from phenaki.evaluation.metrics import checks, reconstruction
from phenaki.evaluation.references import ReferenceClips
from phenaki.evaluation.score import Score
from phenaki.evaluation.store import Store
from phenaki.evaluation.task import PREDICTED, Evaluation, Task
from phenaki.evaluation.tokenizer import FrozenTokenizer
from phenaki.pipeline import Phenaki

Model = Phenaki | FrozenTokenizer


def evaluate(
    plan: Task, model: Model, clips: ReferenceClips, output: Path, weights: str, seed: int
) -> list[Score]:
    """Computes what is missing under `output`, on all devices, and returns the row's records.

    `weights` is the directory of converted feature networks, or "random" for proxies. Raises
    UserError, before anything is sampled, where clips, frames or weights do not suffice.
    """
    if clips.total < 2:
        raise UserError(f"{clips.total} reference clip: a comparison needs 2 or more.")
    networks = {name: extractors.build(name, weights) for name in plan.networks}
    sampler = _sampler(plan, model)
    shared = dict(
        clips=clips.identity,
        frames=plan.frames,
        views=plan.scored,
        frame_step=plan.frame_step,
        networks={name: network.checksum for name, network in networks.items()},
        metrics=sorted(plan.metrics),
    )
    real = Store(output, "real", shared, clips.total, plan.per_shard)
    settings = shared | dict(
        model=model.fingerprint,
        task=plan.task,
        given=plan.given,
        samples=plan.samples,
        prompt=plan.prompt,
        sampler=sampler,
        seed=seed,
    )
    fake = Store(output, "generated", settings, clips.total * plan.samples, plan.per_shard)
    real.fill(lambda start, stop: _real(plan, networks, clips, start, stop), "reference clips")
    task = {"reconstruction": _reconstruct, "prediction": _predict}.get(plan.task, _from_text)
    fake.fill(
        lambda start, stop: _fake(plan, networks, clips, model, task, seed, start, stop),
        plan.task.replace("_", " "),
    )
    facts = dict(
        size=(model.spec.height, model.spec.width),
        fps=float(model.spec.fps),
        seed=seed,
        sampler=sampler,
    )
    run = Evaluation(plan, real, fake, networks, facts, model.codebook)
    return aggregate.records(run)


def _sampler(plan, model):
    if plan.task == "reconstruction":
        return None
    names = ("steps", "choice_temperature", "guidance")
    return {name: plan.sampler.get(name, model.defaults.sample[name]) for name in names}


def _real(plan, networks, clips, start, stop):
    video, _ = clips.read(start, stop)
    video = bytes_of(video[:, : plan.frames])
    checks.clips(video, "reference clips", plan.frames)
    return _features(plan, networks, dict.fromkeys(plan.scored, video), video)


def _fake(plan, networks, clips, model, task, seed, start, stop):
    first, last = start // plan.samples, (stop - 1) // plan.samples
    video, captions = clips.read(first, last + 1)
    rows = np.arange(start, stop) // plan.samples - first
    video, captions = video[rows][:, : plan.frames], [captions[row] for row in rows]
    made = task(plan, model, video, captions, seed + start)
    videos = {view: bytes_of(fake) for view, fake in made.videos.items()}
    for fake in videos.values():
        checks.pairs(video, fake, plan.frames)
    found = dict(made.others)
    any_fake = next(iter(videos.values()))
    found |= _features(plan, networks, videos, any_fake)
    if "clip_score" in plan.metrics:
        found |= networks["clip"].run(any_fake, [c or "" for c in captions])
    if "psnr" in plan.metrics:
        found["psnr"] = np.asarray(reconstruction.frame_psnr(video, any_fake))
    if "ssim" in plan.metrics:
        found["ssim"] = np.asarray(reconstruction.frame_ssim(video, any_fake))
    if "lpips" in plan.metrics:
        found |= networks["lpips"].run(*(x[:, :: plan.frame_step] for x in (video, any_fake)))
    return found


def _features(plan, networks, videos, any_video):
    """Features of whole views by I3D, of every `frame_step`-th frame by Inception."""
    found: dict[str, np.ndarray] = {}
    if "i3d" in networks:
        for view, (start, stop) in plan.scored.items():
            seen = networks["i3d"].run(videos[view][:, start:stop])
            found |= {f"i3d_{name}/{view}": value for name, value in seen.items()}
    if "inception" in networks:
        seen = networks["inception"].run(any_video[:, :: plan.frame_step])
        found["inception_pool"] = seen["pool"]
        if "inception_score" in plan.metrics:
            found["inception_logits"] = seen["logits"]
    return found


class Made(NamedTuple):
    """Generated clips of every view, and what else is kept of each item."""

    videos: Mapping[str, Any]
    others: Mapping[str, np.ndarray]


def _reconstruct(plan, model, video, captions, seed) -> Made:
    del captions, seed
    fake, tokens = model.reconstruct(video)
    return Made(dict.fromkeys(plan.scored, fake), {"codes": tokens})


def _from_text(plan, model, video, captions, seed) -> Made:
    del video
    # A missing caption stays one: the model then samples without text.
    prompts = [caption and plan.prompt.format(caption) for caption in captions]
    fake = model.generate(prompts, seed=seed, frames=plan.frames, **plan.sampler)
    return Made(dict.fromkeys(plan.scored, fake), {})


def _predict(plan, model, video, captions, seed) -> Made:
    """The given frames go on; without text, as B.2.4.

    16 frames are not 1 + 2n: `fill` makes 17 and cuts the last. The paper does not say whether the
    given frames are scored as they are or as the tokenizer shows them: both.
    """
    del captions
    known = np.zeros((video.shape[1], *video.shape[2:4]), bool)
    known[: plan.given] = True
    fake = np.array(model.fill(video, known, [None] * len(video), seed=seed, **plan.sampler))
    coded = fake.copy()
    coded[:, : plan.given] = model.reconstruct(video[:, : plan.given])
    return Made(dict(zip(PREDICTED, (fake, coded), strict=True)), {})
