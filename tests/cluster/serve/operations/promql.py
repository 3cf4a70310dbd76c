"""What a PromQL expression asks for: metric names and the labels that it uses of each.

No evaluator: it reads names, matchers and groupings of
https://prometheus.io/docs/prometheus/latest/querying/basics/ and refuses what it doesn't know.
"""

import re
from dataclasses import dataclass, field

FUNCTIONS = set(
    "abs avg avg_over_time clamp_max clamp_min count deriv histogram_quantile increase max min "
    "rate sum topk".split()
)
OVER_TIME = {"avg_over_time", "deriv", "increase", "rate"}
GROUPINGS = {"by", "without", "on", "ignoring", "group_left", "group_right"}
KEYWORDS = {"and", "or", "unless", "offset", "bool"}
TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<text>"(?:[^"\\]|\\.)*")
    |(?P<range>\[[^\]]+\])
    |(?P<time>\d+(?:ms|[smhdwy]))
    |(?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)
    |(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)
    |(?P<operator>==|!=|<=|>=|=~|!~|[-+*/%^<>=(){},])""",
    re.VERBOSE,
)


@dataclass
class Query:
    """``metrics`` has the labels that each name's matchers use; ``grouped`` those of groupings."""

    metrics: dict[str, set[str]] = field(default_factory=dict)
    grouped: set[str] = field(default_factory=set)


def read(expression: str) -> Query:
    """What an expression asks for; raises ValueError for one that Prometheus would refuse."""
    tokens = list(_tokens(expression))
    query, open_brackets, place = Query(), [], 0
    while place < len(tokens):
        kind, text = tokens[place]
        follows = tokens[place + 1][1] if place + 1 < len(tokens) else ""
        place += 1
        if text in ("(", "{"):
            open_brackets.append(text)
        elif text in (")", "}"):
            if not open_brackets or open_brackets.pop() + text not in ("()", "{}"):
                raise ValueError(f"brackets: {expression}")
        elif kind != "name" or text in KEYWORDS:
            continue
        elif text in GROUPINGS:
            labels, place = _names(tokens, place, "(", ")")
            query.grouped |= labels
        elif text in FUNCTIONS and follows in ("(", "by", "without"):
            if text in OVER_TIME and not any(kind == "range" for kind, _ in tokens[place:]):
                raise ValueError(f"{text} needs a range: {expression}")
        else:
            labels = set()
            if follows == "{":
                labels, place = _names(tokens, place, "{", "}")
            query.metrics.setdefault(text, set()).update(labels)
    if open_brackets or not query.metrics:
        raise ValueError(f"brackets, or no metric: {expression}")
    return query


def _tokens(expression):
    at = 0
    while at < len(expression):
        found = TOKEN.match(expression, at)
        if found is None:
            raise ValueError(f"{expression[at:]!r} in {expression}")
        at = found.end()
        if found.lastgroup != "space":
            yield found.lastgroup, found[0]


def _names(tokens, place, opening, closing):
    """The names between brackets, and where it goes on after them."""
    if tokens[place][1] != opening:
        raise ValueError(f"{opening} is missing before {tokens[place][1]}")
    words = [text for _, text in tokens]
    if closing not in words[place:]:
        raise ValueError(f"{closing} is missing after {words[place]}")
    end = words.index(closing, place)
    return {text for kind, text in tokens[place:end] if kind == "name"}, end + 1
