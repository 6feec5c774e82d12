"""Where `saga` begins: before anything is loaded, which takes most of a second."""

import signal


def main() -> None:
    """Run a command. Ctrl-C ends it without a word also while it is being loaded."""
    is_heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_heard:  # and not, as in the background of a script, ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from orchestrator.cli.main import main as run

    if is_heard:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()
