"""The field's words: names and phrases that CONTRIBUTING.md's glossary replaces stay replaced."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SUFFIXES = {".md", ".py", ".sh", ".toml", ".yaml", ""}
# The glossary itself, and this test, name what they replace.
EXEMPT = {"CONTRIBUTING.md", "LICENSE", "tests/test_vocabulary.py"}
TOPS = ("benchmarks", "configs", "docs", "examples", "experiments", "phenaki", "scripts", "tests")
FILES = sorted(
    path
    for path in (*ROOT.glob("*"), *(p for top in TOPS for p in (ROOT / top).rglob("*")))
    if path.is_file()
    and path.suffix in SUFFIXES
    and not path.name.startswith(".")
    and str(path.relative_to(ROOT)) not in EXEMPT
    and not {"__pycache__", "golden", "results"} & set(path.parts)
)
# What is not to be written, as a regular expression -> what is, instead.
NAMES = {
    r"\bproduction\b|\bMeasured\b": "stories/render, WindowMetrics",
    r"\bstoryteller\b|\bTold\b|\bAids\b|\bNO_AIDS\b|\bgenerate\.tell\b": "stories/generate",
    r"\b[Tt]imelines?\b": "storyboard",
    r"\bstory_scores\b": "stories/prompt_check",
    r"\breceptive\b(?!.field)": "sampling/conditioning",
    r"phenaki[./]masking\b|\bmasking\.\w": "sampling/schedules",
    r"\b_Form\b|\bform_of\b|\bnumbers_of\b": "SamplingOptions.static, .traced",
    r"phenaki[./]build\b|\bbuild\.(py|tokenizer|maskgit|embed)": "models/factory",
    r"\bproducts\.py\b|\bproducts\.inner\b": "blocks/reductions",
    r"\bkernels\.\w|\bKEPT\b": "blocks/attention_impl, SAVE_FOR_BACKWARD",
    r"\bsharding\.whole\b|\bsharding\.gathered\b": "replicated, all_gather_with_sharded_gradient",
    r"\bmake_game\b|\b(both|either|the) players?\b|\bplayer(\[| = )": "make_gan_loss, GANLosses",
    r"\bper_sample\b|\bper_code\b": "weight_samples, weight_tokens",
    r"\bcareful\b|\bgo_back\b|\.steady\b|\bput_off\b": "skip_bad_updates, roll_back, healthy, kick",
    r"\bNotice\b|\bAlarm\b": "PreemptionSignal, Watchdog",
    r"phenaki[./]inflate\b|\binflate\(": "train/warm_start",
    r"\bby heart\b": "overfit one batch",
    r"\bill_runs\b|\bsick\b|\bill\b|\billness(es)?\b": "broken_runs, failure",
    r"\bLost\b|\bLETTERS\b|\bTally\b": "Skipped, SKIPPED_LOG, IngestReport",
    r"\bshowcase\b": "reports/demo",
    r"\bLAST\b|\bSEES\b": "output_layers, receptive_field",
    r"\bcritic\.whole\b": "merge_params",
    r"\bSMALL\b": "SHORT_SEQUENCE, EMBED_INIT",
    r"\bPAPER_FACTS\b": "docs/paper.md#anchor",
}
PHRASES = {
    r"\bstills\b|\b(a|one|per|each|every) still\b": "image(s)",
    # Not the caption of the synthetic images.
    r"\bpictures?\b(?! of a \{)": "image(s), figure",
    r"\bno numbers?\b": "not finite",
    r"\bstands\b(?! for\b)|\bstood\b": "exists, is complete",
    r"\bsaid\b": "logged, reported",
    r"\bgoes on\b|\bwent on\b|\bgo on\b": "resumes, continues",
    r"\bbeside\b": "next to, alongside, compared with",
    r"\ba training\b(?! (run|step|loop|clip|sample|set|state|example|batch))": "a training run",
    r"\btrainings\b": "training runs",
    r"\b(the|a|an|its|their|what|this|in) shares?\b|\bshares? of\b": "fraction, ratio",
    r"\bcosts? itself\b": "is skipped and reported",
    r"\brunning averages?\b": "EMA",
    r"\b(masked|sampled|known|unknown|hidden|visible|video|open) codes\b": "tokens",
    r"\bcodes of (a|the|all|its|each|every) (clips?|frames?|windows?|videos?|samples?)\b": "tokens",
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_fields_words_are_used(path):
    text = path.read_text("utf-8")
    found = [
        f"line {text.count(chr(10), 0, match.start()) + 1}: {match[0]!r}; say: {instead}"
        for pattern, instead in (NAMES | PHRASES).items()
        for match in re.finditer(pattern, text)
    ]
    assert not found, "\n".join(found)
