"""What a resumed run does with every field of its config: honoured exactly, or refused by name."""

import contextlib
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax.traverse_util import flatten_dict, unflatten_dict

from configs import critic as critics
from phenaki.data import batches
from phenaki.errors import UserError
from phenaki.io.checkpoint import save_config
from phenaki.train import optim, state, workdir

HONOURED, REFUSED = "honoured", "refused"
# Every field, or the section of those with the same answer. The longest path that fits counts.
FIELDS = {
    # What is trained: a checkpoint has its arrays, or they mean something else.
    **dict.fromkeys(("kind", "video", "tokenizer", "model", "text", "critic", "seed"), REFUSED),
    **dict.fromkeys(("fingerprint", "generator"), REFUSED),
    # What the first step alone takes.
    **dict.fromkeys(("start", "code_init", "optim.name"), REFUSED),
    **dict.fromkeys(("gan.network", "gan.width"), REFUSED),
    "data": HONOURED,  # below, and test_mixture_state.py
    "optim": HONOURED,  # below
    # The objective: test_skip_updates.py, also of what is new or gone in `extra`.
    **dict.fromkeys(("loss", "gan", "features", "codebook", "mask", "labels", "prefix"), HONOURED),
    "drop_text": HONOURED,
    # How a run goes: test_train.py, test_skip_updates.py, test_processes.py.
    **dict.fromkeys(("train", "guard", "mesh", "dtype", "remat", "unroll", "attention"), HONOURED),
    **dict.fromkeys(("sample", "presets"), HONOURED),
}


def answer(path):
    """That of the longest entry of `FIELDS` that `path` is, or lies in."""
    parts = path.split(".")
    for end in range(len(parts), 0, -1):
        if found := FIELDS.get(".".join(parts[:end])):
            return found
    raise AssertionError(f"config.{path}: decide what a resume does with another value")


def config_of(kind):
    """A whole plain config with a value in every field that has one."""
    if kind == "tokenizer":
        config = tiny.tokenizer_config(loss=dict(adversarial=0.1))
        config.start = "runs/images"
    else:
        config = tiny.whole_config()
        config.kind, config.fingerprint = "maskgit", "0123"
    fields = config.to_dict()
    if kind == "critic":
        own = critics.get_config("demo").to_dict()
        shared = {name: fields[name] for name in ("video", "tokenizer", "model", "text")}
        fields = own | shared | {"fingerprint": "0123", "generator": "4567"}
    return json.loads(json.dumps(fields))


