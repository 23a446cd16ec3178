"""What mutmut changes: the code, not the messages in it.

A text of several words is one for people. mutmut would change each letter's case and count what no
test notices; tests that compare whole messages are no proof of anything. (It leaves docstrings out
by itself.) So such a text is not changed, nor replaced by `None` as an argument or a value. A
literal that is continued on the next line is one text: a part of it may be a single word.

`strict=False` of `zip` is not taken out, which linters want to be said: that is its default.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import libcst as cst
from mutmut.mutation import mutators

Operator = Callable[[cst.CSTNode], Iterable[cst.CSTNode]]
_WORDS = re.compile(r"\w['\w`.,:;)]* [('`]?\w")
"""Two words of a sentence, or a word beside a value."""


def leave_messages_out() -> None:
    """Make mutmut's operators spare messages, in this process and those that it forks."""
    spared = {
        mutators.operator_string: _strings_without_messages,
        mutators.operator_assignment: spare(
            mutators.operator_assignment, lambda node: getattr(node, "value", None)
        ),
        mutators.operator_arg_removal: _arguments_without_messages,
    }
    mutators.mutation_operators[:] = [
        (kind, spared.get(operator, operator)) for kind, operator in mutators.mutation_operators
    ]


def spare(operator: Operator, text_in: Callable[[cst.CSTNode], cst.CSTNode | None]) -> Operator:
    """Return the operator, which changes nothing where the text is a message."""

    def spared(node: cst.CSTNode) -> Iterable[cst.CSTNode]:
        return () if is_message(text_in(node)) else operator(node)

    return spared


_parts_of_messages: set[cst.CSTNode] = set()


def _strings_without_messages(node: cst.BaseString) -> Iterable[cst.CSTNode]:
    """Change a text as mutmut does, which comes to a whole literal before it comes to its parts."""
    if node in _parts_of_messages or is_message(node):
        if isinstance(node, cst.ConcatenatedString):
            _parts_of_messages.update((node.left, node.right))
        return ()
    changed: Iterable[cst.CSTNode] = mutators.operator_string(node)
    return changed


def is_message(node: cst.CSTNode | None) -> bool:
    """Return whether an expression is a text for people."""
    return _WORDS.search(_text(node)) is not None


def _text(node: cst.CSTNode | None) -> str:
    """Return a literal's text, with a word for each value in it; empty if it is no literal."""
    match node:
        case cst.SimpleString():
            return str(node.raw_value)
        case cst.ConcatenatedString():
            return _text(node.left) + _text(node.right)
        case cst.FormattedString():
            return "".join(
                part.value if isinstance(part, cst.FormattedStringText) else "x"
                for part in node.parts
            )
        case _:
            return ""


def _arguments_without_messages(node: cst.Call) -> Iterable[cst.CSTNode]:
    """Change the arguments of a call as mutmut does, but for messages."""
    messages = {id(arg) for arg in node.args if is_message(arg.value) or _is_default(node, arg)}
    for changed in mutators.operator_arg_removal(node):
        kept = {id(arg) for arg in changed.args}
        if messages <= kept:
            yield changed


def _is_default(call: cst.Call, arg: cst.Arg) -> bool:
    """Return whether an argument says what holds without it."""
    match call.func, arg.keyword, arg.value:
        case cst.Name("zip"), cst.Name("strict"), cst.Name("False"):
            return True
        case _:
            return False
