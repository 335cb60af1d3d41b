"""The command `export-worker`, which is also `python -m export_worker`.

The imports of the command line take a moment. Ctrl-C in this time, or while the interpreter ends, ends the process
without a traceback.
"""

import signal


def main() -> None:
    """Runs the command line, which handles Ctrl-C itself."""
    # A shell starts a background job with a SIGINT that is ignored. It stays ignored.
    handled = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if handled:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from export_worker import cli  # noqa: PLC0415 - after the signal's handler is set

    if handled:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        cli.main()
    finally:
        if handled:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    main()
