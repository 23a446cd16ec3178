"""The boundaries at which a process may die, read from the code: each commit and each send.

- `commit`: what the engine's writer is given (`store.write`, `write_together`, and the functions
  that hand a unit of work on to them), and each other `COMMIT`. Named after the unit of work.
- `send`: where the SDK makes an `APICall` of its server. Named after the function that asks for it,
  and the one that makes it.
- `call`: where the engine makes an `HTTPRequest`, named in the same way.

All is read from syntax trees, so a boundary that is new is there without an entry in any list; the
code that cannot be read this way is an error, not a gap.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[3] / "src" / "stephttp"
_WRITERS = {"write": 0, "write_together": 0}
"""The methods of the store that commit, and the place of the unit of work among their arguments."""


class Function:
    """A function: its definition, and what it calls."""

    def __init__(self, definition: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.definition = definition
        self.nodes = list(_own(definition))
        self.calls = [node for node in self.nodes if isinstance(node, ast.Call)]

    @property
    def parameters(self) -> list[str]:
        """Return their names, without `self`."""
        args = self.definition.args
        names = [one.arg for one in (*args.posonlyargs, *args.args)]
        return names[1:] if names[:1] == ["self"] else names

    def returns(self, class_name: str) -> bool:
        """Return whether it is declared to return such a thing, or perhaps one."""
        annotation = self.definition.returns
        return annotation is not None and class_name in ast.unparse(annotation).split(" | ")


@dataclass
class Module:
    """A module: its functions by qualified name, and what its names stand for."""

    name: str
    tree: ast.Module
    functions: dict[str, Function] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, order=True)
class Boundary:
    """A boundary: `kind` is `commit`, `send` or `call`; `name` is what `killing` sees as well."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@cache
def boundaries() -> tuple[Boundary, ...]:
    """Return all boundaries of the package."""
    modules = _modules()
    engine = [one for one in modules if one.name.startswith("stephttp.engine")]
    sdk = [one for one in modules if not one.name.startswith(("stephttp.engine", "stephttp.cli"))]
    found = {Boundary("commit", name) for name in _commits(engine)}
    found |= {Boundary("send", name) for name in _made(sdk, "stephttp._client.flow.APICall")}
    request = "stephttp.engine.outbound.connection.HTTPRequest"
    found |= {Boundary("call", name) for name in _made(engine, request)}
    return tuple(sorted(found))


def makers(kind: str) -> list[tuple[str, str]]:
    """Return module and qualified name of the functions that make what is sent.

    Args:
        kind: `send` or `call`.
    """
    names = {one.name.rpartition(" < ")[0] or one.name for one in boundaries() if one.kind == kind}
    known = {one.name for one in _modules()}
    return sorted(
        max((name[: len(one)], name[len(one) + 1 :]) for one in known if name.startswith(f"{one}."))
        for name in names
    )


@cache
def _modules() -> tuple[Module, ...]:
    return tuple(_read(path) for path in sorted(SOURCE.rglob("*.py")))


def _read(path: Path) -> Module:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    module = Module(name, ast.parse(path.read_text()))
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            module.imports |= {one.asname or one.name: one.name for one in node.names}
        elif isinstance(node, ast.ImportFrom):
            module.imports |= {
                one.asname or one.name: f"{node.module}.{one.name}" for one in node.names
            }
    module.functions = dict(_functions(module.tree, ""))
    return module


def _functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, Function]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + child.name, Function(child)
            yield from _functions(child, f"{prefix}{child.name}.<locals>.")
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{prefix}{child.name}.")
        else:
            yield from _functions(child, prefix)


