"""Fields of configs/*.py by their paths: what each may be, and what it means."""

from collections.abc import Mapping

from phenaki.schema import sampling
from phenaki.schema.networks import CRITIC, MASKGIT, TEXT, TOKENIZER
from phenaki.schema.rules import (
    Either,
    Field,
    Number,
    OrNone,
    Seed,
    Several,
    Text,
    ZeroOr,
    choice,
    whole,
)

Fields = Mapping[str, Field]

SEED = Seed(32)  # of config.seed: the keys of a training run have no more bits
STEP, INTERVAL = whole(), whole(1)
AMOUNT, FRACTION = Number(0), Number(0, 1)
DECAY = Number(0, 1, below=True)  # of an average: at 1 it never changes
SIZE = whole(1, 100_000)
AXIS = Either(whole(1), choice(-1))

VIDEO: Fields = {
    "frames": Field(whole(1, 100_000), "of a clip: 1 + a multiple of tokenizer.patch[0]"),
    "height": Field(SIZE, "pixels: a multiple of tokenizer.patch[1]"),
    "width": Field(SIZE, "pixels: a multiple of tokenizer.patch[2]"),
    "fps": Field(Number(0.01, 1000, below=True), "frames a second"),
}
OPTIM: Fields = {
    "name": Field(
        choice("adamw", "muon"), "muon: for the matrices of transformer layers, adamw for all else"
    ),
    "b1": Field(DECAY, "of AdamW, for the mean of gradients"),
    "b2": Field(DECAY, "of AdamW, for the mean of their squares"),
    "rate": Field(Number(0, 10, above=True), "peak of the learning rate"),
    "weight_decay": Field(Number(0, 10), "of kernels"),
    "decay": Field(OrNone(INTERVAL), "step at which the cosine reaches 0; None: constant rate"),
    "warmup": Field(STEP, "steps of the linear increase of the rate"),
    "clip": Field(Number(0, above=True), "largest global norm of a gradient"),
    "ema": Field(DECAY, "decay of the averaged parameters"),
    "accumulate": Field(INTERVAL, "micro-batches of a step"),
}
TRAIN: Fields = {
    "steps": Field(INTERVAL, "of the whole run"),
    "log_every": Field(INTERVAL, "steps between logged lines"),
    "save_every": Field(INTERVAL, "steps between checkpoints"),
    "sample_every": Field(INTERVAL, "steps between samples"),
    "keep": Field(INTERVAL, "newest checkpoints that are kept"),
    "from_step": Field(STEP, "checkpoint to resume from, once; 0: the newest"),
}
SAMPLE_COUNT = Field(whole(0, 10_000), "prompts of the scores at sample_every; 0: none")
RUN: Fields = {
    "guard.spike": Field(
        ZeroOr(Number(1, above=True)), "skips an update so many times the recent mean; 0: never"
    ),
    "guard.patience": Field(INTERVAL, "skipped updates in a row before a roll-back"),
    "guard.tries": Field(whole(), "roll-backs before the run stops"),
    "guard.hang_minutes": Field(AMOUNT, "a step may take before the run ends; 0: any time"),
    "mesh.data": Field(AXIS, "devices that split the batch; -1: the rest"),
    "mesh.fsdp": Field(AXIS, "devices that split batch and parameters; -1: the rest"),
    "mesh.tensor": Field(AXIS, "devices that split heads and MLPs; -1: the rest"),
    "mesh.sequence": Field(AXIS, "devices that split rows of tokens; -1: the rest"),
    "mesh.slices": Field(whole(1), "groups of devices that a slower network connects"),
    "dtype": Field(choice("float32", "bfloat16"), "of products; parameters are float32"),
    "remat": Field(
        choice("none", "full", "dots", "products"),
        "what the backward pass computes again: nothing, all but attention, all but matrix "
        "products, all but both",
    ),
    "unroll": Field(whole(1, 1000), "layers that are compiled as one"),
    "attention": Field(
        choice("auto", "xla", "splash", "cudnn", "mosaic"), "kernel; auto: the platform's"
    ),
    "seed": Field(SEED, "of parameters, masks, dropout and the order of data"),
}
LOSS_1: Fields = {
    "vq": Field(AMOUNT, "weight of L_VQ"),
    "adversarial": Field(AMOUNT, "weight of L_Adv; 0 builds no discriminator"),
    "perceptual": Field(AMOUNT, "weight of L_IP; 0 builds no network"),
    "video_perceptual": Field(AMOUNT, "weight of L_VP; 0 builds no network"),
    "l2": Field(AMOUNT, "weight of L_2"),
    "beta": Field(AMOUNT, "weight of the encoder's side of L_VQ"),
}
GAN: Fields = {
    "network": Field(choice("residual", "stylegan2"), "the discriminator"),
    "width": Field(whole(1, 10_000), "channels of its maps up to 32 px"),
    "frames": Field(OrNone(whole(1)), "random frames of a clip that it sees; None: all"),
    "loss": Field(choice("non_saturating", "hinge"), "of both networks"),
    "start": Field(STEP, "step from which both networks train"),
    "r1": Field(AMOUNT, "weight of the R1 penalty"),
    "r1_every": Field(INTERVAL, "steps between R1 penalties"),
    "lecam": Field(AMOUNT, "weight of the LeCam penalty"),
    "lecam_decay": Field(DECAY, "of its averages"),
    "adaptive_limit": Field(AMOUNT, "largest adaptive weight; 0: a fixed weight"),
}
CODEBOOK: Fields = {
    "usage_window": Field(INTERVAL, "steps over which usage is counted"),
    "revive_until": Field(STEP, "step until which unused codes are replaced; 0: never"),
    "decay": Field(DECAY, "of an EMA codebook; 0: codes learn by gradient"),
}
NAMES, SOME_NAMES = Several(Text()), Several(Text(), least=1)
WORLD: Fields = {
    "radius": Field(Number(0, above=True), "of a large shape, pixels"),
    "speed": Field(AMOUNT, "pixels a frame"),
    "subpixel": Field(whole(1, 1000), "start positions a pixel and axis"),
    "colours": Field(SOME_NAMES, "of shapes"),
    "shapes": Field(SOME_NAMES, "circle, square, triangle"),
    "directions": Field(SOME_NAMES, "right, left, down, up"),
    "backgrounds": Field(SOME_NAMES, "black, gray, navy, brown"),
    "sizes": Field(SOME_NAMES, "small, large"),
    "still_colours": Field(NAMES, "colours of images only"),
    "unnamed": Field(NAMES, "colours that captions of clips do not name"),
    "nameless": Field(FRACTION, "of the other clips, whose caption names no colour"),
    "held_out": Field(ZeroOr(whole(2)), "one in so many combinations is not trained on; 0: none"),
    "then": Field(FRACTION, "of clips that change midway"),
    "turn": Field(whole(), "frame of that change"),
    "wander": Field(FRACTION, "of clips that change, which start where earlier windows lead"),
    "pair": Field(FRACTION, "of clips with two shapes"),
}
BATCH: Fields = {
    "batch": Field(whole(), "clips of a step, of all devices; 0: images alone"),
    "image_batch": Field(whole(), "images of a step, of all devices; 0: clips alone"),
}
DATA: Fields = {
    "source": Field(
        choice("moving_shapes", "tfds", "codes"),
        "made shapes, data sets of pixels, or data sets of tokens",
    ),
    "sources": Field(Text(empty=True), "a data set, or several with rates: A=0.8,B=0.2"),
    "image_sources": Field(Text(empty=True), "the same for images; empty: those of sources"),
    **BATCH,
}
CAPTIONED: Fields = {
    **DATA,
    "captions": Field(
        choice("sampled", "first"), "of several captions another one in every epoch, or the first"
    ),
}


