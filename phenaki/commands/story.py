"""Samples a story: scenes one after another in one video of any length.

    phenaki story --model=laptop --output=out --story=two_minutes --preview
    phenaki story --model=laptop --output=out --scene="a red circle moves right@1.4" \\
        --scene="then a blue circle moves left@1.5"

The stories of `phenaki sample`, with the flags that they use. Writes story.mp4 with chapters, .srt,
.png, .gif of a short one, drift.json and drift.png, story_report.json, and every window to
--windows: a story that was interrupted resumes, one that was changed is sampled again from the
change on (docs/stories.md).
"""

from phenaki.commands import sampling_flags, stories
from phenaki.io import outputs
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
    inputs = [*sampling_flags.inputs(), *stories.inputs()]
    with outputs.claimed("output", sampling_flags.value("output"), "samples", inputs) as claim:
        from phenaki.pipeline import Phenaki

        model = Phenaki.load(sampling_flags.value("model"))
        stories.tell(model, scenes, claim.directory, sampling_flags.options(model))
