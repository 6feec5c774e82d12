"""`python -m orchestrator.cli` is `saga`."""

from orchestrator.cli.main import main

main()
