"""``python -m tdi_lib`` and the command ``tdi``: the command line, if its extra is there."""

import sys


def main() -> None:
    """Run the command line; without its library say how to get it."""
    try:
        import click  # noqa: F401
    except ImportError:
        print("tdi needs the extra cli: pip install 'tdi-lib[cli]'", file=sys.stderr)
        sys.exit(2)
    from tdi_lib.app.cli import cli

    cli(prog_name="tdi")


if __name__ == "__main__":
    main()
