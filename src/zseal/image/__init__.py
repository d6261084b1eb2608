"""Boot images: build, read, verify, compare and describe.

The names below are the interface. They are imported when first used, because some need numpy and cryptography.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zseal.lazy import lazy_names

if TYPE_CHECKING:
    from zseal.image.bootloaders import Bootloaders
    from zseal.image.build import BuiltImage, build_image
    from zseal.image.controls import Controls
    from zseal.image.describe import HeaderView, info_json, info_text, match_host_key
    from zseal.image.diff import Comparison, compare_images, key_opener, machine_opener
    from zseal.image.keys import ImageKeys
    from zseal.image.model import Component
    from zseal.image.read import Image, read_image
    from zseal.image.verify import Verification, verify_image

__all__ = [
    "Bootloaders",
    "BuiltImage",
    "Comparison",
    "Component",
    "Controls",
    "HeaderView",
    "Image",
    "ImageKeys",
    "Verification",
    "build_image",
    "compare_images",
    "info_json",
    "info_text",
    "key_opener",
    "machine_opener",
    "match_host_key",
    "read_image",
    "verify_image",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        bootloaders=("Bootloaders",),
        build=("BuiltImage", "build_image"),
        controls=("Controls",),
        describe=("HeaderView", "info_json", "info_text", "match_host_key"),
        diff=("Comparison", "compare_images", "key_opener", "machine_opener"),
        keys=("ImageKeys",),
        model=("Component",),
        read=("Image", "read_image"),
        verify=("Verification", "verify_image"),
    )
