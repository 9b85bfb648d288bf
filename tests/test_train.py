"""Training: resuming, devices, micro-batches, averages, the codebook, and the optimiser."""

import dataclasses
import json
import re
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
import toy
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import PartitionSpec

from phenaki import sharding
from phenaki.blocks.quantizer import VectorQuantizer, normalize
from phenaki.errors import UserError
from phenaki.io import checkpoint, checkpoint_manager
from phenaki.losses.tokenizer import TokenizerLoss
from phenaki.models.tokenizer import Reconstruction
from phenaki.train import logs, maskgit, optim, state, tokenizer

ONE = jax.devices()[:1]


def assert_equal(one, other):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(one), jax.device_get(other))


def metrics(workdir):
    """The logged lines without what the clock says."""
    return [{k: v for k, v in line.items() if "second" not in k} for line in logs.read(workdir)]


# --- both stages, through the loop and real checkpoints


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module", autouse=True)
def compile_equal_steps_once(root):
    """A resumed run compiles what the first one did: here it may reuse it."""
    changes = dict(
        jax_compilation_cache_dir=str(root / "compiled"),
        jax_enable_compilation_cache=True,
        jax_persistent_cache_min_compile_time_secs=0.5,
        jax_persistent_cache_min_entry_size_bytes=-1,
    )
    before = {name: getattr(jax.config, name) for name in changes}
    for values in (changes, before):
        for name, value in values.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()  # it looks at these only once
        if values is changes:
            yield


@pytest.fixture(scope="module")
def stage_1(root):
    """(workdir, final state) of four steps without a break."""
    workdir = root / "stage_1"
    return workdir, tokenizer.train(tiny.tokenizer_config(), workdir, ONE)


@pytest.fixture(scope="module")
def stage_2(root, stage_1):
    workdir = root / "stage_2"
    return workdir, maskgit.train(tiny.maskgit_config(), stage_1[0], workdir, ONE)


@pytest.fixture
def train(stage_1):
    def run(stage, workdir, devices=ONE, **fields):
        if stage == "stage_1":
            return tokenizer.train(tiny.tokenizer_config(**fields), workdir, devices)
        return maskgit.train(tiny.maskgit_config(**fields), stage_1[0], workdir, devices)

    return run


@pytest.mark.parametrize("stage", ["stage_1", "stage_2"])
def test_resumed_equals_uninterrupted(stage, train, request, tmp_path):
    workdir, whole = request.getfixturevalue(stage)
    train(stage, tmp_path, train={"steps": 2})
    resumed = train(stage, tmp_path)
    assert int(resumed.step) == 4
    assert_equal(whole, resumed)
    assert metrics(workdir) == metrics(tmp_path)
    params, config, step = checkpoint.load_run(tmp_path)
    assert step == 4
    assert config.train.steps == 4
    assert_equal(params, whole.ema)


def test_cached_text_trains_as_text_encoded_in_the_step(train, stage_2, tmp_path):
    train("stage_2", tmp_path, text={"cached": False}, train={"steps": 2})
    for cached, online in zip(metrics(stage_2[0]), metrics(tmp_path), strict=False):
        assert cached == pytest.approx(online, rel=1e-4, abs=1e-6)


def test_a_run_with_a_discriminator_resumes_too(train, tmp_path):
    fields = dict(loss=dict(adversarial=0.1), gan=dict(width=8, frames=3))
    whole = train("stage_1", tmp_path / "whole", **fields)
    train("stage_1", tmp_path / "parts", **fields, train={"steps": 2})
    resumed = train("stage_1", tmp_path / "parts", **fields)
    assert_equal(whole, resumed)
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "parts")
    assert metrics(tmp_path / "whole")[-1]["gan/r1"] > 0


