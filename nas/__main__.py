"""List the commands, or run one of them.

turbo-vaed
turbo-vaed search --latency-budget 30ms
"""

import ast
import importlib
import sys
from pathlib import Path

from nas.terminal.errors import unknown_name
from nas.terminal.parser import launcher_words, run_command

_FOLDER = Path(__file__).parent


def main(argv: list[str] | None = None) -> int:
    """List the commands, or run one in this process; returns the exit status."""
    words = sys.argv[1:] if argv is None else argv
    if not words or words[0] in ("-h", "--help"):
        return run_command(list_commands, continue_with=None)
    name, *arguments = words
    commands = find_commands()
    if name not in commands:
        print(f"error: {unknown_name('command', name, commands)}", file=sys.stderr)
        return 2
    status: int = importlib.import_module(commands[name][0]).main(arguments)
    return status


def list_commands() -> None:
    """Print every command with what it does."""
    commands, program = find_commands(), " ".join(launcher_words())
    print(f"usage: {program} COMMAND ...\n\ncommands:")
    width = max(map(len, commands))
    for name, (_, file) in commands.items():
        print(f"  {name:<{width}}  {_first_line(file)}")
    print(f"\nThe options of a command: {program} COMMAND --help")


def find_commands() -> dict[str, tuple[str, Path]]:
    """Name of every command -> its module and its file: a file directly in this folder, or a folder's `__main__.py`."""
    files = {file.stem: (f"nas.{file.stem}", file) for file in _FOLDER.glob("[!_]*.py")}
    folders = {file.parent.name: (f"nas.{file.parent.name}.__main__", file) for file in _FOLDER.glob("*/__main__.py")}
    return dict(sorted((files | folders).items()))


def _first_line(file: Path) -> str:
    """What a command does, without the details after a colon. It is not imported for that."""
    text = ast.get_docstring(ast.parse(file.read_bytes())) or ""
    return text.split("\n")[0].split(": ")[0].split(". ")[0].removesuffix(".")


if __name__ == "__main__":
    sys.exit(main())
