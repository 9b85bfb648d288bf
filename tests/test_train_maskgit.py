"""Stage 2's step: logs by masked fraction, weights of samples, devices and micro-batches."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from phenaki.errors import UserError
from phenaki.losses import masked_tokens
from phenaki.models import factory
from phenaki.sampling import orders, schedules
from phenaki.train import logs, maskgit, state
from phenaki.types import Text

ROWS, CLIP, IMAGE, CODEBOOK = 16, 24, 4, 6
RNG = np.random.default_rng(0)
BATCH = {
    "video": {"tokens": RNG.integers(CODEBOOK, size=(ROWS, 6, 2, 2)).astype(np.int32)},
    "image": {"tokens": RNG.integers(CODEBOOK, size=(ROWS // 2, 1, 2, 2)).astype(np.int32)},
}
KEY = jax.random.key(3)


class Toy:
    """Logits of a position's own parameters and all tokens; records its inputs."""

    codebook, mask_id = CODEBOOK, CODEBOOK

    def __init__(self):
        self.fed = {}

    def apply(self, variables, tokens, text, *, deterministic, rngs):
        del deterministic, rngs
        params, logits = variables["params"], {}
        for kind, fed in tokens.items():
            jax.debug.callback(self._note, fed, text and text[kind])
            hidden = jnp.take(params["embedding"], fed, axis=0).mean(1, keepdims=True)
            logits[kind] = params["kernel"][: fed.shape[1]] + hidden
        return logits

    def _note(self, tokens, text):
        kind = "video" if tokens.shape[1] == CLIP else "image"
        self.fed.setdefault(kind, []).append((np.asarray(tokens), text))


def start():
    random = np.random.default_rng(1)
    params = {
        "kernel": jnp.asarray(random.normal(size=(CLIP, CODEBOOK)), jnp.float32),
        "embedding": jnp.asarray(random.normal(size=(CODEBOOK + 1, CODEBOOK)), jnp.float32),
    }
    return state.create(params, optax.sgd(1.0))


def run(batch=BATCH, embed=None, drop_text=0.0, accumulate=1, **options):
    """(parameters after one step, metrics, {kind: codes fed}) of one step."""
    toy = Toy()
    step = maskgit.MaskGITStep(
        toy, optax.sgd(1.0), encode=lambda frozen, part: part["tokens"], embed=embed,
        drop_text=drop_text, ema=0.9, accumulate=accumulate, **options,
    )  # fmt: skip
    after, metrics = jax.device_get(jax.jit(step)(start(), {}, batch, KEY))
    jax.effects_barrier()
    return after.params, metrics, toy.fed