def _own(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[ast.AST]:
    """Return what is in a function, without the functions in it (their lambdas are its own)."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting.extend(ast.iter_child_nodes(node))


def _called(call: ast.Call) -> str:
    match call.func:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
        case _:
            return ""


# Commits ------------------------------------------------------------------------------------------


def _commits(modules: list[Module]) -> set[str]:
    """Return the names of all units of work that are committed."""
    found = {
        f"{module.name}.{name}"
        for module in modules
        for name, function in module.functions.items()
        if module.name != "stephttp.engine.store.store"
        for node in function.nodes
        if isinstance(node, ast.Constant) and node.value == "COMMIT"
    }
    handers = dict(_WRITERS)
    while True:
        before = dict(handers)
        for module in modules:
            for name, function in module.functions.items():
                if module.name != "stephttp.engine.store.store":
                    found |= set(_units(module, name, function, handers))
        if handers == before:
            return found


def _units(module: Module, name: str, function: Function, handers: dict[str, int]) -> Iterator[str]:
    """Return the units that a function commits; one that it is given makes it a hander."""
    values: dict[str, ast.expr] = {
        node.targets[0].id: node.value
        for node in function.nodes
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    parameters = function.parameters
    for node in function.calls:
        if _called(node) not in handers:
            continue
        if _called(node) in _WRITERS and not _is_store(node):
            continue
        unit = node.args[handers[_called(node)]]
        while True:
            match unit:
                case ast.Call(func=ast.Name(id="partial"), args=[first, *_]):
                    unit = first
                case ast.Name(id=local) if local in values:
                    unit = values[local]
                case _:
                    break
        match unit:
            case ast.Name(id=local) if local in parameters:
                handers[name.rpartition(".")[2]] = parameters.index(local)
            case ast.Name(id=local):
                yield module.imports.get(local, f"{module.name}.{local}")
            case ast.Lambda():
                yield f"{module.name}.{name}.<locals>.<lambda>"
            case ast.Attribute(value=ast.Name(id="self"), attr=method):
                yield f"{module.name}.{name.rpartition('.')[0]}.{method}"
            case ast.Attribute(value=ast.Name(id=local), attr=attribute):
                yield f"{module.imports[local]}.{attribute}"
            case _:
                where = f"{module.name}.{name}, line {node.lineno}"
                raise NotImplementedError(f"{where}: which unit of work is {ast.unparse(unit)}?")


def _is_store(call: ast.Call) -> bool:
    """Return whether it is a store that is asked to write, and not a stream."""
    match call.func:
        case ast.Attribute(value=ast.Attribute(attr=owner) | ast.Name(id=owner)):
            return owner.strip("_") == "store"
        case _:
            return False


# Sends --------------------------------------------------------------------------------------------


def _made(modules: list[Module], made: str) -> set[str]:
    """Return who makes such requests: a function, or `function < caller` for one that others call.

    A function that returns the request is named with each function that calls it, as far up as
    requests are returned.
    """
    class_name = made.rpartition(".")[2]
    home = made.rpartition(".")[0]
    found: set[str] = set()
    waiting: list[tuple[str, Function]] = []
    for module in modules:
        if module.imports.get(class_name) != made and module.name != home:
            continue
        for name, function in module.functions.items():
            if any(_called(call) == class_name for call in function.calls):
                waiting.append((f"{module.name}.{name}", function))
    seen: set[str] = set()
    for name, function in waiting:
        if not function.returns(class_name):
            found.add(name)
            continue
        callers = list(_callers(modules, name))
        if not callers:  # it is handed on, to be called when it is needed
            found.add(name)
        for caller in callers:
            # One more: a maker that only fills in what another makes (`post_steps` from `post`).
            if _function(modules, caller).returns(class_name) and caller not in seen:
                seen.add(caller)
                found |= {f"{name} < {further}" for further in _callers(modules, caller)}
            else:
                found.add(f"{name} < {caller}")
    return found


def _function(modules: list[Module], name: str) -> Function:
    return next(
        function
        for module in modules
        for own, function in module.functions.items()
        if f"{module.name}.{own}" == name
    )


def _callers(modules: list[Module], name: str) -> Iterator[str]:
    """Return the functions that call another: by its own name, or as an attribute of its module."""
    home, _, own = name.rpartition(".")
    for module in modules:
        for caller, function in module.functions.items():
            for call in function.calls:
                if _refers(call.func, module, home, own):
                    yield f"{module.name}.{caller}"


def _refers(function: ast.expr, module: Module, home: str, own: str) -> bool:
    match function:
        case ast.Name(id=name):
            here = f"{module.name}.{name}"
            return f"{home}.{own}" == module.imports.get(name, here)
        case ast.Attribute(value=ast.Name(id="self"), attr=name):
            return home.startswith(f"{module.name}.") and name == own
        case ast.Attribute(value=ast.Name(id=name), attr=attribute):
            return attribute == own and module.imports.get(name) == home
        case _:
            return False