def _below(section: str, fields: Fields) -> Fields:
    return {f"{section}.{name}": field for name, field in fields.items()}


_WORLD = _below("data.world", WORLD)
_SAMPLE: Fields = {
    **_below("sample", sampling.OPTIONS),
    "sample.context": sampling.CONTEXT,
    **_below("sample.continued", sampling.OPTIONS),
}
MASK: Fields = {"mask.schedule": Field(choice(*sampling.SCHEDULES), "of the masked fraction")}
DROP_TEXT: Fields = {"drop_text": Field(FRACTION, "of samples that train without text")}

KIND = Field(choice("tokenizer", "maskgit", "critic"), "what is trained")

# What each kind of config has, in the order of its file.
KINDS: Mapping[str, Fields] = {
    "tokenizer": {
        "kind": KIND,
        **_below("video", VIDEO),
        **_below("tokenizer", TOKENIZER),
        **_below("optim", OPTIM),
        **_below("loss", LOSS_1),
        **_below("gan", GAN),
        "features.weights": Field(Text(), "directory of feature networks, or random for a try"),
        "features.i3d": Field(Several(Text(), least=1), "layers of I3D that L_VP compares"),
        "features.i3d_size": Field(
            whole(32, 224), "rows and columns that L_VP shows it; less costs less, pools need 224"
        ),
        **_below("codebook", CODEBOOK),
        **_below("data", DATA),
        **_WORLD,
        "start": Field(Text(empty=True), "run or bundle of a C-ViViT to start from; empty: none"),
        **_below("train", TRAIN),
        **RUN,
    },
    "maskgit": {
        "kind": KIND,
        **_below("model", MASKGIT),
        **_below("optim", OPTIM),
        **_below("text", TEXT),
        **DROP_TEXT,
        **MASK,
        "mask.prefix": Field(FRACTION, "of clips whose first latent frames are never masked"),
        "mask.ordered": Field(FRACTION, "of samples masked along the sampler's order"),
        "loss.reduction": Field(
            choice("sample", "code"), "mean of a sample's masked tokens, or of a step's"
        ),
        "loss.smoothing": Field(DECAY, "of labels"),
        "code_init": Field(AMOUNT, "scale of the codes in the initial embeddings; 0: none"),
        **_below("data", CAPTIONED),
        **_WORLD,
        **_SAMPLE,
        "start": Field(Text(empty=True), "run or bundle of a model to start from; empty: none"),
        **_below("presets.NAME", {k.removeprefix("sample."): v for k, v in _SAMPLE.items()}),
        **_below("train", {**TRAIN, "sample_count": SAMPLE_COUNT}),
        **RUN,
    },
    "critic": {
        "kind": KIND,
        **_below("critic", CRITIC),
        "labels": Field(
            choice("masked", "differs"), "fake: every masked token, or one that was sampled wrong"
        ),
        "prefix": Field(FRACTION, "of clips whose first frames are known"),
        **DROP_TEXT,
        **MASK,
        **_below("optim", OPTIM),
        **_below("data", BATCH),
        **_below("train", {**TRAIN, "sample_count": SAMPLE_COUNT}),
        **RUN,
    },
}
# What a stored run has besides, of its tokenizer or generator.
STORED: Fields = {
    "fingerprint": Field(Text(empty=True), "of the tokenizer"),
    "generator": Field(Text(empty=True), "fingerprint of the model that a critic judges"),
}