def other(value):
    """Another value of its type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, list):
        return [*value, 1]
    return 7 if value is None else f"{value}2" if isinstance(value, str) else value + 1


KINDS = ("tokenizer", "maskgit", "critic")


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_is_honoured_or_refused_by_name(kind, tmp_path):
    before = config_of(kind)
    save_config(tmp_path, before)
    (tmp_path / "checkpoints" / "4").mkdir(parents=True)
    stored = (tmp_path / "config.json").read_bytes()
    assert workdir.claim(tmp_path, before) == tmp_path
    seen = set()
    for path, value in flatten_dict(before, sep=".").items():
        new = other(value)
        fields = unflatten_dict(flatten_dict(before, sep=".") | {path: new}, sep=".")
        seen.add(answer(path))
        if answer(path) == HONOURED:
            workdir.claim(tmp_path, fields)
            continue
        with pytest.raises(UserError) as raised:
            workdir.claim(tmp_path, fields)
        line = str(raised.value)
        assert (
            f"{tmp_path}: holds a run with another config.{path} ({value!r}, not {new!r})" in line
        )
        remedies = (f"--config.{path}={value},", "the run's own --tokenizer,", "own --generator,")
        assert any(remedy in line for remedy in remedies), line
        assert line.endswith("or a new --workdir.") and "\n" not in line
    assert seen == {HONOURED, REFUSED}
    assert (tmp_path / "config.json").read_bytes() == stored


def test_refusals_depend_on_what_the_checkpoint_has():
    before = config_of("tokenizer")

    def refusal(started=True, **fields):
        return workdir.refusal(before, before | fields, started)

    wider = dict(gan=before["gan"] | dict(width=32))
    assert refusal(**wider).startswith("config.gan.width (64, not 32); give --config.gan.width=64")
    assert not refusal(**wider, loss=before["loss"] | dict(adversarial=0.0))
    assert not refusal(started=False, **wider)
    # The start is not opened again: a run resumes without it.
    assert not refusal(start="")
    assert refusal(start="runs/others") and not refusal(started=False, start="runs/others")
    # A run from before the optimiser had a name was AdamW's.
    nameless, muon = dict(before["optim"]), before["optim"] | dict(name="muon")
    del nameless["name"]
    assert not refusal(optim=nameless)
    assert not workdir.refusal(before | dict(optim=nameless), before)
    line = workdir.refusal(before | dict(optim=nameless), before | dict(optim=muon))
    assert line == "config.optim.name ('adamw', not 'muon'); give --config.optim.name=adamw"
    assert not refusal(started=False, optim=muon)
    before = config_of("maskgit")
    assert refusal(text=None) == "config.text (given, not None); give the run's own config"
    assert "run's own --tokenizer" in refusal(tokenizer=before["tokenizer"] | dict(codebook=9))


# --- what honoured means


RATES = dict(rate=0.1, warmup=3, decay=9, b1=0.9, b2=0.99, weight_decay=0.1, clip=1.0)
CHANGES = dict(
    rate=0.3,
    warmup=2,
    decay=None,
    b1=0.5,
    b2=0.9,
    weight_decay=0.3,
    clip=0.1,
    ema=0.2,
    accumulate=2,
)


@pytest.mark.parametrize("field", CHANGES)
def test_an_optimiser_continues_with_the_moments_of_the_run(field):
    """The update after a resume is AdamW with the new number and the moments so far."""
    options = optim.OptimOptions(**RATES, ema=0.9, accumulate=1)
    optimizer = optim.make_optimizer(options)
    current = state.create({"kernel": jnp.array([1.0, -2.0])}, optimizer)
    gradients = [jnp.array([0.3, 0.4]), jnp.array([-0.6, 0.8]), jnp.array([3.0, 4.0])]
    for gradient in gradients[:2]:
        current = state.apply_gradients(current, {"kernel": gradient}, optimizer, ema=options.ema)
    new = dataclasses.replace(options, **{field: CHANGES[field]})
    optimizer = optim.make_optimizer(new)
    # What the checkpoint has is what the new optimiser needs.
    fresh = state.create({"kernel": jnp.zeros(2)}, optimizer)
    assert jax.tree.structure(fresh) == jax.tree.structure(current)
    after = state.apply_gradients(current, {"kernel": gradients[2]}, optimizer, ema=new.ema)

    moments = [current.opt_state[1][0].mu["kernel"], current.opt_state[1][0].nu["kernel"]]
    clipped = np.array(gradients[2]) * min(1, new.clip / 5)
    mean = new.b1 * moments[0] + (1 - new.b1) * clipped
    square = new.b2 * moments[1] + (1 - new.b2) * clipped**2
    direction = mean / (1 - new.b1**3) / (np.sqrt(square / (1 - new.b2**3)) + 1e-8)
    rate = float(optim.schedule(peak=new.rate, warmup=new.warmup, decay=new.decay)(2))
    kernel = current.params["kernel"]
    expected = kernel - rate * (direction + new.weight_decay * kernel)
    np.testing.assert_allclose(after.params["kernel"], expected, rtol=1e-5)
    decay = min(new.ema, 3 / 12)
    average = decay * current.ema["kernel"] + (1 - decay) * expected
    np.testing.assert_allclose(after.ema["kernel"], average, rtol=1e-5)


def test_moving_shapes_of_another_world_continue_at_their_number():
    def take(count, config, past=None):
        with contextlib.closing(batches.make(config, lambda captions: {})) as made:
            if past:
                made.set_state(past, tiny.tokenizer_config().data.to_dict())
            return [next(made)["video"]["video"] for _ in range(count)], made.get_state()

    other_world = tiny.tokenizer_config(data=dict(world=dict(radius=1.5, speed=0.5)))
    _, past = take(2, tiny.tokenizer_config())
    (after,), _ = take(1, other_world, past)
    whole, _ = take(3, other_world)
    np.testing.assert_array_equal(after, whole[2])
