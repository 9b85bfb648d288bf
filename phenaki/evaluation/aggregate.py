"""From what is stored of every item to records, with intervals and noise floors."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from phenaki.evaluation.metrics import bootstrap, frechet
from phenaki.evaluation.metrics import inception_score as measures
from phenaki.evaluation.score import PROXY, Score
from phenaki.evaluation.store import Store
from phenaki.evaluation.task import Evaluation

FRECHET = dict(  # measure: network, what it is called, the stored array
    fid=("inception", "pool_3", "inception_pool"),
    fvd=("i3d", "logits, mean over time", "i3d_logits"),
    fid_video=("i3d", "pooled features", "i3d_pool"),
)


def records(run: Evaluation) -> list[Score]:
    """All records of a run, in the order of its measures."""
    found = []
    for metric in run.plan.metrics:
        if metric in ("tokens", "code_usage", "code_perplexity"):
            found.append(_codes(run, metric))
        elif metric == "inception_score":
            found.append(_inception_score(run))
        elif metric == "clip_score":
            found.append(_mean(run, metric, "", run.fake.array(metric)))
        else:
            for view, span in run.plan.scored.items():
                if metric in FRECHET:
                    # Only FVD sees the given frames; a frame's features are of one version.
                    found.append(_frechet(run, metric, view, span))
                else:
                    values = run.fake.array(metric)[:, _kept(run, metric, span)]
                    found.append(_mean(run, metric, view, values.mean(1)))
    return found


def _kept(run, metric, span):
    """Positions, among the stored frames, of those that lie in a view."""
    step = 1 if metric in ("psnr", "ssim") else run.plan.frame_step
    frames = np.arange(0, run.plan.frames, step)
    return np.flatnonzero((frames >= span[0]) & (frames < span[1]))


class Features:
    """The rows of one stored array, frames of a clip one after another."""

    def __init__(self, store: Store, name: str, frames: np.ndarray | None):
        self.store, self._name, self._frames = store, name, frames
        self.clips = store.total

    def parts(self) -> Iterator[np.ndarray]:
        """[clips, rows per clip, d], shard after shard."""
        for part in self.store.read(self._name):
            yield part[:, None] if self._frames is None else part[:, self._frames]

    def gaussian(self, weights: np.ndarray | None = None) -> frechet.Gaussian:
        """Of all rows, one shard in memory at a time, or of few rows at once."""
        weights = np.ones(self.clips) if weights is None else weights
        total, at, kept = None, 0, []
        for part in self.parts():
            w = np.repeat(weights[at : at + len(part)], part.shape[1])
            at += len(part)
            rows = part.reshape(-1, part.shape[-1])
            if self.clips * part.shape[1] <= rows.shape[1]:
                kept.append((rows, w))
                continue
            more = frechet.moments(rows, w)
            total = more if total is None else frechet.merge(total, more)
        if total is not None:
            return frechet.gaussian(total)
        return frechet.gaussian_of(*(np.concatenate(x) for x in zip(*kept, strict=True)))


def _frechet(run, metric, view, span) -> Score:
    network, feature, array = FRECHET[metric]
    frames = _kept(run, metric, span) if metric == "fid" else None
    name = array if metric == "fid" else f"{array}/{view}"
    real, fake = (Features(store, name, frames) for store in (run.real, run.fake))
    reference = real.gaussian()
    value = frechet.distance(reference, fake.gaussian())

    def resampled(weights):
        """With clips come their samples: both sides are drawn together."""
        samples = np.repeat(weights, run.plan.samples)
        return frechet.distance(real.gaussian(weights), fake.gaussian(samples))

    interval = bootstrap.interval(
        resampled,
        value,
        real.clips,
        run.plan.resamples,
        run.facts["seed"],
    )
    floor, floor_n = _floor(real, fake.clips, run.facts["seed"])
    width = reference.mean.size
    few = min(real.clips, fake.clips) * (1 if frames is None else len(frames)) <= width
    return _record(
        run,
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


def _floor(real: Features, count: int, seed: int) -> tuple[float | None, int]:
    """Two disjoint parts of the real clips, each of `count` clips if there are so many."""
    halves = bootstrap.halves(real.clips, seed)
    size = min(count, len(halves[0]))
    if size < 2:
        return None, 0
    random = np.random.default_rng(seed)
    fits = []
    for half in halves:
        weights = np.zeros(real.clips)
        weights[random.permutation(half)[:size]] = 1
        fits.append(real.gaussian(weights))
    return frechet.distance(*fits), size


def _mean(run, metric, view, values) -> Score:
    network = {"lpips": "lpips", "clip_score": "clip"}.get(metric, "")
    interval = bootstrap.mean_interval(values, seed=run.facts["seed"]) if len(values) > 1 else None
    start, stop = run.plan.scored.get(view, (0, run.plan.frames))
    return _record(
        run,
        metric,
        view,
        network,
        value=float(values.mean()),
        interval=interval,
        frames=len(_kept(run, metric, (start, stop))),
        n_real=0 if metric == "clip_score" else run.real.total,
    )


def _inception_score(run) -> Score:
    frames = _kept(run, "inception_score", (0, run.plan.frames))
    total = run.fake.total * len(frames)
    parts = (part.reshape(-1, part.shape[-1]) for part in run.fake.read("inception_logits"))
    splits = min(10, total)
    value, deviation = measures.inception_score(parts, total, splits)
    note = f"deviation over {splits} splits {deviation:.2g}"
    return _record(
        run, "inception_score", "", "inception", value=value, note=note, frames=len(frames)
    )


def _codes(run, metric) -> Score:
    if metric == "tokens":
        return _record(run, metric, "", "", value=float(next(run.fake.read("codes")).shape[1]))
    counts = np.zeros(run.codebook, np.int64)
    for tokens in run.fake.read("codes"):
        counts += measures.count_codes(tokens, run.codebook)
    value = getattr(measures, {"code_usage": "usage"}.get(metric, "perplexity"))(counts)
    few = counts.sum() < 20 * run.codebook
    note = f"of {counts.sum():,} codes" + (", fewer than 20 per entry: too low" if few else "")
    return _record(run, metric, "", "", value=value, note=note)


def _record(run, metric, view, network, feature="", **fields: Any) -> Score:
    extractor = run.networks[network] if network else None
    name = f"{metric}/{view}" if view else metric
    if extractor and not extractor.trained:
        name += PROXY
    asked = dict(frames=run.plan.frames, n_real=0, n=run.fake.total) | fields
    return Score(
        name=name,
        extractor=" ".join(filter(None, (extractor.name, feature))) if extractor else "none",
        checksum=extractor.checksum if extractor else "",
        resize=extractor.resize if extractor else "none",
        value_range=extractor.value_range if extractor else "[0, 1]",
        **run.facts,
        **asked,
    )
