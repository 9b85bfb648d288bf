"""Parser of the sizes in a T5X `config.gin`; nothing that the file names is imported."""

from typing import Any

from gin import config_parser

from phenaki.errors import UserError

# Fields of T5Encoder under the names of T5X's network, and of the macros of Flaxformer's.
GIN_NAMES = {
    "vocab_size": ("T5Config.vocab_size", "NUM_EMBEDDINGS"),
    "width": ("T5Config.emb_dim", "EMBED_DIM"),
    "heads": ("T5Config.num_heads", "NUM_HEADS"),
    "head_dim": ("T5Config.head_dim", "HEAD_DIM"),
    "layers": ("T5Config.num_encoder_layers", "NUM_ENCODER_LAYERS"),
    "mlp_dim": ("T5Config.mlp_dim", "MLP_DIM"),
}
ACTIVATIONS = ("T5Config.mlp_activations", "MlpBlock.activations")


def sizes(text: str, path: str) -> dict[str, int]:
    """Fields of T5Encoder from the `text` of a config.gin; `path` is for errors.

    Sizes that the file does not give, or computes, are left out. Raises UserError where it cannot
    be parsed, or gives another MLP than that of T5 v1.1.
    """
    bound: dict[str, Any] = {}
    try:
        for statement in config_parser.ConfigParser(text, _Names()):
            if isinstance(statement, config_parser.BindingStatement) and not statement.scope:
                name = statement.selector.split(".")[-1]
                bound[f"{name}.{statement.arg_name}".rstrip(".")] = statement.value
    except SyntaxError as error:
        raise UserError(f"{path}: is not gin: {error.msg} (line {error.lineno}).") from error

    def value(names: tuple[str, ...]) -> Any:
        found = next((bound[name] for name in names if name in bound), None)
        for _ in bound:  # macros may refer to macros, at most as many times as there are
            found = bound.get(found[1:]) if isinstance(found, str) and found[:1] == "%" else found
        return found

    activations = value(ACTIVATIONS)
    if activations is not None and tuple(activations) != ("gelu", "linear"):
        raise UserError(
            f"{path}: its MLPs have the activations {activations}; those of T5 v1.1 are "
            "('gelu', 'linear')."
        )
    found = {field: value(names) for field, names in GIN_NAMES.items()}
    return {field: size for field, size in found.items() if isinstance(size, int)}


class _Names(config_parser.ParserDelegate):
    """Keeps references as names, so that nothing is imported."""

    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool) -> str:
        del evaluate
        return f"@{scoped_configurable_name}"

    def macro(self, macro_name: str) -> str:
        return f"%{macro_name}"
