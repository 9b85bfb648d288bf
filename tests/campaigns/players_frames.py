"""Compares the frames of ten odd files with those of FFmpeg's filters: docs/frames.md.

python tests/campaigns/players_frames.py --before=FOLDER    FOLDER has an earlier version

Needs the system's `ffmpeg`, with zscale. Minutes. Each file shows one property; the page has the
middle frame as the earlier version reads it, as this version does, and as FFmpeg shows it.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from environment import ROOT

# isort: split
import numpy as np
from numbered_clips import numbered
from PIL import Image
from player_media import (
    animation,
    display_matrix,
    encode,
    planes,
    woven,
)

PAGE, FOLDER = ROOT / "docs" / "frames.md", ROOT / "docs" / "frames"
HEIGHT, WIDTH, RATE, COUNT = 96, 128, 25, 12
HDR = (
    "zscale=t=linear:npl=203,format=gbrpf32le,zscale=p=bt709,"
    "tonemap=mobius:param=0.5:peak=4.93:desat=0,zscale=t=bt709:m=bt709:r=full,format=rgb24"
)
OVER_WHITE = "split[a][b];[a]geq=r=255:g=255:b=255:a=255[w];[w][b]overlay=format=rgb,format=rgb24"
# Prints the frames of a file, or why there are none, of the version in the current folder.
READER = f"""
import sys, numpy as np
try: from phenaki.data.prepare import video
except ImportError: from phenaki.data import video
path, out = sys.argv[1:]
try:
    clips = list(video.clips(path, frames=1, fps={RATE}, height={HEIGHT}, width={WIDTH}))
    np.save(out, np.concatenate([clip.video for clip in clips]))
