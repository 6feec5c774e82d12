"""`python -m orchestrator.cli` is `saga`."""

from orchestrator.cli.entry import main

main()
