"""Sizes of the networks in configs."""

from collections.abc import Mapping

from phenaki.schema.rules import (
    Either,
    Field,
    Flag,
    Number,
    Seed,
    Several,
    Text,
    choice,
    whole,
)

Fields = Mapping[str, Field]

WIDTH, DEPTH, HEADS = whole(1, 1_000_000), whole(1, 10_000), whole(1, 10_000)
DROPPED = Number(0, 1, below=True)
LEVELS = Several(whole(1), least=1, such_as="(2, 2, 2)")
CODEBOOK = Field(whole(2), "number of codes")

TOKENIZER: Fields = {
    "name": Field(choice("cvivit", "vit_vqgan", "conv_vqgan", "conv3d_vqgan"), "the network"),
    "patch": Field(
        Several(whole(1), count=3, such_as="(2, 8, 8)"), "frames, rows and columns of a token"
    ),
    "width": Field(WIDTH, "hidden size of transformers: a multiple of heads"),
    "code_dim": Field(WIDTH, "size of a code"),
    "space_depth": Field(DEPTH, "layers over space, a side"),
    "time_depth": Field(DEPTH, "layers over time, a side"),
    "depth": Field(DEPTH, "layers of vit_vqgan, a side"),
    "heads": Field(HEADS, "of attention"),
    "mlp_dim": Field(WIDTH, "hidden size of MLPs"),
    "filters": Field(WIDTH, "channels of conv_vqgan's first level"),
    "multipliers": Field(LEVELS, "of filters, a level"),
    "widths": Field(LEVELS, "channels of conv3d_vqgan, a level"),
    "strides": Field(LEVELS, "between levels; their product is the patch"),
    "blocks": Field(
        Either(whole(), Several(whole(), least=1)), "residual blocks a level, or of each level"
    ),
    "groups": Field(whole(1), "of group norms"),
    "expansion": Field(whole(1), "of conv3d_vqgan's bottlenecks"),
    "codebook": CODEBOOK,
    "quantizer": Field(choice("vq", "fsq", "lfq"), "equation 1, or one that learns no codebook"),
}
# Network of config.tokenizer.name -> the fields that it takes, but name, patch and those below.
SIZES: Mapping[str, tuple[str, ...]] = {
    "cvivit": ("width", "space_depth", "time_depth", "heads", "mlp_dim"),
    "vit_vqgan": ("width", "depth", "heads", "mlp_dim"),
    "conv_vqgan": ("filters", "multipliers", "strides", "blocks", "groups"),
    "conv3d_vqgan": ("widths", "strides", "blocks", "expansion"),
}


def has_size(network: str | None, name: str) -> bool:
    """Whether `network` takes the field `name` of config.tokenizer."""
    is_size = any(name in sizes for sizes in SIZES.values())
    return name in SIZES.get(network or "", ()) or (name in TOKENIZER and not is_size)


_TRANSFORMER: Fields = {
    "depth": Field(DEPTH, "layers"),
    "width": Field(WIDTH, "hidden size: a multiple of heads"),
    "mlp_dim": Field(WIDTH, "hidden size of MLPs"),
    "heads": Field(HEADS, "of attention"),
    "dropout": Field(DROPPED, "fraction of activations"),
    "attention_dropout": Field(DROPPED, "fraction of attention weights"),
}
MASKGIT: Fields = {
    "codebook": CODEBOOK._replace(meaning="number of codes: that of the tokenizer"),
    **_TRANSFORMER,
    "position_init": Field(
        choice("normal", "factorised"), "first positions: random, or a sum over the axes"
    ),
}
CRITIC: Fields = {
    "kind": Field(choice("network", "head"), "a transformer, or a layer on MaskGIT's features"),
    "text": Field(Flag(), "whether it reads captions"),
    **_TRANSFORMER,
}
TEXT: Fields = {
    "vocabulary": Field(Text(), "bytes, a SentencePiece .model, or labels:FILE, a name a line"),
    "length": Field(whole(1, 4096), "ids of a caption; longer ones are cut"),
    "vocab_size": Field(whole(1), "rows of the embeddings"),
    "width": Field(WIDTH, "of an embedding"),
    "heads": Field(HEADS, "of attention"),
    "head_dim": Field(WIDTH, "of a head"),
    "layers": Field(DEPTH, "of the encoder"),
    "mlp_dim": Field(WIDTH, "hidden size of MLPs"),
    "relpos_std": Field(Number(0), "scale of random relative positions"),
    "relpos_far": Field(Number(), "bias of distant positions of a random encoder"),
    "relpos_per_layer": Field(Flag(), "whether every layer has relative positions of its own"),
    "weights": Field(Text(), "a T5 checkpoint, or random"),
    "seed": Field(Seed(32), "of a random encoder"),
    "cached": Field(Flag(), "whether every caption's embeddings stay on the host"),
}
