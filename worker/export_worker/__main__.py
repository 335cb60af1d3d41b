"""The command `export-worker`, which is also `python -m export_worker`.

The imports of the command line take a moment. Ctrl-C in this time, or while the interpreter ends, ends the process
without a traceback. Ctrl-C before this module is imported is up to the interpreter, which shows a traceback.
"""

# `signal` imports `enum` first, which takes a third of the time in which Ctrl-C still has a traceback.
from _signal import SIG_DFL, SIGINT, default_int_handler, getsignal, signal  # type: ignore[import-not-found]


def main() -> None:
    """Runs the command line. `RunsFunction` handles Ctrl-C when the imports of the command are done."""
    # A shell starts a background job with a SIGINT that is ignored. It stays ignored.
    handled = getsignal(SIGINT) is default_int_handler
    if handled:
        signal(SIGINT, SIG_DFL)
    from export_worker import cli  # noqa: PLC0415 - after the signal's handler is set

    try:
        cli.main()
    finally:
        if handled:
            signal(SIGINT, SIG_DFL)


if __name__ == "__main__":
    main()
