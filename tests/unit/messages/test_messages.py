"""The lines of other programs have one home, and are recognised however they are written."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import zseal.messages
from zseal.messages import ALL_MESSAGES, ANYTHING, Message

SOURCE = Path(zseal.messages.__file__).parents[1]


def _texts() -> Iterator[tuple[str, str]]:
    for path in SOURCE.rglob("*.py"):
        if path.parent.name != "messages":
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield f"{path.relative_to(SOURCE)}:{node.lineno}", node.value.lower()


def test_a_line_is_written_down_in_one_place() -> None:
    plain = [each for each in ALL_MESSAGES if ANYTHING not in each.text]
    texts = list(_texts())
    assert len(texts) > 1000
    copies = [f"{where} quotes {each.name}" for where, text in texts for each in plain if each.is_in(text)]
    assert copies == []


def test_names_and_texts_are_unique() -> None:
    assert len({each.name for each in ALL_MESSAGES}) == len(ALL_MESSAGES)
    assert len({each.text for each in ALL_MESSAGES}) == len(ALL_MESSAGES)


@pytest.mark.parametrize("message", ALL_MESSAGES, ids=lambda message: message.name)
def test_a_message_is_recognised_by_its_own_text(message: Message) -> None:
    line = message.text.replace(ANYTHING, "anything at all")
    assert message.is_in(f"prefix: {line} suffix".lower())
    assert not message.is_in(line[1:].lower())


@pytest.mark.parametrize("message", [each for each in ALL_MESSAGES if each.refine], ids=lambda message: message.name)
def test_a_line_without_its_values_has_the_general_meaning(message: Message) -> None:
    assert message.read("nothing of the kind") == message.meaning
