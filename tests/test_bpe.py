"""CLIP's tokenizer on a vocabulary of seven merges: ids counted by hand, pieces, a wrong file."""

import gzip

import numpy as np
import pytest

from phenaki.errors import UserError
from phenaki.features.bpe import BytePairs, pieces

# Ids follow the 512 of single bytes: "th" is 512, "the</w>" 513 and so on.
MERGES = ["t h", "th e</w>", "c a", "ca t</w>", "n g</w>", "i n", "a a"]
START, END = 519, 520


def vocabulary(path, merges=MERGES):
    path.write_text("\n".join(["#version: 0.2", *merges, ""]))
    return path


@pytest.fixture
def tokenizer(tmp_path):
    return BytePairs(vocabulary(tmp_path / "merges.txt"), length=8)


@pytest.mark.parametrize(
    ("caption", "ids"),
    [
        ("The  CAT\n", [513, 515]),
        ("ink", [517, 74 + 256]),
        ("in", [72, 77 + 256]),  # no "i n</w>" is known
        ("sing", [82, 72, 516]),  # "n g</w>" is before "i n" in the file
        ("aaaa", [518, 64, 64 + 256]),  # from the left; the last a is another, "a</w>"
        ("é!", [127, 102 + 256, 0 + 256]),  # two bytes of UTF-8, printed in Latin-1
        ("😀", [172, 253, 246, 222 + 256]),  # bytes below the printed ones come after them
        ("", []),
    ],
)
def test_merges_apply_in_the_order_of_the_file(tokenizer, caption, ids):
    row = tokenizer.encode([caption])[0].tolist()
    assert row == [START, *ids, END, *[0] * (6 - len(ids))]


def test_a_long_caption_keeps_its_end_mark(tokenizer):
    ids = tokenizer.encode(["the cat", "the " * 6, "the " * 7])
    assert ids.dtype == np.int32
    assert ids[:, 0].tolist() == [START] * 3
    assert ids.argmax(1).tolist() == [3, 7, 7]  # where CLIP looks: the end mark
    assert ids[1].tolist() == ids[2].tolist()


def test_the_whole_file_makes_clips_49408_ids(tmp_path):
    # The public file has more merges than CLIP was trained with.
    merges = [f"x{index} y" for index in range(60_000)]
    tokenizer = BytePairs(vocabulary(tmp_path / "merges.txt", merges))
    assert tokenizer.size == 49_408
    ids = tokenizer.encode([""])
    assert ids.shape == (1, 77)
    assert ids[0, :3].tolist() == [49_406, 49_407, 0]


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("It's 2024, isn't it?", "it|'s|2|0|2|4|,|isn|'t|it|?"),
        ("'Tis rock'n'roll, y'all'd've", "'t|is|rock|'|n|'|roll|,|y|'|all|'d|'ve"),
        ("snake_case --- (x)", "snake|_|case|---|(|x|)"),
        ("caf\u0065\u0301 \u00a0NAÏVE", "café|naïve"),
        ("½ Ⅷ x² ٣٤", "½|ⅷ|x|²|٣|٤"),
        ("日本語 हि…", "日本語|ह|ि…"),
        ("salt &amp;amp; pepper &lt;3", "salt|&|pepper|<|3"),
        ("<|endoftext|>a", "<|endoftext|>|a"),
    ],
)
def test_captions_split_into_clips_pieces(caption, expected):
    found = pieces(caption)
    assert "|".join(found) == expected


def test_the_packed_file_reads_as_the_plain_one(tmp_path, tokenizer):
    packed = tmp_path / "merges.txt.gz"
    packed.write_bytes(gzip.compress((tmp_path / "merges.txt").read_bytes()))
    assert BytePairs(packed).ids == tokenizer.ids


def test_a_wrong_file_is_told_in_one_line(tmp_path):
    with pytest.raises(UserError, match="nowhere.gz: CLIP's vocabulary is missing; .*openai/CLIP"):
        BytePairs(tmp_path / "nowhere.gz")
    with pytest.raises(UserError, match="line 3: .* is no pair of symbols"):
        BytePairs(vocabulary(tmp_path / "words.txt", ["t h", "the", "c a"]))
    with pytest.raises(UserError, match="plain.gz is not bpe_simple_vocab"):
        BytePairs(vocabulary(tmp_path / "plain.gz"))
    (tmp_path / "image.txt").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(UserError, match="image.txt is not bpe_simple_vocab"):
        BytePairs(tmp_path / "image.txt")


def test_one_string_is_not_a_list_of_captions(tokenizer):
    with pytest.raises(TypeError, match="list of strings"):
        tokenizer.encode("the cat")
