"""How much a query may ask for: its tokens, fields and levels. Pure."""

from __future__ import annotations

from graphql import DocumentNode, FieldNode, FragmentDefinitionNode, GraphQLError, parse
from graphql.language import FragmentSpreadNode, OperationDefinitionNode, SelectionSetNode

MOST_TOKENS = 2000
MOST_FIELDS = 300
MOST_LEVELS = 15
MOST_READS = 20
"""Fields on the first level, each of which is read from the database."""


def parse_query(text: str) -> DocumentNode:
    """Parse a query that is within the limits.

    Raises:
        GraphQLError: it cannot be parsed, or is not within them; the text says which.
    """
    document = parse(text, no_location=True, max_tokens=MOST_TOKENS)
    fragments = {
        one.name.value: one
        for one in document.definitions
        if isinstance(one, FragmentDefinitionNode)
    }
    for one in document.definitions:
        if isinstance(one, OperationDefinitionNode):
            _check(one.selection_set, fragments)
    return document


def _check(root: SelectionSetNode, fragments: dict[str, FragmentDefinitionNode]) -> None:
    """Count fields with fragments put in their places, whatever these refer to.

    A fragment that contains itself ends at a limit as well.
    """
    fields = reads = 0
    open_sets = [(root, 1)]
    while open_sets:
        selected, level = open_sets.pop()
        if level > MOST_LEVELS:
            raise GraphQLError(f"query: deeper than {MOST_LEVELS} levels; ask in parts")
        for node in selected.selections:
            is_field = isinstance(node, FieldNode)
            fields += 1
            reads += is_field and level == 1
            if fields > MOST_FIELDS:
                raise GraphQLError(f"query: more than {MOST_FIELDS} fields; ask in parts")
            if reads > MOST_READS:
                raise GraphQLError(
                    f"query: more than {MOST_READS} fields on the first level; ask in parts"
                )
            inner = _inside(node, fragments)
            if inner is not None:
                open_sets.append((inner, level + is_field))


def _inside(node: object, fragments: dict[str, FragmentDefinitionNode]) -> SelectionSetNode | None:
    if isinstance(node, FragmentSpreadNode):
        fragment = fragments.get(node.name.value)
        return None if fragment is None else fragment.selection_set
    found: SelectionSetNode | None = getattr(node, "selection_set", None)
    return found
