"""Write docs/cli.md from the commands' own help: ``python tests/make_cli_docs.py``."""

from pathlib import Path

import click

from featcache.cli.main import featcache

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"
HEAD = """# The command line

Made from the commands' own `--help` by `python tests/make_cli_docs.py`; a test fails when it is stale.

Exit codes: 0 done, 1 failed, 2 bad input (one line says what was wanted, what was found and what to
do), 130 stopped by Ctrl-C or SIGTERM with everything finished kept.
"""


def pages(command: click.Command, name: str, parent: click.Context | None = None) -> list[str]:
    """The help of a command and of all its subcommands, as Markdown."""
    context = click.Context(
        command, info_name=name.split()[-1], parent=parent, max_content_width=100, terminal_width=100
    )
    text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    found = [f"## {name}\n\n```text\n{text}\n```\n"]
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found += pages(command.get_command(context, child), f"{name} {child}", context)
    return found


def render() -> str:
    """The whole page."""
    return "\n".join([HEAD, *pages(featcache, "featcache")])


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
