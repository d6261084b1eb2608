"""The one list of guest options: keyword arguments, defaults, and what is refused."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

from zseal.errors import InputError, UsageError
from zseal.guest.audit.policy import IoPolicy
from zseal.guest.options import GuestKeywords, GuestOptions, RunKeywords, RunOptions


@pytest.mark.parametrize(("options", "keywords"), [(RunOptions, RunKeywords), (GuestOptions, GuestKeywords)])
def test_each_option_has_the_type_of_its_keyword(options: type[RunOptions], keywords: type) -> None:
    given = {name: hint.__forward_arg__ for name, hint in inspect.get_annotations(keywords).items()}
    if keywords is GuestKeywords:
        assert given.keys() > inspect.get_annotations(RunKeywords).keys()
    assert given == {field.name: field.type for field in dataclasses.fields(options)}


def test_an_option_that_does_not_exist_is_refused() -> None:
    with pytest.raises(TypeError, match="kernel_console"):
        GuestOptions(kernel_console=True)  # type: ignore[call-arg]


def test_values_are_checked_before_anything_else_happens() -> None:
    for timeout in (0.0, -1.0, float("nan")):
        with pytest.raises(UsageError, match="a number of seconds above 0"):
            RunOptions(timeout=timeout)
    with pytest.raises(UsageError, match="use enforce, audit or off"):
        GuestOptions(io_policy="look away")
    with pytest.raises(InputError, match="a guest cannot be called"):
        GuestOptions(name="../etc")


def test_a_policy_may_be_named() -> None:
    assert GuestOptions(io_policy="audit").policy is RunOptions(io_policy=IoPolicy.AUDIT).policy is IoPolicy.AUDIT
