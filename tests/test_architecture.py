"""Who may import whom, sizes and docstrings, read from the source without running it."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = {
    "marl": {"marl"},
    "envs": {"envs", "marl"},
    "algos": {"algos", "marl"},
    "scripts": {"algos", "envs", "marl", "scripts"},
}
# Module prefix: the files and folders that may import it.
ONLY_IN = {
    "torch": {"algos/torch", "marl/torch_env.py"},
    "wandb": {"marl/logger.py"},
    "hydra": {"marl/config.py", "scripts"},
    "flax.linen": {"marl/networks.py", "marl/heads.py", "marl/relation_networks.py"},
}
HEAVY = ["jax", "torch", "wandb", "matplotlib", "orbax"]
MAX_FILE_LINES, MAX_FUNCTION_LINES = 300, 60
FILES = [
    path.relative_to(ROOT)
    for package in ALLOWED
    for path in sorted((ROOT / package).rglob("*.py"))
    if "__pycache__" not in path.parts
]
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
over_files = pytest.mark.parametrize("path", FILES, ids=str)


def parse(path):
    return ast.parse((ROOT / path).read_text())


def imports(tree):
    """Full names of all modules that are imported anywhere in the file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def public(body, prefix=""):
    """Public classes, functions and methods of a body, with their dotted names."""
    for node in body:
        if isinstance(node, DEFINITIONS) and not node.name.startswith("_"):
            yield prefix + node.name, node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body, f"{prefix}{node.name}.")


@over_files
def test_imports_go_in_the_allowed_directions(path):
    names = set(imports(parse(path)))
    ours = {name.split(".")[0] for name in names} & (ALLOWED.keys() | {"tests"})
    assert ours <= ALLOWED[path.parts[0]], f"{path} imports {ours - ALLOWED[path.parts[0]]}"


@over_files
def test_some_packages_are_imported_in_one_place_only(path):
    place = path.as_posix()
    for module, homes in ONLY_IN.items():
        found = [n for n in imports(parse(path)) if n == module or n.startswith(f"{module}.")]
        at_home = any(place == home or place.startswith(f"{home}/") for home in homes)
        assert at_home or not found, f"{path} imports {found[0]}"


@over_files
def test_files_and_functions_are_short(path):
    lines = len((ROOT / path).read_text().splitlines())
    assert lines <= MAX_FILE_LINES, f"{path} has {lines} lines"
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = node.end_lineno - node.lineno + 1
            assert length <= MAX_FUNCTION_LINES, f"{path}: {node.name} has {length} lines"


@over_files
def test_everything_public_has_a_docstring(path):
    tree = parse(path)
    assert ast.get_docstring(tree), f"{path} has no docstring"
    for name, node in public(tree.body):
        assert ast.get_docstring(node), f"{path}: {name} has no docstring"


@over_files
def test_functions_of_arrays_state_shapes(path):
    """A public function that takes or returns an Array says a shape in brackets; methods may not need to."""
    for name, node in public(parse(path).body):
        if not isinstance(node, ast.FunctionDef) or "." in name:
            continue
        every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        hints = {a.arg: ast.unparse(a.annotation) for a in every if a.annotation}
        arrays = [arg for arg, hint in hints.items() if hint == "Array" and arg not in ("key", "rng")]
        assert not arrays or "[" in ast.get_docstring(node), f"{path}: {name} takes arrays, but no shape"


def test_import_of_the_framework_is_cheap():
    code = f"import sys, marl; print([m for m in {HEAVY} if m in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout.strip() == "[]"


def test_composing_a_config_needs_no_accelerator_library():
    code = (
        "import sys; from marl.config import compose; compose(['env=prisoners_dilemma']);"
        f"print([m for m in {HEAVY} if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout.strip() == "[]"


def test_every_package_is_installed():
    """A folder with code that pyproject.toml does not list works in a checkout and nowhere else."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {".".join(path.parent.parts) for path in FILES if path.parts[0] != "scripts"}
    assert found == set(listed)
