"""Frames as players show them: order, times, orientation, colours and kind, for real containers."""

import functools
import io
import itertools
from fractions import Fraction

import av
import numpy as np
import player_media
import pytest
from numbered_clips import numbered, read_number
from PIL import Image
from player_media import encode, planes

from phenaki.data.prepare import clock, items, playback, video
from phenaki.io import images

# Containers with the codecs that people have in them; those with B-frames are in the second part.
FILES = """
a.avi mjpeg, a.avi ffv1, a.mov mjpeg, a.mov prores_ks, a.mkv ffv1, a.mkv libvpx, a.webm libvpx-vp9,
a.flv flv, a.wmv wmv2, a.mjpeg mjpeg, a.y4m wrapped_avframe, a.ivf libvpx, a.gif gif,
a.avi libx264, a.avi mpeg4, a.mp4 libx264, a.mp4 libx265, a.mp4 mpeg4, a.mov libx264, a.mkv libx264,
a.mkv mpeg2video, a.ts libx264, a.ts libx265, a.ts mpeg2video, a.m2ts libx264, a.mpg libx264,
a.mpg mpeg1video, a.mpg mpeg2video, a.vob mpeg2video, a.m2v mpeg2video, a.flv libx264,
a.asf libx264, a.h264 libx264, a.hevc libx265, a.3gp libx264, a.mxf mpeg2video, a.nut libx264
"""
FILES = [tuple(file.split()) for file in FILES.replace("\n", " ").split(",")]
READS_B_FRAMES = ("libx264", "libx265", "mpeg1video", "mpeg2video", "mpeg4")


def shown(path, rate: float = 25) -> list[int]:
    """The numbers of the frames that a player shows, a frame of the source at a time."""
    clips = video.clips(path, frames=1, fps=rate, height=48, width=64)
    return [read_number(clip.video[0]) for clip in clips]


@pytest.mark.parametrize(("name", "codec"), FILES, ids=lambda value: value)
def test_frames_are_shown_in_order_and_none_is_lost(tmp_path, name, codec):
    options = {"bf": "2"} if codec in READS_B_FRAMES else None
    encode(tmp_path / name, codec, options=options)
    kinds = {"a.h264": 0, "a.hevc": 0}
    assert items.kind_of(name) == "video" and kinds is not None
    assert shown(tmp_path / name) == list(range(12))
