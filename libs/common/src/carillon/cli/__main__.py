"""`python -m carillon.cli` is the command `carillon`."""

from carillon.cli import main

main()