@pytest.mark.parametrize("stage", ["stage_1", "stage_2"])
def test_eight_devices_train_as_one_does(stage, train, request, monkeypatch, tmp_path):
    workdir, _ = request.getfixturevalue(stage)
    # Orbax compiles a hundred slices to share the writing: what it writes is tested below.
    monkeypatch.setattr(checkpoint_manager.Checkpoints, "save", lambda *arguments: None)
    mesh = dict(data=-1, fsdp=2, tensor=2)
    eight = train(stage, tmp_path, jax.devices(), mesh=mesh, train={"steps": 2})
    for alone, together in zip(metrics(workdir), metrics(tmp_path), strict=False):
        assert alone == pytest.approx(together, rel=1e-4, abs=1e-6)
    network = eight.params["transformer" if stage == "stage_2" else "encoder_space"]
    kernel = network["layers"]["attention"]["qkv"]["kernel"]
    expected = PartitionSpec(None, "fsdp", None, "tensor", None)
    assert kernel.sharding.is_equivalent_to(
        jax.sharding.NamedSharding(kernel.sharding.mesh, expected), kernel.ndim
    )
    assert len(kernel.sharding.device_set) == 8


def test_samples_are_written_while_training(stage_1, stage_2):
    for workdir, _ in (stage_1, stage_2):
        names = {path.name for path in (workdir / "samples").iterdir()}
        assert names == {"0000004.mp4", "0000004.png"}


def test_a_metrics_line_per_log_step(stage_1, stage_2):
    for workdir, _ in (stage_1, stage_2):
        lines = metrics(workdir)
        assert [line["step"] for line in lines] == [1, 2, 3, 4]
        assert all(np.isfinite(list(line.values())).all() for line in lines)
    first = metrics(stage_1[0])[0]
    assert {"loss/total", "loss/l2", "loss/vq", "psnr/first", "psnr/rest"} < set(first)
    assert {"loss/total", "video/loss", "video/accuracy", "grad_norm"} < set(lines[0])


# --- the loop, with the smallest step there is


def test_data_and_state_resume_where_they_were_on_other_devices_too(tmp_path):
    toy.run(tmp_path, steps=3, save_every=2)
    eight = toy.run(tmp_path, steps=5, save_every=2, devices=jax.devices())
    assert len({str(shard.index) for shard in eight.params["kernel"].addressable_shards}) == 8
    final = toy.run(tmp_path, steps=5, save_every=2)  # nothing is left to do
    assert len(final.params["kernel"].sharding.device_set) == 1
    for result in (eight, final):
        np.testing.assert_array_equal(result.params["kernel"], 1 + 2 + 3 + 4 + 5 + 5 * 0.5)


def test_the_time_spent_waiting_for_batches_is_logged(tmp_path, monkeypatch):
    counting = toy.counting
    monkeypatch.setattr(toy, "counting", lambda taken: map(_slowly, counting(taken)))
    toy.run(tmp_path, steps=10, log_every=10)
    line = logs.read(tmp_path)[-1]
    assert 0.4 < line["seconds_waited"] <= line["seconds"]  # a few are made in advance


def _slowly(batch):
    time.sleep(0.4)  # longer than a step even of a busy machine
    return batch


def test_lines_are_means_since_the_last(tmp_path):
    toy.run(tmp_path, steps=4, save_every=4, log_every=2)
    totals = 2 * np.cumsum(np.arange(1, 5) + 0.5)
    assert [line["loss/total"] for line in metrics(tmp_path)] == [
        totals[:2].mean(),
        totals[2:].mean(),
    ]


@pytest.mark.parametrize(
    ("section", "value"),
    [("model", {"width": 24}), ("tokenizer", {"codebook": 64}), ("video", {"fps": 5.0})],
)
def test_a_run_is_not_continued_with_another_network(section, value, tmp_path):
    toy.run(tmp_path, steps=1)
    with pytest.raises(UserError, match=rf"holds a run with another config\.{section}\."):
        toy.run(tmp_path, config=tiny.whole_config(**{section: value}))


