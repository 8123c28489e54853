"""As much of PromQL as our dashboard and rules use, read strictly: what is not known here is an error, and so is a typing mistake.

Grammar: https://prometheus.io/docs/prometheus/latest/querying/basics/ (2026-11).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

TOKEN = re.compile(
    r"""\s*(?:(?P<number>\d+(?:\.\d+)?(?![\w.]))|(?P<word>[a-zA-Z_:][\w:]*)|(?P<string>"[^"\\]*")"""
    r"""|(?P<range>\[(?:\d+[smhd])\])|(?P<sign>=~|!~|!=|==|>=|<=|[-+*/(){},=<>]))"""
)
FUNCTIONS = {"rate": 1, "increase": 1, "histogram_quantile": 2}
OF_RANGES = {"rate", "increase"}
AGGREGATIONS = {"sum", "max", "min", "avg", "count"}
# Tightest last.
OPERATORS = (("or",), ("and", "unless"), ("==", "!=", ">=", "<=", ">", "<"), ("+", "-"), ("*", "/"))


@dataclass
class Selector:
    name: str
    matchers: list[tuple[str, str, str]] = field(default_factory=list)  # (label, operator, value)
    ranged: bool = False


@dataclass
class Read:
    """`groupings`: the labels of each aggregation, with the selectors below it."""

    selectors: list[Selector] = field(default_factory=list)
    groupings: list[tuple[list[str], list[Selector]]] = field(default_factory=list)


def read(expression: str) -> Read:
    """Raises ValueError, which names the place."""
    return _Reader(expression).whole()


class _Reader:
    def __init__(self, expression: str) -> None:
        self._text = expression
        self._tokens: list[tuple[str, str]] = []
        self._at, self._read = 0, Read()
        place = 0
        while place < len(expression.rstrip()):
            match = TOKEN.match(expression, place)
            if match is None or match.lastgroup is None:
                raise ValueError(f"{expression!r}: what is {expression[place : place + 20]!r}?")
            self._tokens.append((match.lastgroup, match[match.lastgroup]))
            place = match.end()

    def whole(self) -> Read:
        self._binary(0)
        if self._at < len(self._tokens):
            raise self._wrong("the end")
        return self._read

    def _binary(self, level: int) -> None:
        if level == len(OPERATORS):
            return self._one()
        self._binary(level + 1)
        while self._value() in OPERATORS[level]:
            self._at += 1
            self._binary(level + 1)

    def _one(self) -> None:
        kind, value = self._peek()
        if kind == "number":
            self._at += 1
        elif value == "(":
            self._take("(")
            self._binary(0)
            self._take(")")
        elif kind == "word" and value in AGGREGATIONS:
            self._aggregation()
        elif kind == "word" and value in FUNCTIONS:
            self._function()
        elif kind == "word":
            self._selector()
        else:
            raise self._wrong("a value")

    def _aggregation(self) -> None:
        self._at += 1
        labels: list[str] = []
        if self._value() == "by":
            self._at += 1
            self._take("(")
            labels.append(self._word())
            while self._value() == ",":
                self._at += 1
                labels.append(self._word())
            self._take(")")
        self._take("(")
        before = len(self._read.selectors)
        self._binary(0)
        self._take(")")
        self._read.groupings.append((labels, self._read.selectors[before:]))

    def _function(self) -> None:
        name = self._word()
        before = len(self._read.selectors)
        self._take("(")
        for number in range(FUNCTIONS[name]):
            if number:
                self._take(",")
            self._binary(0)
        self._take(")")
        if name in OF_RANGES and not all(each.ranged for each in self._read.selectors[before:]):
            raise ValueError(f"{self._text!r}: {name}() wants a range, such as [5m]")

    def _selector(self) -> None:
        found = Selector(self._word())
        if self._value() == "{":
            self._at += 1
            while self._value() != "}":
                label, operator = self._word(), self._peek()[1]
                if operator not in ("=", "!=", "=~", "!~"):
                    raise self._wrong("a comparison of a label")
                self._at += 1
                kind, value = self._peek()
                if kind != "string":
                    raise self._wrong("a text in quotes")
                self._at += 1
                found.matchers.append((label, operator, value.strip('"')))
                if self._value() == ",":
                    self._at += 1
            self._take("}")
        if self._peek()[0] == "range":
            self._at += 1
            found.ranged = True
        self._read.selectors.append(found)

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("", "")

    def _value(self) -> str:
        return self._peek()[1]

    def _word(self) -> str:
        kind, value = self._peek()
        if kind != "word":
            raise self._wrong("a name")
        self._at += 1
        return value

    def _take(self, sign: str) -> None:
        if self._value() != sign:
            raise self._wrong(repr(sign))
        self._at += 1

    def _wrong(self, wanted: str) -> ValueError:
        return ValueError(f"{self._text!r}: {wanted} is wanted where {self._value()!r} stands")
