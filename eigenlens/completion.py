"""`eigenlens completion`: a script that completes commands and options in a shell."""

from __future__ import annotations

import argparse
import importlib

from eigenlens.command import COMMANDS, CommandParser

EPILOG = """examples:
  eigenlens completion bash > ~/.eigenlens.bash     then: source ~/.eigenlens.bash in ~/.bashrc
  eigenlens completion zsh > ~/.eigenlens.zsh       then: source ~/.eigenlens.zsh in ~/.zshrc, after compinit

Printing takes seconds, since every command is asked for its options: write the file again only after an upgrade.
Options of commands whose extra is not installed are not completed. Everything else is completed as a file."""

_BASH = """_eigenlens() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} words=
    if ((COMP_CWORD == 1)); then
        words="{commands}"
    elif [[ $word == -* ]]; then
        case ${{COMP_WORDS[1]}} in
{cases}
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o bashdefault -o default -F _eigenlens eigenlens"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    parser.add_argument("shell", choices=("bash", "zsh"), help="shell that the script is for")


def run(args: argparse.Namespace) -> int:
    """Print the script. Returns: the exit status."""
    cases = "\n".join(f'            {name}) words="{" ".join(_options_of(name))}" ;;' for name in COMMANDS)
    if args.shell == "zsh":
        print("autoload -U bashcompinit && bashcompinit")
    print(_BASH.format(commands=" ".join(COMMANDS), cases=cases))
    return 0


def _options_of(command: str) -> list[str]:
    """Return the long options of a command; none where it cannot be imported."""
    parser = CommandParser()
    try:
        importlib.import_module(COMMANDS[command][0]).configure(parser)
    except ImportError:
        return []
    return sorted(option for option in parser._option_string_actions if option.startswith("--"))
