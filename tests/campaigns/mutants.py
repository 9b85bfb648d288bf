"""Mutation tests: breaks the code one line at a time and checks that the tests notice.

make mutants                     all of them, some minutes
python tests/campaigns/mutants.py decoder  those with "decoder" in their claim
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from environment import ROOT


class Mutant(NamedTuple):
    """`old` becomes `new` in phenaki/`file`; then `tests` (a file of tests/ and -k) must fail."""

    claim: str
    file: str
    old: str
    new: str
    tests: tuple[str, str]


CVIVIT, STEP = "models/cvivit.py", "train/maskgit.py"
# Presets, and the tests that pin what docs/paper.md settles.
STAGE_1, STAGE_2 = "../configs/cvivit.py", "../configs/maskgit.py"
PINNED_OPTIMIZER = ("test_pinned.py", "tokenizers_optimizer_and_schedule")
PINNED_GAN = ("test_pinned.py", "gan_loss_its_penalty")
PINNED_EMA = ("test_pinned.py", "ema_in_bfloat16")
PINNED_STAGE_2 = ("test_pinned.py", "dropout_masks_and_smoothing")
PINNED_SAMPLERS = ("test_pinned.py", "lambda_temperature")
LAYER_ORDER = ("test_cvivit.py", "encoder_is_space_then_time_and_the_decoder")
MUTANTS = (
    Mutant(
        "Muon makes queries, keys and values orthogonal each by themselves",
        "train/optim.py",
        "dict(qkv=(3, 4),",
        "dict(qkv=(2, 3, 4),",
        ("test_optim.py", "each_by_itself"),
    ),
    Mutant(
        "the encoder is causal, by gradient",
        CVIVIT,
        "self.encoder_time = Transformer(self.time_depth, causal=True",
        "self.encoder_time = Transformer(self.time_depth, causal=False",
        ("test_cvivit.py", "encoder_is_causal_by_gradient"),
    ),
    Mutant(
        "the encoder is space, then time",
        CVIVIT,
        "x = self._over_space(x, self.encoder_space_position, self.encoder_space)\n"
        "        x = self._over_time(x, self.encoder_time_position, self.encoder_time)",
        "x = self._over_time(x, self.encoder_time_position, self.encoder_time)\n"
        "        x = self._over_space(x, self.encoder_space_position, self.encoder_space)",
        LAYER_ORDER,
    ),
    Mutant(
        "the decoder is time, then space",
        CVIVIT,
        "x = self._over_time(x, self.decoder_time_position, self.decoder_time)\n"
        "        x = self._over_space(x, self.decoder_space_position, self.decoder_space)",
        "x = self._over_space(x, self.decoder_space_position, self.decoder_space)\n"
        "        x = self._over_time(x, self.decoder_time_position, self.decoder_time)",
        LAYER_ORDER,
    ),
    Mutant(
        "the encoder is causal, by perturbation",
        CVIVIT,
        "self.encoder_time = Transformer(self.time_depth, causal=True",
        "self.encoder_time = Transformer(self.time_depth, causal=False",
        ("test_cvivit.py", "tokens_ignore_later_frames"),
    ),
    Mutant(
        "the decoder is causal, by gradient",
        CVIVIT,
        "self.decoder_time = Transformer(self.time_depth, causal=True",
        "self.decoder_time = Transformer(self.time_depth, causal=False",
        ("test_cvivit.py", "decoder_is_causal_by_gradient"),
    ),
    Mutant(
        "the decoder is causal, by perturbation",
        CVIVIT,
        "self.decoder_time = Transformer(self.time_depth, causal=True",
        "self.decoder_time = Transformer(self.time_depth, causal=False",
        ("test_cvivit.py", "frames_ignore_later_tokens"),
    ),
    Mutant(
        "frame 0 alone has the tokens of frame 0 in a clip",
        CVIVIT,
        "x + position[:t, None]",
        "x + position[-t:, None]",
        ("test_cvivit.py", "frame_zero_alone"),
    ),
    Mutant(
        "a prefix of 1 + 2n frames has the prefix of the tokens",
        CVIVIT,
        "x + position[:t, None]",
        "x + position[-t:, None]",
        ("test_cvivit.py", "a_prefix_has"),
    ),
    Mutant(
        "tokens are in raster order",
        CVIVIT,
        'rearrange(z, "b t (m n) e -> b t m n e"',
        'rearrange(z, "b t (n m) e -> b t m n e"',
        ("test_cvivit.py", "raster"),
    ),
    Mutant(
        "each row masks exactly the ceiling of γN",
        "sampling/schedules.py",
        "jnp.ceil(ratio * free)",
        "jnp.floor(ratio * free)",
        ("test_maskgit.py", "ceiling"),
    ),
    Mutant(
        "a masked ground-truth id changes no logit",
        STEP,
        "schedules.apply_mask(tokens, mask, model.mask_id)",
        "tokens",
        ("test_maskgit.py", "masked_truth"),
    ),
    Mutant(
        "the logits of an image are those of a 256-token forward",
        "blocks/token_transformer.py",
        "mask=None if valid is None else valid[:, None, None]",
        "mask=None",
        ("test_maskgit.py", "short_forward"),
    ),
    Mutant(
        "a tenth of the samples trains without text",
        "sampling/schedules.py",
        "(rows,)) >= drop",
        "(rows,)) >= 1.3 * drop",
        ("test_maskgit.py", "tenth"),
    ),
    Mutant(
        "a gathered kernel's gradient is split again",
        "blocks/sharding.py",
        "lambda _, grad: (constrain(grad, split),)",
        "lambda _, grad: (constrain(grad, axes),)",
        ("test_blocks_sharding.py", "kernel"),
    ),
    Mutant(
        "the dropping kernel is the plain form",
        "blocks/flash.py",
        "(weights * (d_weights - inner[...]))",
        "(weights * d_weights)",
        ("test_attention_impl.py", "dropping_kernel_is_the_plain_form"),
    ),
    Mutant(
        "dropped weights have no pattern",
        "blocks/dropout.py",
        "((16, 0x7FEB352D), (15, 0x846CA68B))",
        "()",
        ("test_dropout.py", "independently"),
    ),
    Mutant(
        "dropped text gets no gradient",
        "blocks/attention.py",
        "return jnp.where(mask.any(-1)[:, None, None], out, 0)",
        "return out",
        ("test_maskgit.py", "dropped_text"),
    ),
    Mutant(
        "λ = 0 is exactly conditional",
        "sampling/guidance.py",
        "return (1 + scale) * conditional - scale * unconditional",
        "return scale * conditional + (1 - scale) * unconditional",
        ("test_sampling.py", "exactly_conditional"),
    ),
    Mutant(
        "the sampler keeps the known tokens bit for bit",
        "sampling/decode.py",
        "filled = jnp.where(unknown, sampled, tokens)",
        "filled = sampled",
        ("test_sampling.py", "known_codes_stay"),
    ),
    Mutant(
        "the sampler leaves no mask",
        "sampling/decode.py",
        "following, passes, masked, filled, kept = ",
        "following, passes, filled, masked, kept = ",
        ("test_sampling.py", "known_codes_stay"),
    ),
    Mutant(
        "14, 39, 64, ... tokens are fixed per step",
        "sampling/decode.py",
        "np.arange(1, steps + 1) / steps)",
        "np.arange(steps) / steps)",
        ("test_sampling.py", "papers_counts"),
    ),
    Mutant(
        "a step sees the latent frames of all that it decodes",
        "sampling/views.py",
        "decoded = place < (length - masked)[:, None]",
        "decoded = place < (length - masked - 1)[:, None]",
        ("test_views.py", "sees_what_is_known"),
    ),
    Mutant(
        "tokens of a part keep their places in the clip",
        "blocks/token_transformer.py",
        "if places is None else self.position[places]",
        "if True else self.position[places]",
        ("test_views.py", "part_is_one_over_the_clip"),
    ),
    Mutant(
        "a critic may take back what was accepted",
        "sampling/decode.py",
        "score_fn(filled), free, score_noise",
        "score_fn(filled), unknown, score_noise",
        ("test_sampling.py", "critic_chooses"),
    ),
    Mutant(
        "a critic is taught that visible tokens are the data's",
        "train/critic.py",
        "    del sampled, tokens\n    return mask",
        "    del sampled, tokens\n    return ~mask",
        ("test_critic.py", "visible_codes"),
    ),
    Mutant(
        "the mean over tokens is one of the whole step",
        "losses/masked_tokens.py",
        "count * (rows / total)",
        "count * (len(count) / count.sum())",
        ("test_train_maskgit.py", "same_mean"),
    ),
    Mutant(
        "a negative prompt takes the place of no text",
        "sampling/sampler.py",
        "return text, embed(params, negative)",
        "return embed(params, negative), text",
        ("test_sampling.py", "negative_prompt"),
    ),
    Mutant(
        "resumed is uninterrupted: the data continue",
        "data/batches.py",
        "examples = dict.fromkeys(self._sizes, 0) | examples",
        "examples = dict.fromkeys(self._sizes, 0)",
        ("test_train.py", "resumed_equals"),
    ),
    Mutant(
        "resumed is uninterrupted: so do the random keys",
        STEP,
        "jax.random.fold_in(key, state.step)",
        "jax.random.fold_in(key, id(state) % 9973)",
        ("test_train.py", "resumed_equals and stage_2"),
    ),
    Mutant(
        "eight devices train as one does",
        "sharding.py",
        "return array[place[first] : place[first] + end - first]",
        "return array[: end - first]",
        ("test_train.py", "eight_devices and stage_2"),
    ),
    Mutant(
        "learning rates at 100k and 1M",
        "train/optim.py",
        "optax.warmup_cosine_decay_schedule(0.0, peak, warmup, decay)",
        "optax.warmup_cosine_decay_schedule(0.0, peak, warmup, decay + warmup)",
        ("test_paper.py", "learning_rates"),
    ),
    Mutant(
        "damaged records are not read",
        "data/records.py",
        "if _checksum(found[:length]) != found[length:]:",
        "if len(found) != length + _FOOTER:",
        ("test_seqio_source.py", "damaged_record"),
    ),
    Mutant(
        "a host's samples are its own",
        "data/host_rows.py",
        "return start + np.array(self.rows, np.int64)",
        "return start + np.arange(len(self.rows))",
        ("test_batches.py", "hosts_split"),
    ),
    Mutant(
        "hosts that share samples load the same rows",
        "data/host_rows.py",
        "mine = np.flatnonzero((positions == process).any(-1))",
        "mine = np.flatnonzero(positions[:, 0] == process)",
        ("test_host_rows.py", "every_mesh_of_a_job"),
    ),
    Mutant(
        "resumed with another batch size no clip is lost",
        "data/batches.py",
        "examples = dict.fromkeys(self._sizes, 0) | examples",
        "examples = {kind: taken * n for kind, n in self._sizes.items()}",
        ("test_batches.py", "another_size"),
    ),
    Mutant(
        "resumed with another mixture no clip is lost",
        "data/mixture_state.py",
        "return MixtureState(number, tuple(sources), tuple(past))",
        "return MixtureState(0, tuple(now))",
        ("test_mixture_state.py", "every_set_continues"),
    ),
    Mutant(
        "a resume with another network is refused by name",
        "train/workdir.py",
        'fixed = path.split(".")[0] in FIXED or path in discriminator',
        "fixed = path in discriminator",
        ("test_resume.py", "every_field_is_honoured"),
    ),
    Mutant(
        "an epoch has every record once",
        "data/mixture.py",
        'order = random(*self._seed, "order", epoch).permutation(self._count)',
        'order = random(*self._seed, "order", epoch).integers(0, self._count, self._count)',
        ("test_seqio_source.py", "each_epoch_shows"),
    ),
    Mutant(
        "shards that changed are written again",
        "data/prepare/shards.py",
        'if whole and content["fingerprint"] == fingerprint else None',
        "if whole else None",
        ("test_shards.py", "changed"),
    ),
    Mutant(
        "the gradient goes straight through the quantizer",
        "blocks/quantizer.py",
        "z + jax.lax.stop_gradient(e - z), tokens, z",
        "e, tokens, z",
        ("test_blocks.py", "straight_through"),
    ),
    Mutant(
        "a story window starts from the last five frames",
        "pipeline.py",
        "given = given[:, -given_counts[0][window.scene] :]",
        "given = given[:, : given_counts[0][window.scene]]",
        ("test_pipeline.py", "story_is_windows"),
    ),
    Mutant(
        "the discriminator has the tokenizer's rate",
        "train/tokenizer.py",
        "make_adversary(discriminator, make_optimizer(optim), **options)",
        "make_adversary(discriminator, make_optimizer("
        "dataclasses.replace(optim, rate=2 * optim.rate)), **options)",
        PINNED_OPTIMIZER,
    ),
    Mutant(
        "the discriminator has the tokenizer's schedule",
        "train/tokenizer.py",
        "make_adversary(discriminator, make_optimizer(optim), **options)",
        "make_adversary(discriminator, make_optimizer("
        "dataclasses.replace(optim, decay=None)), **options)",
        PINNED_OPTIMIZER,
    ),
    Mutant("R1 costs 10", STAGE_1, "r1=10.0,", "r1=1.0,", PINNED_GAN),
    Mutant(
        "the GAN loss is non-saturating",
        STAGE_1,
        'loss="non_saturating"',
        'loss="hinge"',
        PINNED_GAN,
    ),
    Mutant("all frames are judged", STAGE_1, "frames=None,", "frames=8,", PINNED_GAN),
    Mutant(
        "L_VP compares I3D's logits",
        STAGE_1,
        'i3d=("logits_mean",)',
        'i3d=("pool_mean",)',
        ("test_pinned.py", "layer_of_i3d"),
    ),
    Mutant("the EMA of stage 1 decays by 0.999", STAGE_1, "ema=0.999,", "ema=0.9999,", PINNED_EMA),
    Mutant("the EMA of stage 2 decays by 0.999", STAGE_2, "ema=0.999,", "ema=0.9999,", PINNED_EMA),
    Mutant(
        "Kinetics-600 has the rate of its files",
        STAGE_1,
        "c.video.fps = 25.0",
        "c.video.fps = 10.0",
        ("test_pinned.py", "frame_rate_of_each_set"),
    ),
    Mutant("dropout is 0.1", STAGE_2, " dropout=0.1,", " dropout=0.0,", PINNED_STAGE_2),
    Mutant(
        "training masks follow the cosine",
        STAGE_2,
        'c.mask = dict(schedule="cosine", ',
        'c.mask = dict(schedule="linear", ',
        PINNED_STAGE_2,
    ),
    Mutant("no first frames are given", STAGE_2, "prefix=0.0", "prefix=0.4", PINNED_STAGE_2),
    Mutant("masks are random", STAGE_2, "ordered=0.0", "ordered=0.4", PINNED_STAGE_2),
    Mutant("labels are not smoothed", STAGE_2, "smoothing=0.0", "smoothing=0.1", PINNED_STAGE_2),
    Mutant("λ is 6 in Table 2", STAGE_2, "guidance=6.0", "guidance=7.0", PINNED_SAMPLERS),
    Mutant("λ is 12 for the videos", STAGE_2, "guidance=12.0", "guidance=11.0", PINNED_SAMPLERS),
    Mutant(
        "Table 4 prints 36.4",
        "../configs/tables.py",
        "36.4,",
        "46.4,",
        ("test_tables.py", "printed_number"),
    ),
    Mutant(
        "Table 2 is sampled with λ 6",
        "../configs/tables.py",
        "MIX = dict(guidance=6.0",
        "MIX = dict(guidance=7.0",
        ("test_tables.py", "every_sampler"),
    ),
    Mutant(
        "tokens are those of the scored frames",
        "types.py",
        "1 + -(-(frames - 1) // self.patch[0]) * self.patch[0]",
        "1 + frames",
        ("test_tables.py", "table_3_counts"),
    ),
    Mutant(
        "a loss that climbs is skipped",
        "train/skip_updates.py",
        "limit = min(limit, self._spike * self._lowest)",
        "limit = limit",
        ("test_skip_updates.py", "climb_is_measured"),
    ),
    Mutant(
        "a number below its range is refused",
        "schema/rules.py",
        "if value < self.least or",
        "if value < self.least - 1 or",
        ("test_schema.py", "cannot_be_meant"),
    ),
    Mutant(
        "bool is no whole number",
        "schema/rules.py",
        "isinstance(value, kind) and not isinstance(value, bool)",
        "isinstance(value, kind)",
        ("test_schema.py", "cannot_be_meant"),
    ),
)


def notice(mutant: Mutant, copy: Path) -> str:
    """The tests' verdict on `mutant` in the working copy `copy`, which is restored afterwards."""
    path = copy / "phenaki" / mutant.file
    text = path.read_text()
    if text.count(mutant.old) < 1:
        return f"NO SUCH LINE in {mutant.file}"
    path.write_text(text.replace(mutant.old, mutant.new))
    name, which = mutant.tests
    command = [sys.executable, "-m", "pytest", "-q", "-x", f"tests/{name}", "-k", which]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True)
    path.write_text(text)
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    if done.returncode == 1 and failed:
        return "noticed: " + failed[0].removeprefix(f"FAILED tests/{name}::").split(" - ")[0]
    return "NOT NOTICED" if done.returncode == 0 else f"BROKEN: {done.stdout[-300:]}"


def main(words: list[str]) -> int:
    """Prints a line per mutant; returns 1 if one of them is not noticed."""
    verdicts = []
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory) / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "runs", "__pycache__"))
        for mutant in MUTANTS:
            if not words or any(word in mutant.claim for word in words):
                verdicts.append(notice(mutant, copy))
                print(f"{mutant.claim:58} {verdicts[-1]}", flush=True)
    noticed = sum(verdict.startswith("noticed") for verdict in verdicts)
    print(f"{noticed} of {len(verdicts)} mutants noticed")
    return int(noticed < len(verdicts))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
