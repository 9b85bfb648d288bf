"""Shell completion of `phenaki`: its commands and their flags, for bash, zsh and fish."""

import importlib
from collections.abc import Mapping
from typing import Any

from absl import flags
from ml_collections.config_flags import config_flags

from phenaki.io import shipped

Flag = tuple[str, str, list[str]]  # name, help, values; a boolean has no "=" behind its name

BASH = """_phenaki() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" words=""
  [ "$current" = "=" ] && current=""
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "{commands}" -- "$current"))
    return
  fi
  local flag="${{COMP_WORDS[COMP_CWORD-1]}}"
  [ "$flag" = "=" ] && flag="${{COMP_WORDS[COMP_CWORD-2]}}"
  case "${{COMP_WORDS[1]}} $flag" in
{values}
    *) case "${{COMP_WORDS[1]}}" in
{flags}
    esac ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  case "${{COMPREPLY[0]}}" in *=) compopt -o nospace ;; esac
}}
complete -o default -F _phenaki phenaki
"""
ZSH = """#compdef phenaki
_phenaki() {{
  if (( CURRENT == 2 )); then
    compadd -- {commands}
    return
  fi
  if compset -P '--*='; then
    case "$words[2] ${{words[CURRENT]%%=*}}" in
{values}
      *) _files ;;
    esac
    return
  fi
  case "$words[2]" in
{flags}
  esac
}}
compdef _phenaki phenaki
"""


def script(shell: str, modules: Mapping[str, str], summaries: Mapping[str, str]) -> str:
    """The completion script of "bash", "zsh" or "fish" for the commands of `modules`."""
    found = {command: _flags(module) for command, module in modules.items()}
    if shell == "fish":
        return _fish(found, summaries)
    values, names = [], []
    for command, own in found.items():
        words = " ".join(f"--{name}" for name, _, _ in own)
        names.append(
            f'      {command}) words="{words}" ;;'
            if shell == "bash"
            else f"    {command}) compadd -S '' -- {words} ;;"
        )
        for name, _, choices in own:
            if choices:
                case, words = f'"{command} --{name.removesuffix("=")}"', " ".join(choices)
                values.append(
                    f'    {case}) words="{words}" ;;'
                    if shell == "bash"
                    else f"      {case}) compadd -- {words} ;;"
                )
    template = BASH if shell == "bash" else ZSH
    return template.format(
        commands=" ".join(found), values="\n".join(values), flags="\n".join(names)
    )


def _fish(found, summaries):
    lines = ["complete -c phenaki -f"]
    for command, summary in summaries.items():
        lines.append(
            f"complete -c phenaki -n __fish_use_subcommand -a {command} -d {_quoted(summary)}"
        )
    for command, own in found.items():
        for name, text, choices in own:
            line = f"complete -c phenaki -n '__fish_seen_subcommand_from {command}'"
            line += f" -l {name.removesuffix('=')} -d {_quoted(text)}"
            if name.endswith("="):
                line += f" -x -a {_quoted(' '.join(choices))}" if choices else " -r -F"
            lines.append(line)
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _flags(module: str) -> list[Flag]:
    """The flags of a command; they leave absl's registry again, where commands share names."""
    before = set(flags.FLAGS)
    loaded: Any = importlib.import_module(f"phenaki.commands.{module}")
    own = flags.FLAGS.get_key_flags_for_module(loaded)
    found = []
    for flag in sorted(own, key=lambda flag: flag.name):
        choices = list(getattr(flag.parser, "enum_values", None) or [])
        if config_flags.is_config_flag(flag):
            choices = [f"{name}:" for name in shipped.presets()]
        name = flag.name if flag.boolean else f"{flag.name}="
        found.append((name, " ".join((flag.help or "").split()), choices))
    for name in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, name)
    return found
