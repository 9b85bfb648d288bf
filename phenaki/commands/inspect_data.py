"""Writes statistics of a prepared data set as one self-contained HTML page.

python scripts/inspect_data.py --data=DIR [--vocabulary=sentencepiece.model] [--most=2000]

Contact sheets, lengths and rates, tokens per caption, clips per source, brightness and range,
duplicates. Tokens are those of T5 if its vocabulary is given. Of large sets evenly spaced records
are read.
"""

from absl import flags

from phenaki.errors import UserError

_DATA = flags.DEFINE_string("data", None, "directory of the data set", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "path of the page; by default DIR/inspect.html")
_VOCABULARY = flags.DEFINE_string(
    "vocabulary", "bytes", "tokens to count: those of T5's sentencepiece.model, or bytes (ByT5)"
)
_LENGTH = flags.DEFINE_integer(
    "length",
    128,
    "tokens after which training truncates a caption: config.text.length",
    lower_bound=2,
)
_MOST = flags.DEFINE_integer("most", 2000, "records read per split")


def main(argv: list[str]) -> None:
    """Writes the page."""
    del argv
    from phenaki.data.prepare import inspect, inspect_page
    from phenaki.io import apart, artifacts, outputs, paths
    from phenaki.text import vocabulary

    if _MOST.value < 1:
        raise UserError(f"--most={_MOST.value}: must be at least 1, such as 2000.")
    directory = paths.path(_DATA.value)
    count, vocabulary_file = None, None
    if _VOCABULARY.value != "bytes":
        vocabulary_file = _VOCABULARY.value
        count = vocabulary.sentencepiece(_VOCABULARY.value, _LENGTH.value).count
    path = paths.path(_OUTPUT.value) if _OUTPUT.value else directory / "inspect.html"
    own = apart.resolved("--output", path.parent) == apart.resolved("--data", directory)
    inputs = [] if own else [("data", directory)]  # its page may lie in the data set
    outputs.admit_file(
        "output", path, inspect_page.is_page, [*inputs, ("vocabulary", vocabulary_file)]
    )
    found = inspect.measure(directory, _MOST.value, count, _LENGTH.value)
    with artifacts.atomic(path) as partial:
        partial.write_text(inspect_page.page(directory, found))
    for name, split in found.items():
        print(f"{name}: {inspect_page.sentence(split)}")
    print(f"written: {path}")
