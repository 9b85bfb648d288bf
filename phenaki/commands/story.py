"""Samples a story: scenes one after another in one video of any length.

    python scripts/sample.py --model=checkpoints/laptop --output=out \\
        --story=examples/stories/two_minutes.yaml
    phenaki story --model=laptop --output=out --story=city --preview

The stories of `phenaki sample`, with the flags that they use. Writes story.mp4 with chapters, .srt,
.png, .gif of a short one, drift.json and drift.png, story_report.json, and every window to
--windows: a story that was interrupted resumes, one that was changed is sampled again from the
change on (docs/stories.md).
"""

from absl import flags

from phenaki.commands import sampling_flags, stories
from phenaki.io import paths
from phenaki.sampling import flag_rules

sampling_flags.define_model()
sampling_flags.define_options()
sampling_flags.define_story()


def main(argv):
    """Samples and writes."""
    del argv
    for sentence in flag_rules.check(sampling_flags.switched_on(), flag_rules.STORIES):
        sampling_flags.note(sentence)
    scenes = stories.scenes()
    output = paths.path(flags.FLAGS["output"].value)
    output.mkdir(parents=True, exist_ok=True)

    from phenaki.pipeline import Phenaki

    model = Phenaki.load(flags.FLAGS["model"].value)
    stories.tell(model, scenes, output, sampling_flags.options(model))
