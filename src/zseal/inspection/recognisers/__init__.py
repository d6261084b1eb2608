"""All recognisers in the order in which they are tried: those with a magic before those that guess."""

from zseal.inspection.recognisers import (
    containers,
    directories,
    images,
    keys,
    programs,
    reports,
    requests,
    texts,
    wrappings,
)
from zseal.inspection.recognisers.interface import Description, Recogniser, Sample, Value

ALL_RECOGNISERS: tuple[Recogniser, ...] = (
    *directories.RECOGNISERS,
    *images.RECOGNISERS,
    *programs.RECOGNISERS,
    *requests.RECOGNISERS,
    *containers.RECOGNISERS,
    *reports.RECOGNISERS,
    *texts.RECOGNISERS,
    *keys.RECOGNISERS,
    *wrappings.RECOGNISERS,
)

__all__ = ["ALL_RECOGNISERS", "Description", "Recogniser", "Sample", "Value"]
