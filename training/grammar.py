"""The formulas that a search tries: typed trees of unary and binary operations, bred by DEAP.

A tree is DEAP's, its formula is SymPy's text of it: `multiply(negative(x), erf(exp(negative(x))))`
is `-x*erf(exp(-x))`. DEAP because it has typed trees, what breeds them, and NSGA-II, and is small:
pymoo knows no trees, gplearn one objective, PySR scores by fit to points and needs Julia.
"""

import contextlib
import operator
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

import sympy
from deap import gp

from training.config import UserError


class Part:
    """The type of any part of a formula."""


class Function(Part):
    """The type of a part in which x stands. So no tree spends its nodes on exp(1) + 2."""


class Number(Part):
    """The type of a constant: always beside a function, never a tree of its own."""


class Operation(NamedTuple):
    arguments: tuple[type, ...]
    function: Callable  # of SymPy expressions


def _unary(function):
    return Operation((Function,), function)


def _named(name):
    """A function that SymPy does not know and `Expression` does, which computes it stably."""
    return sympy.Function(name, real=True)


OPERATIONS = {
    "add": Operation((Function, Part), operator.add),
    "subtract": Operation((Part, Function), operator.sub),
    "multiply": Operation((Function, Part), operator.mul),
    "divide": Operation((Part, Function), operator.truediv),
    "maximum": Operation((Function, Part), sympy.Max),
    "minimum": Operation((Function, Part), sympy.Min),
    "negative": _unary(operator.neg),
    "absolute": _unary(sympy.Abs),
    "square": _unary(lambda u: u**2),
    "cube": _unary(lambda u: u**3),
    "exp": _unary(sympy.exp),
    "tanh": _unary(sympy.tanh),
    "sigmoid": _unary(_named("sigmoid")),
    "softplus": _unary(_named("softplus")),
    "erf": _unary(sympy.erf),
    "atan": _unary(sympy.atan),
    "sin": _unary(sympy.sin),
    "cos": _unary(sympy.cos),
}

NUMBERS = {
    "zero": sympy.Integer(0),
    "half": sympy.Rational(1, 2),
    "one": sympy.Integer(1),
    "two": sympy.Integer(2),
}

_NO_NUMBERS = sympy.nan, sympy.zoo, sympy.oo, -sympy.oo

# The names of trainable constants: letters before x.
LETTERS = "abcdefghijklmnopqrstuvw"

# Known functions, the plainest first: the first population has some of them.
KNOWN = {
    "identity": "x",
    "ReLU": "maximum(x, zero)",
    "SiLU": "multiply(x, sigmoid(x))",
    "tanh": "tanh(x)",
    "softplus": "softplus(x)",
    "near GELU": "multiply(x, sigmoid(multiply(x, two)))",
    "Mish": "multiply(x, tanh(softplus(x)))",
    "sine": "sin(x)",
}


class Grammar:
    """Trees of some operations, up to a size.

    Args:
        operations: names of `OPERATIONS`; all of them if there are none.
        constants: how many trainable constants a formula may have: `a`, `b`, …
        largest: the most nodes of a tree.

    Errors: a `UserError` for an unknown operation, or none that takes one function.
    """

    def __init__(self, operations: Sequence[str] = (), constants: int = 0, largest: int = 15):
        unknown = sorted(set(operations) - set(OPERATIONS))
        if unknown:
            raise UserError(
                f"The operations must be of {', '.join(OPERATIONS)}. Received: {', '.join(unknown)}"
            )
        if not 0 <= constants <= len(LETTERS):
            raise UserError(
                f"A formula may have 0 to {len(LETTERS)} trainable constants. "
                f"Received: constants={constants}"
            )
        if largest < 3:
            raise UserError(f"A tree needs room for 3 nodes. Received: largest={largest}")
        self.largest = largest
        # DEAP's functions draw from these lists, so their order is part of what a seed gives.
        self.set = gp.PrimitiveSetTyped("formula", [Function], Function)
        self.set.renameArguments(ARG0="x")
        for name, operation in OPERATIONS.items():
            if not operations or name in operations:
                self.set.addPrimitive(operation.function, operation.arguments, Function, name)
        self.constants = list(LETTERS[:constants])
        letters = {letter: sympy.Symbol(letter, real=True) for letter in self.constants}
        for name, value in {**NUMBERS, **letters}.items():
            self.set.addTerminal(value, Number, name)

    def known(self) -> list[gp.PrimitiveTree]:
        """The known functions that these operations make."""
        trees = []
        for text in KNOWN.values():
            # It raises a TypeError for a name that the grammar does not have.
            with contextlib.suppress(TypeError):
                trees.append(gp.PrimitiveTree.from_string(text, self.set))
        return trees

    def tree(self, text: str) -> gp.PrimitiveTree:
        """The tree of a text as in `KNOWN`."""
        return gp.PrimitiveTree.from_string(text, self.set)

    def formula(self, tree: gp.PrimitiveTree) -> str | None:
        """SymPy's text of a tree, alike for many equal trees; None if it is no function of x.

        The trainable constants are named in the order in which they come in the tree.
        """
        x = sympy.Symbol("x", real=True)
        expression = gp.compile(self._in_order(tree), self.set)(x)
        if x not in expression.free_symbols or expression.has(*_NO_NUMBERS):
            return None
        return str(expression)

    def random(self) -> gp.PrimitiveTree:
        """A new tree, by Python's global generator, as all that follows."""
        return gp.PrimitiveTree(gp.genHalfAndHalf(self.set, 1, 3))

    def child(self, one: gp.PrimitiveTree, other: gp.PrimitiveTree) -> gp.PrimitiveTree:
        """A crossing of two trees or a mutation of the first; it may be too large or the same."""
        child = gp.PrimitiveTree(one)
        if random.random() < 0.5:
            self._cross(child, other)
            return child
        mutation = random.choice((self._regrow, self._replace, self._insert, gp.mutShrink))
        return mutation(child)[0]

    def _cross(self, child, other):
        """Puts a function of the other tree where the child has one.

        DEAP's own takes the type at random from a set, whose order changes with the process.
        """
        here, there = (
            random.choice([i for i, node in enumerate(tree) if node.ret is Function])
            for tree in (child, other)
        )
        child[child.searchSubtree(here)] = other[other.searchSubtree(there)]

    def _regrow(self, tree):
        return gp.mutUniform(tree, self._small, self.set)

    def _replace(self, tree):
        return gp.mutNodeReplacement(tree, self.set)

    def _insert(self, tree):
        return gp.mutInsert(tree, self.set)

    def _small(self, pset, type_):
        """A small tree; a number is a tree of one node."""
        return gp.genGrow(pset, 0, 2 if type_ is Function else 0, type_)

    def _in_order(self, tree):
        letters, renamed = iter(self.constants), {}
        for node in tree:
            if node.name in self.constants and node.name not in renamed:
                renamed[node.name] = self.set.mapping[next(letters)]
        return gp.PrimitiveTree(renamed.get(node.name, node) for node in tree)


@contextlib.contextmanager
def seeded(*seeds):
    """Python's global generator, which DEAP uses, begins with these seeds; then as before."""
    state = random.getstate()
    random.seed(" ".join(map(str, seeds)))
    try:
        yield
    finally:
        random.setstate(state)
