"""``python -m ingester``."""

from ingester.cli import main

main()
