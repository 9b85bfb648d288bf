"""Scores from stored per-clip features, with bootstrap intervals and noise floors."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from phenaki.evaluation.metrics import bootstrap, codebook, frechet
from phenaki.evaluation.metrics.inception_score import inception_score
from phenaki.evaluation.score import PROXY, Score
from phenaki.evaluation.store import Store
from phenaki.evaluation.task import Evaluation

FRECHET = dict(  # measure: network, its features in words, the stored array
    fid=("inception", "pool_3", "inception_pool"),
    fvd=("i3d", "logits, mean over time", "i3d_logits"),
    fid_video=("i3d", "pooled features", "i3d_pool"),
)


def scores(evaluation: Evaluation) -> list[Score]:
    """The scores of an evaluation, in the order of its measures."""
    found = []
    for metric in evaluation.task.metrics:
        if metric in ("tokens", "code_usage", "code_perplexity"):
            found.append(_code_score(evaluation, metric))
        elif metric == "inception_score":
            found.append(_inception_score(evaluation))
        elif metric == "clip_score":
            found.append(_mean_score(evaluation, metric, "", evaluation.fake.array(metric)))
        else:
            for view, span in evaluation.task.scored.items():
                if metric in FRECHET:
                    # Only FVD differs between the views of given frames: features of single frames
                    # are stored once.
                    found.append(_frechet_score(evaluation, metric, view, span))
                else:
                    values = evaluation.fake.array(metric)[:, _frames_in(evaluation, metric, span)]
                    found.append(_mean_score(evaluation, metric, view, values.mean(1)))
    return found


def _frames_in(evaluation, metric, span):
    """Indices, among the stored frames, of those that lie in a view."""
    step = 1 if metric in ("psnr", "ssim") else evaluation.task.frame_step
    frames = np.arange(0, evaluation.task.frames, step)
    return np.flatnonzero((frames >= span[0]) & (frames < span[1]))


class StoredFeatures:
    """The rows of one stored array; the rows of a clip's frames follow one another."""

    def __init__(self, store: Store, name: str, frames: np.ndarray | None):
        self.store, self._name, self._frames = store, name, frames
        self.clips = store.total

    def parts(self) -> Iterator[np.ndarray]:
        """Yields [clips, rows per clip, d], shard after shard."""
        for part in self.store.read(self._name):
            yield part[:, None] if self._frames is None else part[:, self._frames]

    def gaussian(self, weights: np.ndarray | None = None) -> frechet.Gaussian:
        """The Gaussian of all rows, one shard in memory at a time; `weights` are per clip.

        Where there are fewer rows than features, all rows are held instead of their covariance.
        """
        weights = np.ones(self.clips) if weights is None else weights
        total, at, few = None, 0, []
        for part in self.parts():
            w = np.repeat(weights[at : at + len(part)], part.shape[1])
            at += len(part)
            rows = part.reshape(-1, part.shape[-1])
            if self.clips * part.shape[1] <= rows.shape[1]:
                few.append((rows, w))
                continue
            part_moments = frechet.moments(rows, w)
            total = part_moments if total is None else frechet.merge(total, part_moments)
        if total is not None:
            return frechet.gaussian(total)
        return frechet.gaussian_of(*(np.concatenate(x) for x in zip(*few, strict=True)))


def _frechet_score(evaluation, metric, view, span) -> Score:
    network, feature, array = FRECHET[metric]
    frames = _frames_in(evaluation, metric, span) if metric == "fid" else None
    name = array if metric == "fid" else f"{array}/{view}"
    real, fake = (
        StoredFeatures(store, name, frames) for store in (evaluation.real, evaluation.fake)
    )
    reference = real.gaussian()
    value = frechet.distance(reference, fake.gaussian())

    def resampled(weights):
        """Resamples real clips together with the windows and samples that belong to them."""
        weights = np.repeat(weights, evaluation.windows)
        samples = np.repeat(weights, evaluation.task.samples)
        return frechet.distance(real.gaussian(weights), fake.gaussian(samples))

    interval = bootstrap.interval(
        resampled,
        value,
        real.clips // evaluation.windows,
        evaluation.task.resamples,
        evaluation.facts["seed"],
    )
    floor, floor_n = _floor(real, fake.clips, evaluation.facts["seed"], evaluation.windows)
    width = reference.mean.size
    few = min(real.clips, fake.clips) * (1 if frames is None else len(frames)) <= width
    return _score(
        evaluation,
        metric,
        view,
        network,
        feature=feature,
        value=value,
        interval=interval,
        floor=floor,
        floor_n=floor_n,
        n_real=real.clips,
        frames=span[1] - span[0] if frames is None else len(frames),
        note=f"fewer samples than {width} features: biased up" if few else "",
    )


