"""The text of a reward expression -> the expression. Python's grammar, nothing evaluated: names, numbers, calls, + - * /, > >=, `|`."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

from guerdon.registry import Refused, find, names, nearest
from guerdon.rewards import core, expr
from guerdon.rewards.expr import Expr, Pipe, ShapeCall, lift

COMBINE = {"gate": expr.gate, "min": expr.least, "max": expr.greatest, "mean": expr.mean, "median": expr.median, "std": expr.std}
BINARY = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
}
COMPARE = {ast.Gt: ">", ast.GtE: ">=", ast.Lt: "<", ast.LtE: "<="}


def parse(text: str | Expr) -> Expr:
    """`"gate(format, math) + 0.2 * length(target=100).when(math > 0) | clip(0, 1)"` -> Expr. Raises Refused naming the place."""
    if isinstance(text, Expr):
        return text
    text = str(text)
    try:
        tree = ast.parse(text.replace("\n", " ").strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Refused(f"The reward expression {text[:200]!r} cannot be read: {getattr(error, 'msg', error)}.") from None
    return lift(_Reader(text).read(tree.body))


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text

    def refuse(self, node: ast.AST, why: str) -> Refused:
        place = ast.unparse(node)
        return Refused(f"In the reward expression {self.text!r}, {place!r} {why}")

    def read(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=value) if isinstance(value, (int, float)) and not isinstance(value, bool):
                return value
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self.read(operand)
            case ast.Name(id=name):
                return self.reward(node, name)
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                return Pipe(lift(self.read(left)), self.shape(right))
            case ast.BinOp(left=left, op=op, right=right) if type(op) in BINARY:
                return BINARY[type(op)](self.read(left), self.read(right))
            case ast.Compare(left=left, ops=[op], comparators=[ast.BinOp(left=right, op=ast.BitOr(), right=shape)]):  # `|` binds last
                return Pipe(lift(self.read(ast.Compare(left, [op], [right]))), self.shape(shape))
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in COMPARE:
                return expr.Compare(lift(self.read(left)), COMPARE[type(op)], expr.number(self.read(right)))
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in COMBINE:
                terms = [self.read(a) for a in args]
                if name == "gate" and len(terms) != 2:
                    raise self.refuse(node, "needs two parts: gate(condition, reward).")
                return COMBINE[name](*terms)
            case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords):
                return self.reward(node, name)(*map(self.value, args), **self.keywords(node, keywords))
            case ast.Call(func=ast.Attribute(value=branch, attr="when"), args=[condition], keywords=[]):
                return expr.When(lift(self.read(branch)), lift(self.read(condition)))
        raise self.refuse(
            node,
            f"is not allowed; use names, numbers, + - * /, one comparison, {', '.join(COMBINE)}, .when(...) and `| shape`.",
        )

    def reward(self, node: ast.AST, name: str) -> core.Reward:
        if name not in names("reward"):
            hint = (
                " is a shape: write it behind `|`."
                if name in names("shape")
                else f" is no reward{nearest(name, [*names('reward'), *COMBINE])}"
            )
            raise self.refuse(node, hint.strip())
        return core.get(name)

    def shape(self, node: ast.expr) -> ShapeCall:
        args, keywords = (node.args, node.keywords) if isinstance(node, ast.Call) else ([], [])
        name = node.func if isinstance(node, ast.Call) else node
        if not isinstance(name, ast.Name):
            raise self.refuse(node, "is not a shape; write `| clip(0, 1)`.")
        return find("shape", name.id).about["bind"](*map(self.part, args), **self.keywords(node, keywords, self.part))

    def part(self, node: ast.expr) -> Any:
        """A shape's parameter: a plain value, or a reward beside the one that it shapes."""
        try:
            return ast.literal_eval(node)
        except ValueError:
            return lift(self.read(node))

    def keywords(self, node: ast.AST, keywords: list[ast.keyword], read: Callable[[ast.expr], Any] | None = None) -> dict[str, Any]:
        if any(k.arg is None for k in keywords):
            raise self.refuse(node, "uses **; name each parameter.")
        return {str(k.arg): (read or self.value)(k.value) for k in keywords}

    def value(self, node: ast.expr) -> Any:
        try:
            return ast.literal_eval(node)
        except ValueError:
            raise self.refuse(node, "is not a plain value (a number, a text, a list, True, False, None).") from None
