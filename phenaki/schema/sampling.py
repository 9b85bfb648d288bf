"""Options of sampling: of `SamplingOptions`, `config.sample`, flags of commands and story files."""

from collections.abc import Mapping

from phenaki.schema.rules import (
    Choice,
    Either,
    Field,
    Interval,
    Number,
    OrNone,
    Seed,
    Several,
    Text,
    choice,
    whole,
)

SEED = Seed(64)  # of samples: every one has a key of its own
SCHEDULES = ("cosine", "uniform", "linear", "square", "cubic", "exp")
SAMPLER_SCHEDULES = Choice((*SCHEDULES, "late"))
STEPS = whole(1, 10_000)
AMOUNT, FRACTION = Number(0), Number(0, 1)

# In the order of the fields of `SamplingOptions`.
OPTIONS: Mapping[str, Field] = {
    "steps": Field(STEPS, "decoding steps of a clip"),
    "choice_temperature": Field(AMOUNT, "noise on the choice of tokens, falling to 0"),
    "guidance": Field(Number(), "lambda; 0 is off, other tools' scale is 1 + lambda"),
    "guidance_schedule": Field(
        choice("constant", "linear", "falling"), "lambda over the steps: the same, rising, falling"
    ),
    "guidance_limit": Field(AMOUNT, "most that guidance adds to a log-probability; 0: no bound"),
    "guidance_min_p": Field(FRACTION, "guides codes this likely, against the likeliest; 0: all"),
    "guidance_interval": Field(Interval(), "fractions of the steps between which it guides"),
    "negative": Field(
        OrNone(Either(Text(empty=True), Several(OrNone(Text(empty=True))))),
        "a text that guidance leads away from, or one a sample",
    ),
    "temperature": Field(
        Either(AMOUNT, Several(AMOUNT, least=1)), "of the sampled tokens; several are a curve"
    ),
    "top_k": Field(whole(), "samples from the k likeliest codes; 0: all"),
    "top_p": Field(FRACTION, "samples from the likeliest codes of this mass; 1: all"),
    "min_p": Field(FRACTION, "samples codes this likely, against the likeliest; 0: all"),
    "order": Field(
        choice("confidence", "frames", "middle", "halton", "calibrated"),
        "which tokens are kept first: the most confident, or a fixed order",
    ),
    "calibrated": Field(Several(whole()), "positions that order=calibrated begins with"),
    "view": Field(
        choice("clip", "begun"), "what a pass sees: all, or latent frames with a token by its end"
    ),
    "schedule": Field(SAMPLER_SCHEDULES, "of the masked fraction"),
    "critic_guidance": Field(Number(), "lambda of the critic's own logits"),
    "critic_noise": Field(AMOUNT, "noise on the critic's logits, falling to 0"),
}
# A scene of a story.
SCENE: Mapping[str, Field] = {
    "prompt": Field(OrNone(Text()), "its text"),
    "seconds": Field(Number(0, above=True), "how long it lasts"),
    "frames": Field(whole(1, 100_000), "the same in frames"),
    "image": Field(OrNone(Text()), "the file of its first frame"),
    "cut": Field(OrNone(choice("hard", "morph")), "hard starts anew, morph continues"),
    "seed": Field(OrNone(SEED), "of its samples"),
}
CONTEXT = Field(whole(0, 10_000), "K, frames that the next window is conditioned on")
