# %% [markdown]
# # Own clips
#
# From a folder of videos to a model. Replace `clips` by your own folder; captions are in a CSV
# with `file,caption`, in a `.txt` next to each file, or the names of class folders. Here six
# clips are drawn, and the runs take two steps, so that the page can be tried in a minute. They
# learn nothing: leave `QUICK` out, and give the time that docs/own_clips.md names.

# %%
import csv
import subprocess
from pathlib import Path

import numpy as np

from phenaki.io import media

clips = Path("clips")
clips.mkdir(exist_ok=True)
with open(clips / "captions.csv", "w", newline="") as file:
    rows = csv.writer(file)
    rows.writerow(["file", "caption"])
    for number, name in enumerate(["red", "green", "blue"] * 2):
        video = np.full((17, 64, 64, 3), 0.1, np.float32)
        for frame in range(17):  # a square that moves right
            video[frame, 24:40, 2 * frame : 2 * frame + 16, number % 3] = 1
        media.write_mp4(clips / f"{number}.mp4", video, 8)
        rows.writerow([f"{number}.mp4", f"a {name} square moves right"])

# %% [markdown]
# ## Prepare, train both stages, sample

# %%
QUICK = ["--config.train.steps=2", "--config.optim.warmup=1", "--config.data.batch=2"]


def phenaki(*arguments):
    """Runs a command as a terminal would."""
    subprocess.run(["phenaki", *arguments], check=True)


captions = f"--captions={clips / 'captions.csv'}"
phenaki("prepare", f"--input={clips}", captions, "--output=data", "--size=32", "--fps=8")

# %%
data = "--config.data.sources=data"
small = ["--config.video.height=32", "--config.video.width=32"]  # the preset's own are 64
stage1 = ["--config=cvivit:small", data, *small, "--workdir=runs/cvivit"]
phenaki("train-cvivit", *stage1, *QUICK)

# %% [markdown]
# The preset also learns from single images; a folder of clips alone has none.

# %%
stage2 = ["--config=maskgit:small", data, "--config.data.image_batch=0"]
stage2 += ["--tokenizer=runs/cvivit", "--workdir=runs/maskgit"]
phenaki("train-maskgit", *stage2, *QUICK)

# %%
prompt = "--prompt=a red square moves right"
phenaki("sample", "--model=runs/maskgit", "--output=out", prompt, "--steps=2")
