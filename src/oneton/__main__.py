"""`python -m oneton`."""

from oneton.cli import main

main()
