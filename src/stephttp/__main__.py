"""`python -m stephttp`, the same as the `stephttp` command."""

from stephttp.cli import main

main()
