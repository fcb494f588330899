"""`python -m longshore` is `longshore`."""

from longshore.cli.main import main

main()
