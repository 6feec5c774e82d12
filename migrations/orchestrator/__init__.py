"""The history of the orchestrator database."""