except ValueError as error: print(getattr(error, "reason", error))
"""


def scene(number: int) -> np.ndarray:
    """Bars of colour, an asymmetric mark, and the number of the frame in the lower half."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for place, colour in enumerate([(220, 40, 40), (60, 200, 60), (60, 80, 220), (235, 235, 235)]):
        image[: HEIGHT // 2, place * WIDTH // 4 : (place + 1) * WIDTH // 4] = colour
    image[4:24, 4:12] = image[4:10, 4:30] = 250
    image[HEIGHT // 2 :] = numbered(number, HEIGHT // 2, WIDTH)
    return image


SCENES = [scene(number) for number in range(COUNT)]


def interlaced(work: Path) -> Path:
    """Two fields of a moving box in each frame."""
    fields = []
    for time in range(2 * COUNT):
        image = scene(0)
        image[24:72, 4 + 4 * time : 28 + 4 * time] = 250
        fields.append(image)
    frames = woven(fields[1::2], fields[::2])
    return encode(work / "interlaced.ts", "mpeg2video", frames, options={"flags": "+ildct+ilme"})


def hdr(work: Path, transfer: int) -> Path:
    """A ramp from black to the peak, above a band of reference white."""
    frames = []
    for _ in range(3):
        frame = planes((64 + 876 * 0.75, 512, 512), "yuv420p10le", HEIGHT, WIDTH)
        if transfer == 16:
            frame = planes((64 + 876 * 0.58, 512, 512), "yuv420p10le", HEIGHT, WIDTH)
        luma = np.frombuffer(frame.planes[0], np.uint16).reshape(HEIGHT, -1).copy()
        luma[: HEIGHT // 2, :WIDTH] = np.linspace(64, 940, WIDTH)
        frame.planes[0].update(luma.tobytes())
        frames.append(frame)
    tags = dict(color_trc=transfer, color_primaries=9, colorspace=9, color_range=1)
    return encode(work / f"hdr{transfer}.mp4", "libx265", frames, pix_fmt="yuv420p10le", **tags)


def transparent(work: Path) -> Path:
    """Bars that fade out downwards."""
    alpha = np.broadcast_to(np.linspace(255, 0, HEIGHT).astype(np.uint8)[:, None], (HEIGHT, WIDTH))
    frames = [np.dstack([image, alpha]) for image in SCENES]
    return encode(work / "transparent.mov", "png", frames, pix_fmt="rgba")


def joined(work: Path) -> Path:
    """Two transport streams one after the other."""
    parts = [encode(work / f"{k}.ts", frames=SCENES[6 * k : 6 * k + 6]) for k in (0, 1)]
    (work / "joined.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    return work / "joined.ts"


def mirrored(work: Path) -> Path:
    """As front cameras and dashboards write it."""
    return display_matrix(encode(work / "mirrored.mp4", frames=SCENES), -1, 0, 0, 1)


def wide(work: Path) -> Path:
    """16:9 on a DVD: pixels wider than high."""
    from fractions import Fraction

    return encode(work / "wide.vob", "mpeg2video", SCENES, sample_aspect_ratio=Fraction(4, 3))


# name: (writer, filter of FFmpeg after its own rotation)
FILES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "H.264 with B-frames in AVI": (
        lambda work: encode(work / "b.avi", frames=SCENES, options={"bf": "2"}), "null",
    ),
    "sound before the video": (
        lambda work: encode(work / "sound.mov", frames=SCENES, options={"bf": "2"}, sound=True),
        "null",
    ),
    "joined transport streams": (joined, "null"),
    "mirrored display matrix": (mirrored, "null"),
    "pixels 4/3 as wide as high": (wide, "scale=iw*sar:ih:flags=bicubic,setsar=1"),
    "interlaced MPEG-2": (interlaced, "bwdif=mode=send_frame"),
    "HDR in PQ": (lambda work: hdr(work, 16), HDR),
    "HDR in HLG": (lambda work: hdr(work, 18), HDR),
    "video with transparency": (transparent, OVER_WHITE),
    "animated WebP": (
        lambda work: animation(work / "a.webp", SCENES, 40, lossless=True), "",
    ),
}  # fmt: skip


def of_version(folder: Path, path: Path, work: Path) -> np.ndarray | str:
    """Frames [f h w 3] as the version in `folder` reads them, or its reason to skip the file."""
    out = work / f"{path.name}.{folder.name}.npy"
    run = subprocess.run(
        [sys.executable, "-c", READER, str(path), str(out)],
        cwd=folder, env={"PYTHONPATH": str(folder), "PATH": "/usr/bin"}, text=True,
        capture_output=True, check=False,
    )  # fmt: skip
    return np.load(out) if out.exists() else (run.stdout or run.stderr).strip().splitlines()[-1]


def of_ffmpeg(path: Path, filters: str) -> np.ndarray:
    """Frames as FFmpeg's filters show them, at the size of a clip."""
    fit = f"scale={WIDTH}:{HEIGHT}:force_original_aspect_ratio=increase:flags=bicubic+accurate_rnd"
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-map", "0:v:0", "-vf"]
    command += [f"{filters},{fit},crop={WIDTH}:{HEIGHT}", "-fps_mode", "passthrough"]
    command += ["-pix_fmt", "rgb24", "-f", "rawvideo", "-"]
    content = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(content, np.uint8).reshape(-1, HEIGHT, WIDTH, 3)


def difference(frames: np.ndarray | str, reference: np.ndarray) -> str:
    """Mean absolute difference in levels of 0 to 255, and the number of frames if it is another."""
    if isinstance(frames, str):
        return "skipped"
    count = min(len(frames), len(reference))
    mean = np.abs(frames[:count].astype(int) - reference[:count]).mean()
    more = "" if len(frames) == len(reference) else f"; {len(frames)} frames of {len(reference)}"
    return f"{mean:.2f}{more}"


def row(name: str, before: Path, work: Path) -> str:
    """One file: three images, and two differences."""
    write, filters = FILES[name]
    path = write(work)
    reference = of_ffmpeg(path, filters) if filters else np.stack(SCENES)
    versions = {
        "before": of_version(before, path, work),
        "after": of_version(ROOT, path, work),
    }
    cells = [name]
    for label, frames in [*versions.items(), ("ffmpeg", reference)]:
        if isinstance(frames, str):
            cells.append("skipped")
            continue
        image = f"{name.split()[0].lower().strip('.')}_{name.split()[-1].lower()}_{label}.png"
        middle = frames[min(len(reference) // 2, len(frames) - 1)]
        Image.fromarray(middle).save(FOLDER / image, optimize=True)
        cells.append(f"![](frames/{image})")
    cells += [difference(frames, reference) for frames in versions.values()]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Writes the page and its images."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--before", type=Path, required=True, help="folder of an earlier version")
    before = parser.parse_args().before.resolve()
    FOLDER.mkdir(exist_ok=True)
    version = subprocess.run(["ffmpeg", "-version"], capture_output=True, text=True, check=True)
    lines = [HEADER.format(ffmpeg=version.stdout.split()[2])]
    with tempfile.TemporaryDirectory() as directory:
        for name in FILES:
            lines.append(row(name, before, Path(directory)))
            print(lines[-1], flush=True)
    PAGE.write_text("\n".join(lines) + "\n")


HEADER = """# Frames next to those of FFmpeg

Ten odd files, their middle frame as an earlier version read it, as this one does, and as the
filters of FFmpeg {ffmpeg} show it. Differences are means over all frames and pixels, in levels of 0
to 255, after all frames were cut to 128 x 96. `python tests/campaigns/players_frames.py` writes
this page; [data.md](data.md) has the rules.

The curves of `tonemap=mobius` and of BT.2390, which this version uses, differ a little. FFmpeg
reads no animated WebP; its reference is the images that were stored. Half of the 1.8 levels in
plain files is the rounding of FFmpeg's default conversion: its exact flags leave 0.9.

| file | before | after | FFmpeg | difference before | difference after |
|---|---|---|---|---|---|"""


if __name__ == "__main__":
    main()