@pytest.mark.parametrize("field", ["seed", "fingerprint"])
def test_a_run_is_not_continued_on_other_numbers(field, tmp_path):
    toy.run(tmp_path, steps=1)
    config = tiny.whole_config()
    config[field] = type(config[field])(7)
    with pytest.raises(UserError, match=rf"another config\.{field} "):
        toy.run(tmp_path, config=config)
    assert json.loads((tmp_path / "config.json").read_text())[field] != config[field]


@pytest.mark.parametrize(
    ("data", "mesh", "accumulate", "message"),
    [
        (
            dict(batch=6),
            (8, 1, 1),
            1,
            r"config\.data\.batch=6 must be a multiple of 8 .*nearest is 8",
        ),
        (dict(image_batch=12), (2, 2, 2), 4, r"config\.data\.image_batch=12 .* 16 .*nearest is 16"),
        ({}, (3, 1, 1), 1, r"config\.mesh=.* must multiply to the 8 devices"),
        ({}, (-1, -1, 1), 1, r"at most one -1"),
    ],
)
def test_batches_and_meshes_must_fit_the_devices(data, mesh, accumulate, message):
    sizes = dict(batch=16, image_batch=16) | data
    with pytest.raises(UserError, match=message):
        mesh = sharding.make_mesh(*mesh)
        for field, size in sizes.items():
            sharding.check_batch(f"config.data.{field}", size, mesh, accumulate)


@pytest.mark.parametrize(
    ("size", "accumulate"), [(12, 1), (12, 2), (9, 3), (8, 3), (7, 2), (20, 1)]
)
def test_the_mesh_that_is_named_fits_the_batch(size, accumulate):
    mesh = sharding.make_mesh(-1, 1, 1)
    with pytest.raises(UserError) as refused:
        sharding.check_batch("config.data.batch", size, mesh, accumulate)
    named = re.search(r"config\.mesh\.sequence=(\d+)", str(refused.value))
    assert (named is None) == (size % accumulate > 0)  # no mesh helps micro-batches
    if named:
        sharding.check_batch(
            "config.data.batch", size, sharding.make_mesh(-1, 1, 1, int(named[1])), accumulate
        )
    (nearest,) = re.findall(r"nearest is (\d+)", str(refused.value))
    sharding.check_batch("config.data.batch", int(nearest), mesh, accumulate)


# --- the optimiser


def test_the_average_follows_the_parameters():
    optimizer = optax.sgd(0.5)
    current = state.create({"w": jnp.ones(2)}, optimizer)
    step = jax.jit(lambda s: state.apply_gradients(s, {"w": jnp.ones(2)}, optimizer, ema=0.3))
    value = average = 1.0
    for count in range(5):
        current = step(current)
        value -= 0.5
        decay = min(0.3, (1 + count) / (10 + count))
        average = decay * average + (1 - decay) * value
        np.testing.assert_allclose(current.params["w"], value)
        np.testing.assert_allclose(current.ema["w"], average, rtol=1e-6)


def test_a_try_of_a_few_steps_is_told_which_warm_up_it_can_have():
    """The decay of a small preset is its number of steps, which alone is given."""
    config = tiny.tokenizer_config()
    options = optim.OptimOptions(**config.optim.to_dict() | dict(warmup=100, decay=5))
    with pytest.raises(UserError) as raised:
        optim.make_optimizer(options)
    assert str(raised.value) == (
        "config.optim.decay=5 must be above config.optim.warmup=100; nearest is 101. Where it "
        "follows config.train.steps, give more of them, or --config.optim.warmup=2."
    )
    optim.make_optimizer(dataclasses.replace(options, warmup=2))


