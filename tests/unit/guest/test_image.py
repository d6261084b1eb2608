"""What cannot be run is refused before anything is started."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from zseal.errors import InputError
from zseal.guest.image import inspect_image


def test_pipes_and_directories_are_no_images(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # nobody is at its other end
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(InputError, match="an image must be a regular file"):
            inspect_image(path)
