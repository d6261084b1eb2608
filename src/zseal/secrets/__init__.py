"""Secrets for guests: requests that only one image's guests, or one guest alone, can open.

An owner creates a request (:func:`create_add_secret_request`) outside the guest. The guest passes it to its machine,
which keeps the secret; retrievable ones come back through ``zseal.uvdevice``. The names below are the interface; they
are imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zseal.lazy import lazy_names

if TYPE_CHECKING:
    from zseal.crypto.extension_secret import derive_extension_secret
    from zseal.formats.add_secret_request import AddSecretFlags, AddSecretRequestBlock, SecretType
    from zseal.formats.secret_list import SecretList
    from zseal.secrets.create import AddSecretRequestKeys, create_add_secret_request
    from zseal.secrets.info import SecretInfo
    from zseal.secrets.new_secret import NewSecret
    from zseal.secrets.stored import find_secrets, list_text, list_values, pem, plaintext_of, secret_id
    from zseal.secrets.user_data import UserData, verified_user_data

__all__ = [
    "AddSecretFlags",
    "AddSecretRequestBlock",
    "AddSecretRequestKeys",
    "NewSecret",
    "SecretInfo",
    "SecretList",
    "SecretType",
    "UserData",
    "create_add_secret_request",
    "derive_extension_secret",
    "find_secrets",
    "list_text",
    "list_values",
    "pem",
    "plaintext_of",
    "secret_id",
    "verified_user_data",
]

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "zseal.crypto.extension_secret": ("derive_extension_secret",),
            "zseal.formats.add_secret_request": ("AddSecretFlags", "AddSecretRequestBlock", "SecretType"),
            "zseal.formats.secret_list": ("SecretList",),
        },
        create=("AddSecretRequestKeys", "create_add_secret_request"),
        info=("SecretInfo",),
        new_secret=("NewSecret",),
        stored=("find_secrets", "list_text", "list_values", "pem", "plaintext_of", "secret_id"),
        user_data=("UserData", "verified_user_data"),
    )
