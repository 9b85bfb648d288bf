# %% [markdown]
# # First video
#
# The released model draws moving shapes: it is 9 MB, was trained in an hour on two CPU cores, and
# samples a clip in a second after it is compiled. It knows colours, shapes and directions, and
# nothing else.

# %%
from IPython.display import Video  # the only line that needs a notebook

from phenaki.io import media
from phenaki.pipeline import Phenaki
from phenaki.sampling.windows import Scene

model = Phenaki.load("laptop")

# %% [markdown]
# A clip is float32 `[b f h w 3]` in [0, 1]. The same seed gives the same video.

# %%
videos = model.generate(["a red circle moves left"], seed=0)
media.write_mp4("first.mp4", videos[0], model.spec.fps, media.scale_to_see(*videos.shape[2:4]))
Video("first.mp4", embed=True, html_attributes="controls loop autoplay muted")

# %% [markdown]
# ## A story
#
# Each scene has a prompt and a length in seconds. A window is sampled at a time, from the last
# five frames before it.

# %%
scenes = [
    Scene("a red circle moves right", 1.4),
    Scene("then a blue circle moves left", 1.5),
    Scene("then a blue square moves up", 1.5),
]
video, parts = model.story(scenes, seed=0)
media.write_mp4("story.mp4", video, model.spec.fps, media.scale_to_see(*video.shape[1:3]))
Video("story.mp4", embed=True, html_attributes="controls loop autoplay muted")

# %% [markdown]
# ## Around known pixels
#
# What is known stays as it is; the rest is sampled. Here the first frame is given.

# %%
animated = model.animate(videos[:, 0], ["a red circle moves up"], seed=1)
assert (animated[:, 0] == videos[:, 0]).all()
