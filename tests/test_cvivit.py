"""C-ViViT: causal both ways, any 1 + 2n frames, frame 0 an image, tokens in raster order (§2.1)."""

import copy

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from phenaki.models.cvivit import CViViT

FRAMES, HEIGHT, WIDTH = 7, 8, 12
PATCH = (2, 4, 4)
T, M, N = 4, 2, 3  # no two axes alike
CODEBOOK = 64
MODEL = CViViT(
    frames=FRAMES,
    size=(HEIGHT, WIDTH),
    patch=PATCH,
    width=16,
    code_dim=6,
    space_depth=1,
    time_depth=2,
    heads=2,
    mlp_dim=32,
    codebook=CODEBOOK,
)
LENGTHS = range(1, FRAMES + 1, PATCH[0])
RNG = np.random.default_rng(0)
VIDEO = RNG.uniform(size=(2, FRAMES, HEIGHT, WIDTH, 3)).astype(np.float32)
CODES = RNG.integers(CODEBOOK, size=(2, T, M, N)).astype(np.int32)


def latent_of(frame: int) -> int:
    """Frame 0 is latent 0; frames 2j - 1 and 2j are latent j."""
    return -(-frame // PATCH[0])


@pytest.fixture(scope="module")
def params():
    return tiny.random_params(MODEL, jnp.asarray(VIDEO))


@jax.jit
def forward(params, video):
    return MODEL.apply({"params": params}, video)


@jax.jit
def encode(params, video):
    return MODEL.apply({"params": params}, video, method="encode")


@jax.jit
def decode(params, tokens):
    return MODEL.apply({"params": params}, tokens, method="decode")


def test_the_encoder_is_causal_by_gradient(params):
    weights = RNG.normal(size=(T, M, N, 6)).astype(np.float32)

    @jax.jit
    @jax.jacrev
    def influence(video):
        inputs = MODEL.apply({"params": params}, video).quantized.inputs
        return jnp.einsum("tmne,btmne->t", weights, inputs)

    influence = np.abs(influence(VIDEO[:1])).sum((1, 3, 4, 5))  # [latent, frame]
    allowed = [[latent_of(frame) <= latent for frame in range(FRAMES)] for latent in range(T)]
    np.testing.assert_array_equal(influence > 0, allowed)


def test_the_decoder_is_causal_by_gradient(params):
    weights = RNG.normal(size=(FRAMES, HEIGHT, WIDTH, 3)).astype(np.float32)

    @jax.jit
    @jax.jacrev
    def influence(vectors):
        video = MODEL.apply({"params": params}, vectors, method="_pixels")
        return jnp.einsum("fhwc,bfhwc->f", weights, video)

    vectors = RNG.normal(size=(1, T, M, N, 6)).astype(np.float32)
    influence = np.abs(influence(vectors)).sum((1, 3, 4, 5))  # [frame, latent]
    allowed = [[latent <= latent_of(frame) for latent in range(T)] for frame in range(FRAMES)]
    np.testing.assert_array_equal(influence > 0, allowed)


@pytest.mark.parametrize("frame", range(1, FRAMES))
def test_tokens_ignore_later_frames(params, frame):
    other = VIDEO.copy()
    other[:, frame:] += 3 * RNG.normal(size=other[:, frame:].shape)
    before, after = encode(params, VIDEO), encode(params, other)
    latent = latent_of(frame)
    np.testing.assert_array_equal(before[:, :latent], after[:, :latent])
    assert (before[:, latent] != after[:, latent]).any()


@pytest.mark.parametrize("latent", range(1, T))
def test_frames_ignore_later_tokens(params, latent):
    other = CODES.copy()
    other[:, latent:] = (other[:, latent:] + 1) % CODEBOOK
    before, after = decode(params, CODES), decode(params, other)
    frame = 1 + (latent - 1) * PATCH[0]
    np.testing.assert_array_equal(before[:, :frame], after[:, :frame])
    assert (before[:, frame] != after[:, frame]).any()


@pytest.mark.parametrize("frames", LENGTHS)
def test_a_prefix_has_the_prefix_of_tokens_and_frames(params, frames):
    latents = latent_of(frames - 1) + 1
    tokens = encode(params, VIDEO[:, :frames])
    np.testing.assert_array_equal(tokens, encode(params, VIDEO)[:, :latents])
    assert tokens.shape == (2, latents, M, N)
    video = decode(params, CODES[:, :latents])
    assert video.shape == (2, frames, HEIGHT, WIDTH, 3)
    np.testing.assert_allclose(video, decode(params, CODES)[:, :frames], atol=1e-5)


def test_frame_zero_alone_has_the_tokens_of_frame_zero_in_a_clip(params):
    images = VIDEO.reshape(-1, 1, HEIGHT, WIDTH, 3)[::FRAMES]
    np.testing.assert_array_equal(encode(params, images)[:, 0], encode(params, VIDEO)[:, 0])


def without(params, *blocks):
    """Parameters whose `blocks` pass their input on: tokens no longer meet there."""
    params = copy.deepcopy(jax.device_get(params))
    for block in blocks:
        out = params[block]["layers"]["attention"]["out"]
        params[block]["layers"]["attention"]["out"] = jax.tree.map(np.zeros_like, out)
    return params


@pytest.mark.parametrize("cell", [(0, 0, 0), (1, 0, 2), (2, 1, 0), (3, 1, 1)])
def test_tokens_are_in_raster_order(params, cell):
    t, m, n = cell
    frames = slice(0, 1) if t == 0 else slice(2 * t - 1, 2 * t + 1)
    other = VIDEO.copy()
    other[:, frames, 4 * m : 4 * m + 4, 4 * n : 4 * n + 4] += RNG.normal(size=(4, 4, 3)) * 3
    there = np.zeros((T, M, N), bool)
    there[t, m, n] = True
    along_time = np.zeros_like(there)
    along_time[t:, m, n] = True
    across_space = np.zeros_like(there)
    across_space[t] = True
    for blocks, allowed in (
        (("encoder_space", "encoder_time"), there),
        (("encoder_space",), along_time),
        (("encoder_time",), across_space),
    ):
        alone = without(params, *blocks)
        inputs = [np.asarray(forward(alone, x).quantized.inputs) for x in (VIDEO, other)]
        touched = (inputs[0] != inputs[1]).any((0, -1))
        np.testing.assert_array_equal(touched, allowed, err_msg=f"without {blocks}")
        flat = touched.reshape(-1)
        assert flat[(t * M + m) * N + n]

    tokens = CODES.copy()
    tokens[:, t, m, n] = (tokens[:, t, m, n] + 1) % CODEBOOK
    alone = without(params, "decoder_space", "decoder_time")
    touched = (decode(alone, CODES) != decode(alone, tokens)).any((0, -1))
    allowed = np.zeros((FRAMES, HEIGHT, WIDTH), bool)
    allowed[frames, 4 * m : 4 * m + 4, 4 * n : 4 * n + 4] = True
    np.testing.assert_array_equal(touched, allowed)
    alone = without(params, "decoder_space")
    touched = (decode(alone, CODES) != decode(alone, tokens)).any((0, -1))
    allowed[frames.start :, 4 * m : 4 * m + 4, 4 * n : 4 * n + 4] = True
    np.testing.assert_array_equal(touched, allowed)


def inputs_of(params, x, method):
    """What each transformer of the `method` gets, flattened, in the order of their calls."""
    seen = {}

    def look(apply, arguments, keywords, context):
        if context.method_name == "__call__" and context.module.name in TRANSFORMERS:
            seen[context.module.name] = np.asarray(arguments[0])
        return apply(*arguments, **keywords)

    with nn.intercept_methods(look):
        MODEL.apply({"params": params}, jnp.asarray(x), method=method)
    return seen


TRANSFORMERS = ("encoder_space", "encoder_time", "decoder_time", "decoder_space")


def test_the_encoder_is_space_then_time_and_the_decoder_time_then_space(params):
    other = VIDEO.copy()
    other[:, 3:5, 4:, :4] += 3.0  # the tubelet of latent 2, row 1, column 0
    seen, changed = (inputs_of(params, x, "encode") for x in (VIDEO, other))
    assert list(seen) == ["encoder_space", "encoder_time"]
    there = np.zeros((T, M * N), bool)
    there[2, N] = True
    space, time = (seen[name] != changed[name] for name in seen)
    np.testing.assert_array_equal(space.any(-1).reshape(2, T, M * N)[0], there)
    # Time gets what space has mixed: all positions of the frame.
    whole = np.repeat(there.any(1, keepdims=True), M * N, axis=1)
    np.testing.assert_array_equal(time.any(-1).reshape(2, M * N, T)[0].T, whole)

    tokens = CODES.copy()
    tokens[:, 1, 1, 0] = (tokens[:, 1, 1, 0] + 1) % CODEBOOK
    seen, changed = (inputs_of(params, x, "decode") for x in (CODES, tokens))
    assert list(seen) == ["decoder_time", "decoder_space"]
    there = np.zeros((T, M * N), bool)
    there[1, N] = True
    time, space = (seen[name] != changed[name] for name in seen)
    np.testing.assert_array_equal(time.any(-1).reshape(2, M * N, T)[0].T, there)
    # Space gets what time has mixed: the same position of this and later frames.
    there[1:, N] = True
    np.testing.assert_array_equal(space.any(-1).reshape(2, T, M * N)[0], there)


def cut(video):
    """Flattened patches, in time-row-column-channel order, of frame 0 and of the tubelets."""
    first, rest = [], []
    for m in range(M):
        for n in range(N):
            square = video[:, :, 4 * m : 4 * m + 4, 4 * n : 4 * n + 4]
            first.append(square[:, :1].reshape(len(video), 1, -1))
            tubelets = [square[:, 2 * t - 1 : 2 * t + 1] for t in range(1, T)]
            rest.append(np.stack([x.reshape(len(video), -1) for x in tubelets], 1))
    return np.stack(first, 2), np.stack(rest, 2)


def test_stems_and_heads_agree_on_the_order_within_a_patch(params):
    first, rest = cut(VIDEO)

    @jax.jit
    def cut_by_the_encoder(video):
        seen = {}

        def look(apply, arguments, keywords, context):
            if context.module.name in ("first_in", "rest_in"):
                seen[context.module.name] = arguments[0]
            return apply(*arguments, **keywords)

        with nn.intercept_methods(look):
            MODEL.apply({"params": params}, video, method="encode")
        return seen

    @jax.jit
    def joined_by_the_decoder(tokens):
        def replace(apply, arguments, keywords, context):
            out = {"first_out": first, "rest_out": rest}.get(context.module.name)
            return apply(*arguments, **keywords) if out is None else jnp.asarray(out)

        with nn.intercept_methods(replace):
            return MODEL.apply({"params": params}, tokens, method="decode")

    seen = cut_by_the_encoder(VIDEO)
    np.testing.assert_array_equal(seen["first_in"], first)
    np.testing.assert_array_equal(seen["rest_in"], rest)
    np.testing.assert_array_equal(joined_by_the_decoder(CODES), VIDEO)


def test_images_train_all_but_the_stem_and_head_of_the_rest(params):
    @jax.jit
    @jax.grad
    def gradients(params, video):
        out = MODEL.apply({"params": params}, video)
        losses = out.quantized.codebook_loss + out.quantized.commitment_loss
        return jnp.square(out.video - video).mean() + losses

    of_still = jax.device_get(gradients(params, VIDEO[:, :1]))
    assert of_still["first_in"]["kernel"].shape == (4 * 4 * 3, 16)
    assert of_still["rest_in"]["kernel"].shape == (2 * 4 * 4 * 3, 16)
    assert of_still["first_out"]["kernel"].shape == (16, 4 * 4 * 3)
    assert of_still["rest_out"]["kernel"].shape == (16, 2 * 4 * 4 * 3)
    for name, gradient in of_still.items():
        for leaf in jax.tree.leaves(gradient):
            assert np.isfinite(leaf).all()
            assert leaf.any() == (not name.startswith("rest")), name
