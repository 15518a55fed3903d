"""Plain words: a function's docstring begins with a verb, a test's with no question; variables say what they hold."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# A class, a module or a function of tests may be named by a noun, but not by a question.
QUESTIONS = {"What", "Whether", "How", "Which", "Those", "Why", "Where", "Who"}
FIRST_WORDS = {*QUESTIONS, "The", "A", "An", "Its", "Every", "Everything", "All"}
VAGUE = {"each", "found", "told", "known", "some", "mine", "said", "there"}
FOLDERS = ("orchestrator", "trainer", "reports", "tests")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def first_words(tree: ast.Module, of_functions: set[str] = FIRST_WORDS) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, (*FUNCTIONS, ast.ClassDef, ast.Module)) and (text := ast.get_docstring(node)):
            word = text.split()[0]
            if word in (of_functions if isinstance(node, FUNCTIONS) else QUESTIONS):
                line, name = getattr(node, "lineno", 1), getattr(node, "name", "the file")
                yield f"{line}: the docstring of {name} begins with {word}, not with a verb"


def vague_names(tree: ast.Module) -> Iterator[str]:
    """Yield names of variables outside comprehensions, lambdas and loops of one line."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        short = isinstance(node, (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.Lambda))
        if isinstance(node, ast.For) and node.body[-1].end_lineno == node.body[0].lineno == node.lineno + 1:
            waiting.extend(node.body)
            continue
        if short:
            continue
        name = node.id if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) else None
        name = node.arg if isinstance(node, ast.arg) else name
        if name in VAGUE:
            yield f"{getattr(node, 'lineno', 0)}: {name} does not say what it holds"
        waiting.extend(ast.iter_child_nodes(node))


@pytest.mark.parametrize("folder", FOLDERS)
def test_docstrings_begin_with_a_verb_and_variables_say_what_they_hold(folder: str):
    wrong = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        tree = ast.parse(path.read_text())
        problems = (*first_words(tree, QUESTIONS if folder == "tests" else FIRST_WORDS), *vague_names(tree))
        wrong += [f"{path.relative_to(ROOT)}:{problem}" for problem in problems]
    assert not wrong, "\n".join(wrong)


def test_the_check_sees_what_it_is_for():
    function = 'def f(told):\n    """What it is."""\n    found = [each for each in told]\n    return found\n'
    tree = ast.parse('"""How it is."""\n' + function)
    assert len(list(first_words(tree))) == 2
    assert sorted(line.split()[1] for line in vague_names(tree)) == ["found", "told"]
