"""The program `mufakat`: the part before all imports, which take a moment.

Ctrl-C in that moment ends the process as it ends any other, without a traceback.
"""

import signal


def main() -> None:
    """Run the command line."""
    was_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if was_default:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from services.cli.main import main as command_line

    if was_default:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    command_line()


if __name__ == "__main__":
    main()
