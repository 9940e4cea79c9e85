"""The structure of the product in figures: who imports whom, and how long and how alike code is.

    python benchmarks/structure.py [CHECKOUT] [--list]

Reads the source of the four packages with the standard library alone and runs none of it, so it
takes older checkouts too. Every import counts: at the top of a module, inside a function and under
TYPE_CHECKING. A name that a package passes on counts as imported from the module that defines it.
"""

import argparse
import ast
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from graphlib import TopologicalSorter
from itertools import groupby
from pathlib import Path

PACKAGES = ("searchspaces", "compat", "pruning", "nas")
ALIKE = 6  # lines of code in a row from which on a repetition counts

Graph = Mapping[str, frozenset[str]]


@dataclass(frozen=True, eq=False)
class Source:
    """The Python source of the four packages.

    Attributes:
        root: The checkout.
    """

    root: Path

    @cached_property
    def trees(self) -> dict[str, ast.Module]:
        """Syntax of every module by its dotted name; a package stands for its ``__init__``."""
        files = (file for package in PACKAGES for file in (self.root / package).rglob("*.py"))
        return {self._name(file): ast.parse(file.read_text()) for file in sorted(files)}

    @cached_property
    def packages(self) -> frozenset[str]:
        """Dotted names of all packages."""
        return frozenset(name for name in self.trees if self.file(name).name == "__init__.py")

    @cached_property
    def imports(self) -> Graph:
        """What every module imports."""
        return {
            name: frozenset(
                target
                for target in self._imported(name, tree)
                if target != name and target in self.trees
            )
            for name, tree in self.trees.items()
        }

    @cached_property
    def rooms(self) -> Graph:
        """What every room imports, see `room`."""
        rooms: dict[str, set[str]] = {self.room(name): set() for name in self.trees}
        for name, targets in self.imports.items():
            rooms[self.room(name)] |= {self.room(target) for target in targets}
        return {room: frozenset(targets - {room}) for room, targets in rooms.items()}

    def room(self, name: str) -> str:
        """Return the folder right below one of the four packages that a module lies in.

        What lies in none, such as ``nas.errors``, is a room of its own.
        """
        return ".".join(name.split(".")[:2])

    def file(self, name: str) -> Path:
        """Return the file of a module."""
        path = self.root / name.replace(".", "/")
        return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")

    def _name(self, file: Path) -> str:
        parts = file.relative_to(self.root).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def _imported(self, name: str, tree: ast.Module) -> Iterator[str]:
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                start = self._absolute(name, node)
                yield from (self._definer(start, alias.name) for alias in node.names)

    def _absolute(self, name: str, node: ast.ImportFrom) -> str:
        if node.level == 0:
            return node.module or ""
        package = (name if name in self.packages else name.rpartition(".")[0]).split(".")
        parts = package[: len(package) - node.level + 1]
        return ".".join([*parts, node.module] if node.module else parts)

    def _definer(self, start: str, name: str) -> str:
        """The module that ``from start import name`` is about."""
        if f"{start}.{name}" in self.trees:
            return f"{start}.{name}"
        origin = self._passed_on(start).get(name) if start in self.packages else None
        return start if origin is None else self._definer(origin, name)

    def _passed_on(self, package: str) -> dict[str, str]:
        """Names that a package takes from other modules, by the stub if it has one."""
        stub = self.file(package).with_suffix(".pyi")
        tree = ast.parse(stub.read_text()) if stub.exists() else self.trees[package]
        return {
            alias.asname or alias.name: self._absolute(package, node)
            for node in tree.body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }


def circles(graph: Graph) -> list[frozenset[str]]:
    """Return the sets of modules that reach each other, largest first."""
    reach = {name: _reached(graph, name) for name in graph}
    found = {frozenset({name, *(o for o in reach[name] if name in reach[o])}) for name in graph}
    return sorted((each for each in found if len(each) > 1), key=lambda c: (-len(c), sorted(c)))


def floors(graph: Graph) -> int:
    """Return how many modules the longest chain of imports has, a circle taken as one."""
    whole = {name: name for name in graph} | {n: min(c) for c in circles(graph) for n in c}
    merged: dict[str, set[str]] = {name: set() for name in whole.values()}
    for name, targets in graph.items():
        merged[whole[name]] |= {whole[target] for target in targets} - {whole[name]}
    height: dict[str, int] = {}
    for name in TopologicalSorter(merged).static_order():
        height[name] = 1 + max((height[target] for target in merged[name]), default=0)
    return max(height.values())


