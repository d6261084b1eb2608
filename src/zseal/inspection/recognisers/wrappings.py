"""Certificates in a shape that no program reads as it is: UTF-16, one line, base64 twice, a web page, PKCS#7."""

from __future__ import annotations

from zseal.inspection.recognisers.interface import Description, Recogniser, Sample


class WrappedCertificate(Recogniser):
    """What is handed in as a certificate and is not one."""

    def recognise(self, sample: Sample) -> Description | None:
        """Ask the reader of certificates what it would say."""
        # imported late: it brings cryptography
        from zseal.hostkeys.wrappings import PRIVATE_KEY, wrapping_of

        data = sample.whole
        wrapping = None if data is None else wrapping_of(data)
        if wrapping is None or wrapping is PRIVATE_KEY:  # which its own recogniser describes
            return None
        kind = "web-page" if wrapping.what == "a web page" else "wrapped-certificate"
        return Description(kind, wrapping.what, {"size": sample.size}, (wrapping.hint,))


RECOGNISERS: tuple[Recogniser, ...] = (WrappedCertificate(),)
