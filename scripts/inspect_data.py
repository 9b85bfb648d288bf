"""Shows what a prepared data set holds, as one HTML page that needs nothing else.

python scripts/inspect_data.py --data=DIR [--vocabulary=sentencepiece.model] [--most=2000]

Contact sheets, lengths and rates, captions in tokens, the share of clips per source, brightness and
range, clips that are equal. Tokens are T5's where its vocabulary is given. Of large sets an even
part of the records is read.
"""

from pathlib import Path

from absl import flags

from phenaki import cli
from phenaki.errors import UserError

_DATA = flags.DEFINE_string("data", None, "directory of the data set", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "page to be written; DIR/inspect.html by default")
_VOCABULARY = flags.DEFINE_string(
    "vocabulary", "bytes", "what captions are counted in: T5's sentencepiece.model, or bytes (ByT5)"
)
_LENGTH = flags.DEFINE_integer(
    "length", 128, "tokens that training keeps of a caption: config.text.length", lower_bound=2
)
_MOST = flags.DEFINE_integer("most", 2000, "records read of each split")


def main(argv: list[str]) -> None:
    """Writes the page."""
    del argv
    from phenaki.data.prepare import inspect, inspect_page
    from phenaki.text import vocabulary

    if _MOST.value < 1:
        raise UserError(f"--most={_MOST.value}: must be at least 1, such as 2000.")
    directory = Path(_DATA.value)
    count = None
    if _VOCABULARY.value != "bytes":
        count = vocabulary.sentencepiece(_VOCABULARY.value, _LENGTH.value).count
    found = inspect.look(directory, _MOST.value, count, _LENGTH.value)
    path = Path(_OUTPUT.value) if _OUTPUT.value else directory / "inspect.html"
    path.write_text(inspect_page.page(directory, found))
    for name, split in found.items():
        print(f"{name}: {inspect_page.sentence(split)}")
    print(f"written: {path}")


if __name__ == "__main__":
    cli.run(main)
