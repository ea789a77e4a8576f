"""`python -m guerdon` is `guerdon`."""

from guerdon.cli import main

main()
