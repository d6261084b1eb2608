"""All families, in the order in which their readings are shown."""

from zseal.explanations.families import boot, exits, interruptions, messages, sentences, ultravisor, waits
from zseal.explanations.families.interface import Family, Number, Reading, Scope

ALL_FAMILIES: tuple[Family, ...] = (
    *boot.FAMILIES,
    *waits.FAMILIES,
    *sentences.FAMILIES,
    *ultravisor.FAMILIES,
    *interruptions.FAMILIES,
    *messages.FAMILIES,
    *exits.FAMILIES,
)

__all__ = ["ALL_FAMILIES", "Family", "Number", "Reading", "Scope"]
