"""MaskGIT: what is masked, what it sees, and when it sees no text (§2.2)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from phenaki.models.maskgit import MaskGIT, embed_codes
from phenaki.sampling import schedules
from phenaki.train import maskgit, state
from phenaki.types import Text

GRID = (3, 2, 3)
CLIP, STILL = 18, 6  # codes of each
CODEBOOK, TEXT_DIM, LENGTH, ROWS = 10, 8, 5, 4
MODEL = MaskGIT(
    grid=GRID,
    codebook=CODEBOOK,
    width=16,
    depth=2,
    heads=2,
    mlp_dim=32,
    text_dim=TEXT_DIM,
    dropout=0.1,
    attention_dropout=0.1,
)
MASK = MODEL.mask_id
RNG = np.random.default_rng(0)
CODES = RNG.integers(CODEBOOK, size=(ROWS, CLIP)).astype(np.int32)
TEXT = Text(
    jnp.asarray(RNG.normal(size=(ROWS, LENGTH, TEXT_DIM)), jnp.float32),
    jnp.arange(LENGTH) < jnp.asarray([[5], [3], [1], [0]]),  # the last has no caption
)


@pytest.fixture(scope="module")
def params():
    return tiny.random_params(MODEL, jnp.asarray(CODES), TEXT)


@jax.jit
def logits_of(params, tokens, text, valid=None):
    return MODEL.apply({"params": params}, tokens, text, valid=valid)


@functools.partial(jax.jit, static_argnums=(1, 2))
def sample_mask(key, rows, length):
    return schedules.sample_mask(key, (rows, length))


@pytest.mark.parametrize("length", [1, 6, 37, 256])
def test_each_row_masks_the_ceiling_of_its_share(length):
    rows, key = 2000, jax.random.key(length)
    mask = np.asarray(sample_mask(key, rows, length))
    r = np.asarray(jax.random.uniform(jax.random.split(key)[0], (rows,)), np.float64)
    wanted = np.cos(np.pi / 2 * r) * length
    clear = abs(wanted - wanted.round()) > 1e-4  # float32 may round the others either way
    assert clear.mean() > 0.98
    np.testing.assert_array_equal(mask.sum(-1)[clear], np.ceil(wanted)[clear])
    assert mask.any(-1).all()


def test_the_share_follows_the_cosine_and_places_are_uniform():
    mask = np.asarray(sample_mask(jax.random.key(0), 4000, 100))
    count = np.arange(1, 101)
    # P(ceil(100 cos(pi r / 2)) <= c) = 1 - 2 acos(c / 100) / pi
    expected = 1 - 2 / np.pi * np.arccos(count / 100)
    assert np.abs((mask.sum(-1)[:, None] <= count).mean(0) - expected).max() < 0.03
    assert np.abs(mask.mean(0) - mask.mean()).max() < 0.04


def test_the_mask_is_seen_but_never_predicted(params):
    assert MASK == CODEBOOK
    assert params["embedding"].shape == (CODEBOOK + 1, 16)
    out = logits_of(params, CODES, TEXT)
    assert out.shape == (ROWS, CLIP, CODEBOOK)
    assert out.dtype == jnp.float32
    other = {**params, "embedding": params["embedding"].at[MASK].add(1.0)}
    np.testing.assert_array_equal(out, logits_of(other, CODES, TEXT))
    hidden = CODES.copy()
    hidden[:, 0] = MASK
    assert np.any(logits_of(params, hidden, TEXT) != logits_of(other, hidden, TEXT))


def test_every_position_sees_every_other(params):
    for place in (0, CLIP - 1):
        other = CODES.copy()
        other[:, place] = (other[:, place] + 1) % CODEBOOK
        changed = logits_of(params, CODES, TEXT) != logits_of(params, other, TEXT)
        assert changed.any(-1).all()


def test_an_image_is_a_short_forward(params):
    short = logits_of(params, CODES[:, :STILL], TEXT)
    valid = np.broadcast_to(np.arange(CLIP) < STILL, CODES.shape)
    long = logits_of(params, CODES, TEXT, valid)[:, :STILL]
    np.testing.assert_allclose(short, long, atol=1e-5)
    hidden = np.where(valid, CODES, MASK)
    np.testing.assert_array_equal(long, logits_of(params, hidden, TEXT, valid)[:, :STILL])


def test_only_the_caption_itself_is_seen(params):
    out = logits_of(params, CODES, TEXT)
    louder = jnp.where(TEXT.mask[..., None], TEXT.embeddings, 1e3)
    np.testing.assert_array_equal(out, logits_of(params, CODES, TEXT.replace(embeddings=louder)))
    other = TEXT.replace(embeddings=TEXT.embeddings + 1)
    changed = (out != logits_of(params, CODES, other)).any((1, 2))
    np.testing.assert_array_equal(changed, TEXT.mask.any(-1))  # the uncaptioned sees no text
    context = MODEL.apply({"params": params}, TEXT, method="context")
    ahead = jax.jit(lambda tokens: MODEL.apply({"params": params}, tokens, context=context))
    np.testing.assert_allclose(out, ahead(CODES), atol=1e-5)


def test_the_unconditional_network_has_no_text():
    model = MODEL.clone(text_dim=None)
    params = tiny.random_params(model, jnp.asarray(CODES))
    names = {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)}
    assert not any("text" in name or "cross" in name for name in names)
    assert jax.jit(model.apply)({"params": params}, CODES).shape == (ROWS, CLIP, CODEBOOK)


def test_codes_that_are_alike_start_alike():
    random = np.random.default_rng(0)
    tokens = random.normal(size=(40, 6)).astype(np.float32)
    unit = tokens / np.linalg.norm(tokens, axis=-1, keepdims=True)
    table = embed_codes(jnp.zeros((41, 32)), jnp.asarray(tokens), jax.random.key(0), 0.1)
    np.testing.assert_array_equal(table[-1], 0)  # [MASK] is no code
    apart = np.linalg.norm(table[:40, None] - table[None, :40], axis=-1)
    expected = 0.1 * np.sqrt(32) * np.linalg.norm(unit[:, None] - unit[None], axis=-1)
    np.testing.assert_allclose(apart, expected, atol=1e-4)


def test_factorised_positions_start_as_sums_over_the_axes():
    model = MODEL.clone(position_init="factorised", width=64)

    @jax.jit
    def init(key):
        return model.init(key, jnp.asarray(CODES), TEXT)["params"]["position"]

    table = np.asarray(init(jax.random.key(0))).reshape(*GRID, 64)
    axes = [table - table[:1], table - table[:, :1], table - table[:, :, :1]]
    for axis, difference in enumerate(axes):  # what one axis adds is alike wherever on the others
        rest = tuple(a for a in range(3) if a != axis)
        spread = difference - difference.mean(rest, keepdims=True)
        np.testing.assert_allclose(spread, 0, atol=1e-6)
        assert difference.any()
    assert 0.2 < table.std() < 0.33  # three tables of 0.15


def test_a_tenth_of_the_samples_trains_without_text():
    draw = jax.jit(lambda key: schedules.keep_text(key, 10_000, 0.1))
    for seed in range(3):
        assert abs(1 - draw(jax.random.key(seed)).mean() - 0.1) < 0.01


class Watched:
    """The model, noting what a step feeds it and what it answers."""

    mask_id, codebook = MASK, MODEL.codebook

    def __init__(self):
        self.seen = {}

    def apply(self, variables, tokens, *arguments, **keywords):
        logits = MODEL.apply(variables, tokens, *arguments, **keywords)
        for kind in tokens:
            jax.debug.callback(self._note, tokens[kind], logits[kind])
        return logits

    def _note(self, tokens, logits):
        kind = "video" if tokens.shape[1] == CLIP else "image"
        self.seen[kind] = np.asarray(tokens), np.asarray(logits, np.float64)


def first_step(params, drop_text):
    """(compiled step from `params` on given codes, the model it watches)."""
    watched = Watched()
    step = maskgit.MaskGITStep(
        watched,
        optax.sgd(1.0),
        encode=lambda frozen, part: part["ids"],
        embed=lambda frozen, part: part["text"],
        drop_text=drop_text,
        ema=0.9,
        accumulate=1,
    )

    @jax.jit
    def run(tokens, index=0):
        batch = {kind: {"ids": ids, "text": TEXT} for kind, ids in tokens.items()}
        current = state.create(params, optax.sgd(1.0)).replace(step=jnp.asarray(index))
        return step(current, {}, batch, jax.random.key(1))

    return run, watched


def test_a_masked_truth_reaches_the_loss_but_no_logit(params):
    run, watched = first_step(params, drop_text=0.0)
    tokens = {"video": CODES, "image": CODES[:, :STILL]}

    def go(tokens, index=0):
        grids = {kind: ids.reshape(ROWS, -1, *GRID[1:]) for kind, ids in tokens.items()}
        after, metrics = run(grids, index)
        jax.effects_barrier()
        return jax.device_get(after.params), metrics, dict(watched.seen)

    after, metrics, seen = go(tokens)
    other, losses = {}, {}
    for kind, (fed, logits) in seen.items():
        masked = fed == MASK
        np.testing.assert_array_equal(fed[~masked], tokens[kind][~masked])
        assert masked.any(-1).all()
        assert not masked.all()
        # Equation 3: a mean over the masked positions of each sample.
        chosen = np.take_along_axis(logits, tokens[kind][..., None], -1)[..., 0]
        nll = np.log(np.exp(logits).sum(-1)) - chosen
        losses[kind] = ((nll * masked).sum(-1) / masked.sum(-1)).mean()
        np.testing.assert_allclose(metrics[f"{kind}/loss"], losses[kind], rtol=1e-5)
        assert metrics[f"{kind}/unconditional"] == 0.25  # the one without a caption
        other[kind] = np.where(masked, (tokens[kind] + 1) % CODEBOOK, tokens[kind])
    np.testing.assert_allclose(metrics["loss/total"], np.mean(list(losses.values())), rtol=1e-5)

    after_other, metrics_other, seen_other = go(other)
    for kind in tokens:
        np.testing.assert_array_equal(seen[kind][0], seen_other[kind][0])
        np.testing.assert_array_equal(seen[kind][1], seen_other[kind][1])
    assert metrics["loss/total"] != metrics_other["loss/total"]
    *_, seen_later = go(tokens, index=1)
    assert all(np.any(seen[kind][0] != seen_later[kind][0]) for kind in tokens)  # other masks
    for kept, moved in ((after, params), (after, after_other)):
        assert np.any(kept["text_key_value"]["kernel"] != moved["text_key_value"]["kernel"])


def test_dropped_text_gets_no_gradient(params):
    run, _ = first_step(params, drop_text=1.0)
    after, metrics = run({"image": CODES[:, :STILL].reshape(ROWS, 1, *GRID[1:])})
    assert metrics["image/unconditional"] == 1
    layers, before = after.params["transformer"]["layers"], params["transformer"]["layers"]
    kept = [
        (after.params["text_key_value"], params["text_key_value"]),
        (layers["cross"], before["cross"]),
        (layers["norm_cross"], before["norm_cross"]),
    ]
    for pair in kept:
        jax.tree.map(np.testing.assert_array_equal, *pair)
    assert np.any(layers["attention"]["qkv"]["kernel"] != before["attention"]["qkv"]["kernel"])
