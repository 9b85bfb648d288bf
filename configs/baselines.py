"""Table 3 and appendix B.1.1: what C-ViViT is compared with on Moments in Time.

    python scripts/train_cvivit.py --config=configs/baselines.py:vit_video --workdir=runs/vit_video

Variants, and the table's FID and FVD: vit (3.4, 166.6) and vit_video (3.8, 173.1), conv (7.5,
306.1) and conv_video (13.7, 346.5), the last of each with the video loss; all 2560 tokens for 10
frames. laion3d is the 3-D convolutional VQGAN of LAION's open reproduction: 1536 tokens.
laion3d_images trains it on single frames. vit_mini, conv_mini and laion3d_mini are the size of
configs/cvivit.py:mini, on its data.
"""

from ml_collections import ConfigDict

from phenaki.configs import cvivit
from phenaki.errors import UserError


def vit(c):
    """Table 3's per-frame ViT, 51.2M parameters: the layers of C-ViViT, all over space."""
    c.loss.video_perceptual = 0.0
    c.video.frames = 10  # none is special: Table 3's ten frames are 2560 tokens
    c.tokenizer = ConfigDict(
        dict(
            name="vit_vqgan",
            patch=(1, 8, 8),
            width=512,
            code_dim=32,
            depth=8,  # per side
            heads=8,
            mlp_dim=2048,
            codebook=8192,
        )
    )


def conv(c):
    """Table 3's convolutional VQGAN, 56.4M parameters, 2.1M of them in the codebook."""
    c.loss.video_perceptual = 0.0
    c.video.frames = 10
    c.tokenizer = ConfigDict(
        dict(
            name="conv_vqgan",
            patch=(1, 8, 8),
            filters=128,  # hidden
            multipliers=(1, 1, 2, 2, 4),
            strides=(2, 2, 2, 1),  # 16x16 tokens: five levels that all shrink would give 8x8
            blocks=2,
            groups=32,
            code_dim=256,
            codebook=8192,
        )
    )
    c.remat = "full"


def laion3d(c):
    """LAION's 3-D convolutional VQGAN, 43.4M parameters, 1536 tokens."""
    c.loss.video_perceptual = 0.0
    c.tokenizer = ConfigDict(
        dict(
            name="conv3d_vqgan",
            patch=(2, 8, 8),
            widths=(128, 256, 256, 512),
            strides=(2, 2, 2),
            blocks=(0, 0, 1, 8),
            expansion=4,
            code_dim=16,
            codebook=8192,
        )
    )
    c.remat = "full"


def laion3d_images(c):
    """The network of laion3d on images alone, each in 256 tokens."""
    laion3d(c)
    c.video.frames = 1


def with_video_loss(variant):
    """The rows "+ Video Loss": `variant` with C-ViViT's L_VP."""

    def apply(c):
        weight = c.loss.video_perceptual
        variant(c)
        c.loss.video_perceptual = weight

    apply.__doc__ = f"As {variant.__name__}, with C-ViViT's video loss."
    return apply


def vit_mini(c):
    """As vit, small: four tokens per frame, 44 per clip, where cvivit:mini has 24."""
    cvivit.mini(c)
    c.tokenizer = ConfigDict(
        dict(
            name="vit_vqgan",
            patch=(1, 12, 12),
            width=128,
            code_dim=16,
            depth=2,
            heads=4,
            mlp_dim=736,
            codebook=1024,
        )
    )


def conv_mini(c):
    """As vit_mini, by convolutions."""
    cvivit.mini(c)
    c.tokenizer = ConfigDict(
        dict(
            name="conv_vqgan",
            patch=(1, 12, 12),
            filters=16,
            multipliers=(1, 1, 3, 7),
            strides=(3, 2, 2),
            blocks=1,
            groups=8,
            code_dim=16,
            codebook=1024,
        )
    )


def laion3d_mini(c):
    """As laion3d, small: 24 tokens per clip, as cvivit:mini."""
    cvivit.mini(c)
    c.tokenizer = ConfigDict(
        dict(
            name="conv3d_vqgan",
            patch=(2, 12, 12),
            widths=(16, 32, 64, 96),
            strides=(3, 2, 2),
            blocks=(0, 0, 1, 5),
            expansion=4,
            code_dim=16,
            codebook=1024,
        )
    )


VARIANTS = dict(
    vit=vit, vit_video=with_video_loss(vit), conv=conv, conv_video=with_video_loss(conv),
    laion3d=laion3d, laion3d_images=laion3d_images,
    vit_mini=vit_mini, conv_mini=conv_mini, laion3d_mini=laion3d_mini,
)  # fmt: skip


def get_config(variant: str = "vit") -> ConfigDict:
    """The config of a variant."""
    if variant not in VARIANTS:
        raise UserError(
            f"configs/baselines.py:{variant}: no such variant; known: {', '.join(VARIANTS)}."
        )
    c = cvivit.paper()
    VARIANTS[variant](c)
    return c
