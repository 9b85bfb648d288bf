"""Videos of prompts, from nothing, an image or a video: the part of `phenaki sample` without cuts.

Every function takes the model and values; flags are read in `sample.py`.
"""

import collections
from typing import Any

import numpy as np

from phenaki.commands import sampling_flags
from phenaki.errors import UserError
from phenaki.io import paths
from phenaki.sampling.options import resolve
from phenaki.stories import notes

VIDEO_FRAMES = 2400  # of --video that are kept, five minutes at 8 per second


def sample(
    model: Any,
    prompts: list[str | None],
    options: dict[str, Any],
    *,
    seed: int,
    frames: int | None = None,
    image: str | None = None,
    video: str | None = None,
    context: int | None = None,
) -> Any:
    """A video [f h w 3] per prompt: of `frames`, after the file `image`, or after that of `video`.

    The last `context` frames of `video` condition the new ones (§2.2); all are kept before them.
    """
    say(model, prompts, options, continues=bool(video or image))
    call = dict(seed=seed, **options)
    if video:
        given = read_video(video, model.spec)
        last = given[-_context(model, len(given), context) :].astype(np.float32) / 255
        added = model.follow(np.repeat(last[None], len(prompts), 0), prompts, **call)
        return [np.concatenate([given, np.rint(one * 255).astype(np.uint8)]) for one in added]
    if image:
        from phenaki.io import images as image_files

        with paths.local(image) as file:
            size = (model.spec.height, model.spec.width)
            first = image_files.read_frame(file, size, sampling_flags.note)
        return model.animate(np.repeat(first[None], len(prompts), 0), prompts, **call)
    return model.generate(prompts, frames=frames, **call)


def _context(model, frames, context):
    """How many of the last of `frames` condition the new ones."""
    from phenaki.sampling.windows import check_context

    if context is None:
        return min(model.context, model.spec.nearest_frames(frames))
    check_context(model.spec, context, "--context")
    if frames < context:
        raise UserError(f"--context={context}: --video has {frames} frames only.")
    return context


def say(
    model: Any, prompts: list[str | None], options: dict[str, Any], continues: bool = False
) -> None:
    """Notes what of prompts and options has no effect or is cut, in a call that `continues`.

    Raises:
        UserError: an option is out of its range, or the model takes no text.
    """
    chosen = resolve(model.defaults, continues=continues, **options)
    model.check_texts(prompts, chosen)
    for sentence in [
        *notes.of_texts(prompts, chosen, notes.about_model(model)),
        *notes.of_options([chosen], list(options), model.has_text),
        *sampling_flags.overridden_preset(model, options),
    ]:
        sampling_flags.note(sentence)


def read_video(path: str, spec: Any, first: int | None = None) -> np.ndarray:
    """The `first` frames of a video file, or the last `VIDEO_FRAMES` at most: uint8 [f h w 3]."""
    from phenaki.data.prepare import video
    from phenaki.io.images import UnreadableMedia

    last: collections.deque[video.Clip] = collections.deque(maxlen=VIDEO_FRAMES)
    count = 0
    try:
        shape: dict = dict(height=spec.height, width=spec.width)
        with paths.local(path) as file:
            for clip in video.clips(file, frames=1, fps=spec.fps, **shape):
                last.append(clip)
                count += 1
                if count == first:
                    break
    except UnreadableMedia as error:
        raise UserError(f"--video={path}: {error.reason}; give another file.") from None
    size = (spec.height, spec.width)
    if last[-1].source_size != size:
        height, width = last[-1].source_size
        sampling_flags.note(
            f"{path}: {width}x{height} px resized and center-cropped to {size[1]}x{size[0]}."
        )
    if count > len(last):
        sampling_flags.note(f"{path}: the last {len(last)} of its {count} frames are kept.")
    return np.concatenate([clip.video for clip in last])
