"""``python -m zseal`` is the ``zseal`` command."""

from zseal.cli.main import main

main()