def by_hand(kind, fed):
    """(-log p where masked [b s], the mask) of a sub-batch, in float64."""
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), start().params)
    logits = params["kernel"][: fed.shape[1]] + params["embedding"][fed].mean(1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    truth = BATCH[kind]["tokens"].reshape(len(fed), -1)
    nll = -np.take_along_axis(log_p, truth[..., None], -1)[..., 0]
    return nll, fed == Toy.mask_id, logits.argmax(-1) == truth


def test_deciles_are_means_over_the_samples_of_that_masked_fraction():
    _, metrics, fed = run()
    for kind in BATCH:
        nll, mask, hit = by_hand(kind, fed[kind][0][0])
        loss, accuracy = ((x * mask).sum(-1) / mask.sum(-1) for x in (nll, hit))
        tenth = np.minimum(mask.sum(-1) * 10 // mask.shape[1], 9)
        for index in range(10):
            own = tenth == index
            for name, values in (("loss", loss), ("accuracy", accuracy)):
                total, count = metrics[f"{kind}/{name}/masked_{10 * index}"]
                assert count == own.sum()
                np.testing.assert_allclose(total, values[own].sum(), rtol=1e-5, atol=1e-6)
    assert 0 < sum(metrics[f"video/loss/masked_{10 * i}"].count == 0 for i in range(10)) < 10


def test_a_share_of_the_clips_keeps_its_first_latent_frames():
    batch = {kind: jax.tree.map(lambda x: np.tile(x, (40, 1, 1, 1)), BATCH[kind]) for kind in BATCH}
    _, plain, before = run(batch)
    _, none, same = run(batch, per_frame=4, prefix=0.0)
    _, metrics, fed = run(batch, per_frame=4, prefix=0.5)
    for kind in BATCH:  # without a prefix nothing changes, and an image has none
        np.testing.assert_array_equal(before[kind][0][0], same[kind][0][0])
    np.testing.assert_array_equal(before["image"][0][0], fed["image"][0][0])
    mask = (fed["video"][0][0] == Toy.mask_id).reshape(-1, 6, 4)
    assert mask.any((1, 2)).all()
    visible = (~mask.any(2)).cumprod(1).sum(1)  # latent frames at the start without a mask
    usual = (~(before["video"][0][0] == Toy.mask_id).reshape(-1, 6, 4).any(2)).cumprod(1).sum(1)
    for count in range(1, 6):  # every length of a prefix is as frequent
        assert (visible >= count).mean() - (usual >= count).mean() > 0.5 * (6 - count) / 5 * 0.5
    late = mask[visible == 5]
    assert len(late) > 20 and late[:, 5].any(1).all()
    assert float(metrics["loss/total"]) != float(plain["loss/total"]) == float(none["loss/total"])


def test_some_samples_are_masked_along_the_orders_of_the_sampler():
    """Whole clips along the one of first windows, those with a prefix along that of later ones."""
    batch = {kind: jax.tree.map(lambda x: np.tile(x, (60, 1, 1, 1)), BATCH[kind]) for kind in BATCH}
    grid = (6, 2, 2)
    first, later = (orders.ranks(name, grid) for name in ("middle", "frames"))

    def fed(**ranks):
        return run(batch, per_frame=4, prefix=0.4, **ranks)[2]

    random = fed()
    same, some, all_of = (
        fed(ranks=functools.partial(schedules.sample_ranks, orders=(first, later), fraction=part))
        for part in (0.0, 0.5, 1.0)
    )

    def along(tokens, ranks):
        """Rows whose masks are the last of `ranks`."""
        mask = tokens == Toy.mask_id
        ranked = mask[:, np.argsort(ranks[: mask.shape[1]])]
        return (np.diff(ranked.astype(int), axis=1) >= 0).all(1)

    for kind in BATCH:
        np.testing.assert_array_equal(random[kind][0][0], same[kind][0][0])
        counts = [(one[kind][0][0] == Toy.mask_id).sum(1) for one in (random, all_of, some)]
        np.testing.assert_array_equal(counts[0], counts[1])  # as many masks, elsewhere
        np.testing.assert_array_equal(counts[0], counts[2])
    clips = all_of["video"][0][0]
    known = (clips != Toy.mask_id).reshape(-1, 6, 4).all(2)[:, 0]  # the first latent frame
    either = along(clips, first) | along(clips, later)
    assert either.all() and along(clips, later)[known].mean() > 0.9
    assert 0.3 < along(clips, later).mean() < 0.65 and along(clips, first).mean() > 0.5
    image = all_of["image"][0][0]
    assert along(image, first).all()
    found = along(some["video"][0][0], first) | along(some["video"][0][0], later)
    base = along(random["video"][0][0], first) | along(random["video"][0][0], later)
    assert 0.4 < found.mean() - base.mean() * 0.5 < 0.6


def test_samples_are_masked_along_fixed_orders_only():
    config = tiny.whole_config()
    config.mask.ordered = 0.5
    config.sample.order = "confidence"
    with pytest.raises(UserError, match="config.mask.ordered: .* nearest is middle"):
        maskgit.make_stage(config, {})
    config.sample.update(order="middle")
    config.sample.continued.update(order="frames")
    made = maskgit.make_stage(config, {}).step.ranks.keywords
    assert made["fraction"] == 0.5
    grid = factory.video_spec(config).grid()
    np.testing.assert_array_equal(made["orders"][0], orders.ranks("middle", grid))
    np.testing.assert_array_equal(made["orders"][1], orders.ranks("frames", grid))
    config.sample.continued.update(order=None)
    _, later = maskgit.make_stage(config, {}).step.ranks.keywords["orders"]
    np.testing.assert_array_equal(later, orders.ranks("middle", grid))


def test_a_logged_decile_is_over_all_steps_and_absent_without_samples():
    steps = [
        {"a": logs.Ratio(np.float32(6), np.float32(2)), "b": logs.Ratio(0.0, 0.0), "c": 1.0},
        {"a": logs.Ratio(np.float32(0), np.float32(0)), "b": logs.Ratio(0.0, 0.0), "c": 2.0},
        {"a": logs.Ratio(np.float32(9), np.float32(1)), "b": logs.Ratio(0.0, 0.0), "c": 6.0},
    ]
    assert logs.mean(steps) == {"a": 5.0, "c": 3.0}


def expected_loss(fed, reduction):
    """The step's loss by hand."""
    parts = {kind: by_hand(kind, np.concatenate([c for c, _ in fed[kind]])) for kind in fed}
    if reduction == "code":
        total = sum((nll * mask).sum() for nll, mask, _ in parts.values())
        return total / sum(mask.sum() for _, mask, _ in parts.values())
    samples = [(nll * mask).sum(-1) / mask.sum(-1) for nll, mask, _ in parts.values()]
    return np.concatenate(samples).mean()


@pytest.mark.parametrize("reduction", masked_tokens.REDUCTIONS)
def test_the_loss_is_the_same_mean_on_eight_devices_and_in_micro_batches(reduction):
    weigh = masked_tokens.REDUCTIONS[reduction]
    params, metrics, fed = run(weigh=weigh)
    np.testing.assert_allclose(metrics["loss/total"], expected_loss(fed, reduction), rtol=1e-5)
    devices = np.array(jax.devices()).reshape(8)
    mesh = jax.sharding.Mesh(devices, ("data",))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    others = {
        "8 devices": run(jax.device_put(BATCH, rows), weigh=weigh),
        "4 micro-batches": run(accumulate=4, weigh=weigh),
    }
    for name, (again, measured, _) in others.items():
        for one, other in zip(jax.tree.leaves(params), jax.tree.leaves(again), strict=True):
            np.testing.assert_allclose(one, other, atol=2e-6, err_msg=name)
        for metric in metrics:
            np.testing.assert_allclose(
                measured[metric], metrics[metric], rtol=1e-5, atol=1e-6, err_msg=metric
            )


def test_the_two_reductions_differ_and_smoothing_raises_the_loss():
    losses_of = {name: run(weigh=weigh)[1] for name, weigh in masked_tokens.REDUCTIONS.items()}
    assert abs(losses_of["code"]["loss/total"] - losses_of["sample"]["loss/total"]) > 1e-3
    assert losses_of["code"]["video/loss"] == losses_of["sample"]["video/loss"]
    plain, smooth = losses_of["sample"], run(smoothing=0.2)[1]
    assert smooth["loss/total"] != plain["loss/total"]
    assert smooth["video/accuracy"] == plain["video/accuracy"]


def test_the_schedule_decides_how_much_is_masked():
    def fraction(name):
        return (run(schedule=schedules.SCHEDULES[name])[2]["video"][0][0] == Toy.mask_id).mean()

    assert fraction("uniform") < fraction("cosine") < fraction("cubic")


def test_the_drop_rate_is_of_the_captions_there_are():
    def embed(frozen, part):
        del frozen
        rows = len(part["tokens"])
        return Text(jnp.ones((rows, 3, 2)), jnp.ones((rows, 3), bool) & part["captioned"][:, None])

    captioned = np.arange(ROWS) % 4 > 0  # a quarter has none
    batch = {"video": BATCH["video"] | {"captioned": captioned}}
    _, metrics, fed = run(batch, embed=embed, drop_text=0.5)
    seen = np.asarray(fed["video"][0][1].mask).any(-1)
    assert not seen[~captioned].any()
    dropped, count = metrics["video/dropped"]
    assert (dropped, count) == ((captioned & ~seen).sum(), captioned.sum())
    assert 0 < dropped < count
    assert metrics["video/unconditional"] == (~seen).mean()
    assert run(batch, embed=embed, drop_text=0.0)[1]["video/dropped"] == (0, 12)
    assert run(batch, embed=embed, drop_text=1.0)[1]["video/dropped"] == (12, 12)
