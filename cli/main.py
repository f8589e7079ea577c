"""The command ``featcache``: its subcommands, and how errors leave it."""

import logging
import os
import sys
from importlib import import_module
from typing import Any

import click

from featcache import __version__
from featcache.cli.signals import install
from featcache.errors import FeatcacheError, Interrupted

COMMANDS = (
    "demo", "doctor", "manifest", "extract", "probe", "predict", "explain", "compare", "report", "study",
    "fewshot", "cache", "datasets", "encoders", "heads",
)  # fmt: skip


class Commands(click.Group):
    """Subcommands by name, each in a module of that name, in the order in which they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"featcache.cli.{cmd_name}"), cmd_name)
        for own in command.commands.values() if isinstance(command, click.Group) else [command]:
            if not any(each.name == "verbose" for each in own.params):
                own.params.append(_verbose(expose_value=False))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from featcache.errors import unknown

        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(str(unknown("command", args[0], list(COMMANDS))))
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except FeatcacheError as error:
            if ctx.meta.get("verbose"):
                logging.getLogger("featcache").debug("the error came from here", exc_info=True)
            start = "" if isinstance(error, Interrupted) else "Error: "
            click.echo(f"{start}{error}{self._options(ctx, error)}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:  # before a run had anything to keep
            click.echo("stopped; run the same command again to go on", err=True)
            ctx.exit(Interrupted.exit_code)

    def _options(self, ctx: click.Context, error: FeatcacheError) -> str:
        """The command's own names for the arguments that an error of the library speaks of."""
        command = self.get_command(ctx, ctx.invoked_subcommand or "")
        commands = command.commands.values() if isinstance(command, click.Group) else [command]
        known = {own.name: own.opts[0] for each in commands if each for own in each.params}
        names = [known[name] for name in error.options if name in known]
        return f" ({', '.join(names)})" if names else ""


def _verbose(**more: Any) -> click.Option:
    """The option -v, which may stand before or after the name of a command."""
    return click.Option(
        ["-v", "--verbose"], count=True, callback=_say_more, is_eager=True,
        help="Say more (-vv: with the origin of errors).", **more,
    )  # fmt: skip


def _say_more(ctx: click.Context, param: click.Parameter, count: int) -> int:
    root = ctx.find_root()
    root.meta["verbose"] = max(count, root.meta.get("verbose", 0))
    level = {0: logging.WARNING, 1: logging.INFO}.get(root.meta["verbose"], logging.DEBUG)
    logging.getLogger("featcache").setLevel(level)
    return count


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="featcache")
def featcache() -> None:
    """Probe frozen audio encoders on every patch token: encode once, train many heads.

    \b
    featcache demo                                   see both stages at work, offline
    featcache extract clips.csv --encoder audiomae --weights pretrained.pth --out mae.zarr
    featcache probe mae.zarr --head linear --head protobin
    """
    logging.basicConfig(format="%(message)s", stream=sys.stderr)


featcache.params.append(_verbose(expose_value=False))


def main() -> None:
    """Entry point of the console script."""
    # Before torch loads: threads that wait for each other spin otherwise, on cores that others could use.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    install()
    featcache(prog_name="featcache")