def _reached(graph: Graph, start: str) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        fresh = graph[waiting.pop()] - seen
        seen |= fresh
        waiting += fresh
    return seen


def functions(source: Source) -> list[tuple[int, str]]:
    """Return the lines of every function with its name, longest first."""
    return sorted(
        (
            ((node.end_lineno or node.lineno) - node.lineno + 1, f"{module}:{node.name}")
            for module, tree in source.trees.items()
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ),
        reverse=True,
    )


def repetitions(source: Source) -> list[tuple[str, str, int]]:
    """Return the stretches of code that an earlier one equals line by line.

    Blank lines, comments, docstrings and imports are passed over.

    Returns:
        Where it is, where it was first ("module:line" each) and its lines.
    """
    first: dict[tuple[str, ...], tuple[str, int]] = {}
    found = []
    for module in source.trees:
        lines = _code(source, module)
        again: list[tuple[int, str, int]] = []  # index here; module and line of the earlier one
        for index in range(len(lines) - ALIKE + 1):
            window = tuple(text for _, text in lines[index : index + ALIKE])
            earlier, line = first.setdefault(window, (module, lines[index][0]))
            if (earlier, line) != (module, lines[index][0]):
                again.append((index, earlier, line))
        for _, group in groupby(enumerate(again), key=lambda each: each[1][0] - each[0]):
            run = [each for _, each in group]
            index, earlier, line = run[0]
            where = f"{module}:{lines[index][0]}"
            found.append((where, f"{earlier}:{line}", len(run) + ALIKE - 1))
    return sorted(found, key=lambda each: -each[2])


def _code(source: Source, module: str) -> list[tuple[int, str]]:
    """Number and text of the lines of a module that are code."""
    tree, skipped = source.trees[module], set()
    for node in ast.walk(tree):
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if text or isinstance(node, ast.Import | ast.ImportFrom):
            skipped |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = enumerate(source.file(module).read_text().splitlines(), start=1)
    return [
        (number, line.strip())
        for number, line in lines
        if number not in skipped and line.strip() and not line.lstrip().startswith("#")
    ]


def _row(source: Source, package: str) -> list[str]:
    """Figures of one package, or of all with an empty name."""

    def part(graph: Graph) -> Graph:
        kept = {n for n in graph if not package or n.partition(".")[0] == package}
        return {name: graph[name] & kept for name in graph if name in kept}

    modules, rooms = part(source.imports), part(source.rooms)
    figures = [
        *(len(modules), sum(map(len, modules.values())), floors(modules), len(circles(modules))),
        *(len(rooms), sum(map(len, rooms.values())), floors(rooms), len(circles(rooms))),
    ]
    return [package or "all", *map(str, figures)]


def main() -> None:
    """Print the figures of a checkout as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("checkout", nargs="?", type=Path, default=Path())
    parser.add_argument("--list", action="store_true", help="name circles and repetitions")
    arguments = parser.parse_args()
    source = Source(arguments.checkout)
    print("| | modules | arrows | floors | circles | rooms | arrows | floors | circles |")
    print("|---|" + "---:|" * 8)
    for package in (*PACKAGES, ""):
        print(f"| {' | '.join(_row(source, package))} |")
    lengths, repeated = functions(source), repetitions(source)
    longest = ", ".join(f"{lines} (`{name}`)" for lines, name in lengths[:5])
    median = statistics.median(lines for lines, _ in lengths)
    print(f"\nFunctions: {len(lengths):,}, median {median:g} lines; longest {longest}.")
    print(f"\nRepeated code of {ALIKE} lines or more: {len(repeated)} stretches, ", end="")
    print(f"{sum(lines for *_, lines in repeated)} lines.")
    if arguments.list:
        for circle in circles(source.imports):
            print(f"- circle: {', '.join(sorted(circle))}")
        for where, earlier, lines in repeated:
            print(f"- {lines} lines: {where} as {earlier}")


if __name__ == "__main__":
    main()
