"""The command `saga`. One module per family of commands; `main` puts them together and turns errors into exit codes."""