def _floor(
    real: StoredFeatures, count: int, seed: int, windows: int = 1
) -> tuple[float | None, int]:
    """(distance of two disjoint parts of the real clips, clips per part).

    Each part has `count` clips if there are so many; the `windows` of one are in the same part.
    """
    halves = bootstrap.halves(real.clips // windows, seed)
    size = min(-(-count // windows), len(halves[0]))
    if size * windows < 2:
        return None, 0
    random = np.random.default_rng(seed)
    gaussians = []
    for half in halves:
        weights = np.zeros(real.clips // windows)
        weights[random.permutation(half)[:size]] = 1
        gaussians.append(real.gaussian(np.repeat(weights, windows)))
    return frechet.distance(*gaussians), size * windows


def _mean_score(evaluation, metric, view, values) -> Score:
    network = {"lpips": "lpips", "clip_score": "clip"}.get(metric, "")
    # Samples and windows of one clip are not independent: clips are resampled.
    clips = values.reshape(evaluation.real.total // evaluation.windows, -1).mean(1)
    interval = (
        bootstrap.mean_interval(clips, seed=evaluation.facts["seed"]) if len(clips) > 1 else None
    )
    start, stop = evaluation.task.scored.get(view, (0, evaluation.task.frames))
    return _score(
        evaluation,
        metric,
        view,
        network,
        value=float(values.mean()),
        interval=interval,
        frames=len(_frames_in(evaluation, metric, (start, stop))),
        n_real=0 if metric == "clip_score" else evaluation.real.total,
    )


def _inception_score(evaluation) -> Score:
    frames = _frames_in(evaluation, "inception_score", (0, evaluation.task.frames))
    total = evaluation.fake.total * len(frames)
    parts = (part.reshape(-1, part.shape[-1]) for part in evaluation.fake.read("inception_logits"))
    splits = min(10, total)
    value, deviation = inception_score(parts, total, splits)
    note = f"deviation over {splits} splits {deviation:.2g}"
    return _score(
        evaluation, "inception_score", "", "inception", value=value, note=note, frames=len(frames)
    )


def _code_score(evaluation, metric) -> Score:
    if metric == "tokens":
        count, frames = float(evaluation.tokens), evaluation.task.view_frames
        return _score(evaluation, metric, "", "", value=count, frames=frames)
    counts = np.zeros(evaluation.codebook, np.int64)
    for tokens in evaluation.fake.read("codes"):
        counts += codebook.count(tokens, evaluation.codebook)
    value = (codebook.usage if metric == "code_usage" else codebook.perplexity)(counts)
    few = counts.sum() < 20 * evaluation.codebook
    note = f"of {counts.sum():,} tokens" + (", fewer than 20 per entry: too low" if few else "")
    return _score(evaluation, metric, "", "", value=value, note=note)


def _score(evaluation, metric, view, network, feature="", **fields: Any) -> Score:
    extractor = evaluation.networks[network] if network else None
    name = f"{metric}/{view}" if view else metric
    if extractor and not extractor.trained:
        name += PROXY
    counts = dict(frames=evaluation.task.frames, n_real=0, n=evaluation.fake.total) | fields
    return Score(
        name=name,
        extractor=" ".join(filter(None, (extractor.name, feature))) if extractor else "none",
        checksum=extractor.checksum if extractor else "",
        resize=extractor.resize if extractor else "none",
        value_range=extractor.value_range if extractor else "[0, 1]",
        **evaluation.facts,
        **counts,
    )