def test_only_kernels_decay_and_the_whole_gradient_is_clipped():
    params = {
        "embedding": jnp.ones((3, 2)),
        "layers": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2), "scale": jnp.ones(2)},
    }
    optimizer = optim.adamw(lambda _: 0.1, b1=0.9, b2=0.99, weight_decay=0.01, clip=5.0)

    @jax.jit
    def update(gradients):
        updates, after = optimizer.update(gradients, optimizer.init(params), params)
        return optax.apply_updates(params, updates), optax.tree.get(after, "mu")

    after, _ = update(jax.tree.map(jnp.zeros_like, params))
    np.testing.assert_allclose(after["layers"].pop("kernel"), 1 - 0.1 * 0.01)
    assert all((leaf == 1).all() for leaf in jax.tree.leaves(after))
    for size in (1.0, 10.0):
        gradients = jax.tree.map(lambda x, size=size: size * jnp.ones_like(x), params)
        norm = size * np.sqrt(14)
        _, momentum = update(gradients)
        expected = 0.1 * size * min(1, 5 / norm)
        for leaf in jax.tree.leaves(momentum):
            np.testing.assert_allclose(leaf, expected, rtol=1e-5)


# --- the tokenizer's step, around a quantizer without a network


class Toy:
    """Pixels times a kernel are the quantizer's inputs, and its codes times another the video."""

    codebook, code_dim = 8, 3
    quantizer = VectorQuantizer(codebook, code_dim)

    def apply(self, variables, video):
        params = variables["params"]
        inputs = video @ params["in"]["kernel"]
        out = self.quantizer.apply({"params": params["quantizer"]}, inputs)
        return Reconstruction(out.vectors @ params["out"]["kernel"], out)

    def start(self, optimizer):
        random = np.random.default_rng(0)
        params = {
            "in": {"kernel": jnp.asarray(random.normal(size=(3, 3)), jnp.float32)},
            "out": {"kernel": jnp.asarray(random.normal(size=(3, 3)), jnp.float32)},
            "quantizer": {"embedding": jnp.asarray(random.normal(size=(8, 3)), jnp.float32)},
        }
        extra = tokenizer.initial_extra(TokenizerLoss(self, WEIGHTS, beta=0.25))
        return state.create(params, optimizer, extra)


WEIGHTS = dict(l2=1.0, vq=1.0)


def toy_step(optimizer, *, weights=WEIGHTS, beta=0.25, **changes):
    options = dict(ema=0.9, accumulate=1, usage_window=2, revive_until=0)
    loss = TokenizerLoss(Toy(), weights=weights, beta=beta)
    return jax.jit(tokenizer.TokenizerStep(loss, optimizer, **options | changes))


def clips(seed, rows=8, frames=3):
    random = np.random.default_rng(seed)
    return {"video": random.integers(256, size=(rows, frames, 4, 4, 3)).astype(np.uint8)}


KEY = jax.random.key(0)


def test_micro_batches_add_up_to_the_batch():
    optimizer = optim.adamw(lambda _: 0.01, b1=0.9, b2=0.99, weight_decay=0.01, clip=1.0)
    whole, parts = (toy_step(optimizer, accumulate=parts) for parts in (1, 4))
    batch = {"video": clips(0), "image": clips(1, rows=4, frames=1)}
    one, four = (step(Toy().start(optimizer), {}, batch, KEY) for step in (whole, parts))
    for expected, given in zip(jax.tree.leaves(one), jax.tree.leaves(four), strict=True):
        # Mean squared errors average; their logarithms are taken afterwards.
        np.testing.assert_allclose(expected, given, rtol=1e-4, atol=1e-6)


def test_samples_weigh_alike_whatever_their_kind():
    step = toy_step(optax.sgd(0.0), weights=dict(l2=1.0, vq=0.0))
    batch = {"video": clips(0), "image": clips(1, rows=4, frames=1)}
    _, together = step(Toy().start(optax.sgd(0.0)), {}, batch, KEY)
    expected = (8 * together["loss/l2"] + 4 * together["image/loss/l2"]) / 12
    np.testing.assert_allclose(together["loss/total"], expected, rtol=1e-6)


