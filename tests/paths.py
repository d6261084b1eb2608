"""Where the tests find the repository's files, whatever directory they are in."""

from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
VECTORS = REPOSITORY / "tests" / "vectors"
DOCS = REPOSITORY / "docs"
