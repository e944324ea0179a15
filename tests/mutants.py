"""Make mutants of a rule's expression: each is wrong in one place."""

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import promql_parser as promql

_OTHER_OPERATORS = {
    ">": (">=", "<"),
    ">=": (">", "<"),
    "<": ("<=", ">"),
    "<=": ("<", ">"),
    "==": ("!=",),
    "and": ("unless",),
    "unless": ("and",),
    "or": ("and",),
    "+": ("-",),
    "-": ("+",),
    "*": ("/",),
    "/": ("*",),
}
_OTHER_AGGREGATION = {"sum": "max", "max": "min", "count": "sum", "quantile": "max"}
_OTHER_FUNCTION = {
    "increase": "rate",
    "rate": "increase",
    "max_over_time": "min_over_time",
    "sum_over_time": "max_over_time",
    "clamp_min": "clamp_max",
    "changes": "resets",
    "count_over_time": "sum_over_time",
}
_OPPOSITE = {"=": "!=", "!=": "=", "=~": "!~", "!~": "=~"}
_SIGNS = {"MatchOp.Equal": "=", "MatchOp.NotEqual": "!=", "MatchOp.Re": "=~", "MatchOp.NotRe": "!~"}
_BUCKETS = ("0.5", "2.0")

# Label, sign, value.
Matcher = tuple[str, str, str]


def mutants(expression: str) -> Iterator[tuple[str, str]]:
    """Yield what was changed, and the expression with the change."""
    tree = promql.parse(expression)
    nodes: list[Any] = []
    promql.walk(tree, nodes.append)
    for place, node in enumerate(nodes):
        for changed in _changes(node):
            yield f"{_line(node.prettify())} → {_line(changed)}", _replaced(tree, place, changed)


def text_of(duration: timedelta) -> str:
    """Write a duration as PromQL does, in seconds."""
    return f"{duration.total_seconds():.0f}s"


def _line(text: str) -> str:
    return " ".join(text.split())


def _replaced(tree: promql.Expr, place: int, changed: str) -> str:
    """Return the tree with the node at a place, counted as `walk` meets them, replaced."""
    met = -1

    def replace(_: promql.Expr) -> promql.Expr | None:
        nonlocal met
        met += 1
        return promql.parse(changed) if met == place else None

    return promql.transform(tree, replace).prettify()


def _changes(node: Any) -> Iterator[str]:
    match node:
        case promql.NumberLiteral():
            yield from [f"{node.val * factor:g}" for factor in (0.5, 2, 3)] if node.val else ["1"]
        case promql.BinaryExpr():
            # Without parentheses it could fall apart in its place.
            yield from (f"({text})" for text in _operations(node))
        case promql.AggregateExpr():
            yield from _aggregations(node)
        case promql.Call() if node.func.name in _OTHER_FUNCTION:
            arguments = ", ".join(argument.prettify() for argument in node.args)
            yield f"{_OTHER_FUNCTION[node.func.name]}({arguments})"
        case promql.MatrixSelector():
            # What it selects is a node of its own.
            for factor in (1 / 3, 3):
                yield re.sub(r"\[\w+\]", f"[{text_of(node.range * factor)}]", node.prettify())
        case promql.SubqueryExpr():
            yield from _subqueries(node)
        case promql.VectorSelector():
            yield from _selectors(node)


def _subqueries(node: promql.SubqueryExpr) -> Iterator[str]:
    assert node.range is not None
    assert node.step is not None
    for by_length, by_step in ((1 / 3, 1), (3, 1), (1, 1 / 3), (1, 3)):
        length, step = text_of(node.range * by_length), text_of(node.step * by_step)
        yield f"{node.expr.prettify()}[{length}:{step}]"


def _operations(node: promql.BinaryExpr) -> Iterator[str]:
    left, operator, right = f"({node.lhs.prettify()})", str(node.op), f"({node.rhs.prettify()})"
    modifier = node.modifier
    matching = modifier.matching if modifier else None
    labels = matching.labels if matching else None
    many = modifier is not None and modifier.card == promql.VectorMatchCardinality.ManyToOne
    returns_bool = modifier is not None and modifier.return_bool

    def text(by: str, *, on: list[str] | None = labels, as_bool: bool = returns_bool) -> str:
        matched = "" if on is None else f"on ({', '.join(on)})" + " group_left ()" * many
        return f"{left} {by} {'bool ' * as_bool}{matched} {right}"

    yield from map(text, _OTHER_OPERATORS[operator])
    if operator in ("and", "or", "unless"):
        yield from (left, right)
    if returns_bool:
        yield text(operator, as_bool=False)
    for label in labels or ():
        yield text(operator, on=[other for other in labels or () if other != label])


def _aggregations(node: promql.AggregateExpr) -> Iterator[str]:
    assert node.modifier is not None
    operator, labels, inner = str(node.op), node.modifier.labels, node.expr.prettify()
    parameter = f"{node.param.prettify()}, " if node.param is not None else ""
    yield f"{_OTHER_AGGREGATION[operator]} by ({', '.join(labels)}) ({inner})"
    without = ([other for other in labels if other != label] for label in labels)
    for by in ([*labels, "instance"], *without):
        yield f"{operator} by ({', '.join(by)}) ({parameter}{inner})"


def _selectors(node: promql.VectorSelector) -> Iterator[str]:
    matchers = [(m.name, _SIGNS[str(m.op)], m.value) for m in node.matchers.matchers]
    offset = node.offset

    def text(chosen: list[Matcher] = matchers, after: timedelta | None = offset) -> str:
        inside = ",".join(f'{label}{sign}"{value}"' for label, sign, value in chosen)
        return f"{node.name}{{{inside}}}" + (f" offset {text_of(after)}" if after else "")

    for place, matcher in enumerate(matchers):
        for others in ([], *([other] for other in _matchers(*matcher))):
            yield text([*matchers[:place], *others, *matchers[place + 1 :]])
    if offset:
        yield from (text(after=other) for other in (None, offset / 2, offset * 2))


def _matchers(label: str, sign: str, value: str) -> Iterator[Matcher]:
    yield (label, _OPPOSITE[sign], value)
    alternatives = value.split("|")
    if len(alternatives) > 1:
        for gone in alternatives:
            yield (label, sign, "|".join(other for other in alternatives if other != gone))
    if label == "le":
        yield from ((label, sign, bucket) for bucket in _BUCKETS)