def test_beta_weighs_the_encoders_side():
    def after(beta):
        step = toy_step(optax.sgd(1.0), weights=dict(l2=0.0, vq=1.0), beta=beta)
        done, measured = step(Toy().start(optax.sgd(1.0)), {}, {"video": clips(0)}, KEY)
        return done.params["quantizer"]["embedding"], done.params["in"]["kernel"], measured

    before = Toy().start(optax.sgd(1.0)).params
    (table_0, kernel_0, measured_0), (table_1, kernel_1, measured_1) = after(0.0), after(1.0)
    assert np.any(table_0 != before["quantizer"]["embedding"])
    np.testing.assert_allclose(table_1, table_0, atol=1e-7)
    np.testing.assert_array_equal(kernel_0, before["in"]["kernel"])
    assert np.any(kernel_1 != before["in"]["kernel"])
    # Equal values, gradients on opposite sides (equation 1).
    np.testing.assert_allclose(measured_1["loss/vq"], 2 * measured_0["loss/vq"], rtol=1e-5)


def toy_codes(current, batch):
    inputs = normalize(
        jnp.asarray(batch["video"] / 255, jnp.float32) @ current.params["in"]["kernel"]
    )
    table = normalize(current.params["quantizer"]["embedding"])
    return np.asarray((inputs @ table.T).argmax(-1)), np.asarray(inputs).reshape(-1, 3)


def test_usage_is_of_the_last_whole_window():
    step = toy_step(optax.sgd(0.0), usage_window=2)
    current = Toy().start(optax.sgd(0.0))
    counts, shown = np.zeros(8), np.zeros(8)
    for index in range(5):
        batch = clips(index, rows=1, frames=1)
        counts += np.bincount(toy_codes(current, batch)[0].reshape(-1), minlength=8)
        if index % 2:
            shown, counts = counts, np.zeros(8)
        current, measured = step(current, {}, {"video": batch}, KEY)
        share = shown[shown > 0] / max(shown.sum(), 1)
        np.testing.assert_allclose(measured["codebook/usage"], (shown > 0).mean())
        np.testing.assert_allclose(
            measured["codebook/perplexity"], np.exp(-(share * np.log(share)).sum()), rtol=1e-5
        )


def test_dead_codes_are_drawn_again_from_the_data():
    step = toy_step(optax.sgd(0.0), usage_window=2, revive_until=4)
    current = Toy().start(optax.sgd(0.0))
    used = np.zeros(8, bool)
    for index in range(8):
        batch = clips(100 + index, rows=1, frames=1)
        batch["video"] = batch["video"] // 40 * 40 if index else batch["video"]
        tokens, inputs = toy_codes(current, batch)
        used[tokens] = True
        before = np.asarray(current.params["quantizer"]["embedding"])
        current, _ = step(current, {}, {"video": batch}, KEY)
        after = np.asarray(current.params["quantizer"]["embedding"])
        moved = (before != after).any(-1)
        if index == 0:
            assert moved.all()  # a start from data
        elif index % 2 and index < 4:
            np.testing.assert_array_equal(moved, ~used)
        else:
            assert not moved.any()
        nearest = np.abs(after[moved][:, None] - inputs).max(-1).min(-1)
        np.testing.assert_allclose(nearest, 0, atol=1e-6)
        if index == 0:
            np.testing.assert_array_equal(after, current.ema["quantizer"]["embedding"])
        if index % 2:
            used[:] = False
    kept = toy_step(optax.sgd(0.0), revive_until=4, from_data=False)  # a start's codes
    current, _ = kept(Toy().start(optax.sgd(0.0)), {}, {"video": clips(0)}, KEY)
    assert_equal(current.params, Toy().start(optax.sgd(0.0)).params)
    never = toy_step(optax.sgd(0.0), revive_until=0)
    current, _ = never(Toy().start(optax.sgd(0.0)), {}, {"video": clips(0)}, KEY)
    assert_equal(current.params, Toy().start(optax.sgd(0.0)).params)
