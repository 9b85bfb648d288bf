"""CLIP's tokenizer against that of transformers, and its pattern against the `regex` package."""

import unicodedata

import pytest

from phenaki.features.bpe import BytePairs, pieces

pytest.importorskip("torch")
regex = pytest.importorskip("regex")

from parity.hugging_face import transformers  # noqa: E402

PATTERN = regex.compile(
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
)
MERGES = ["t h", "th e</w>", "c a", "ca t</w>", "in g</w>", "i n", "n g</w>", "a a", "Ã ©</w>"]
CAPTIONS = [
    "The cat sat, singing; it's THE best cat's café in town!!",
    "aaaa aaa a, and 1234 naïve 日本語 😀 — ½ of ٣",
    "  don't   stop\tbelievin' \n they'll've gone ",
    "_under_score... (brackets) [x]{y}",
    "e\u0301te\u0301",
    "",
]


def test_ids_are_those_of_transformers(tmp_path):
    path = tmp_path / "merges.txt"
    path.write_text("\n".join(["#version: 0.2", *MERGES]))
    ours = BytePairs(path)
    theirs = transformers.CLIPTokenizer(
        vocab=ours.ids, merges=[tuple(merge.split()) for merge in MERGES]
    )
    for row, caption in zip(ours.encode(CAPTIONS), CAPTIONS, strict=True):
        expected = theirs(caption)["input_ids"]
        assert row[: len(expected)].tolist() == expected, caption
        assert not row[len(expected) :].any()


def test_every_character_is_of_the_class_that_regex_gives_it():
    # Each between letters, digits and after an apostrophe, but for "&", which may open an entity.
    characters = [chr(code) for code in range(0x20000) if chr(code) != "&"]
    known = [c for c in characters if unicodedata.category(c) not in ("Cn", "Cs")]
    caption = " ".join(f"a{c}1{c}'{c}{c}s" for c in known)
    clean = regex.sub(r"\s+", " ", unicodedata.normalize("NFC", caption)).strip().lower()
    assert len(known) > 80_000
    assert pieces(caption) == PATTERN.findall(clean)
