"""`python -m app` is `fettle`."""

from app.cli import main

main()
