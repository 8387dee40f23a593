"""The house rules, read from the sources: who imports whom, what is pure, how long things get."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from schemas.backend_types import TYPES

ROOT = Path(__file__).parents[2]
PACKAGES = ("schemas", "backends", "reconciler")
"""From the ground up: each may import those before it."""
FLOORS = ("text system", "state", "planner", "report", "config secrets", "store", "hosts", "engine", "app", "cli")
"""Wings of `reconciler`, from the ground up: a wing imports only wings of the floors below its own."""
WITHOUT_PLANNER = ("report", "config", "secrets", "store", "hosts", "app")
"""Only `engine` and `cli` need the planner."""
PURE = ("text", "state", "planner")
"""Wings that read no clock and do nothing: values in, values out. A new module is pure by where it lies."""
SDKS_ONLY_IN = {
    "boto3": ("backends/aws", "reconciler/store/objects"),
    "botocore": ("backends/aws", "reconciler/store/objects"),
    "google": ("backends/gcp", "reconciler/store/objects"),
    "azure": ("backends/azure", "reconciler/store/objects"),
    "kubernetes": ("backends/kubernetes",),
    "obstore": ("reconciler/store",),
    "fabric": ("reconciler/hosts",),
    "paramiko": ("reconciler/hosts",),
}
LONGEST_FUNCTION = 60
LONGEST_MODULE = 320
MOST_MODULES = 30
"""In one folder."""
MOST_IMPORTS = 12
"""Modules of ours that one module imports, besides the nouns."""
CROWDED = {
    "backends.aws.backend": 18,
    "reconciler.app.connections": 13,
    "reconciler.app.wiring": 18,
    "reconciler.cli.commands.autoscale.edit": 17,
    "reconciler.cli.commands.backend.check": 14,
    "reconciler.cli.commands.cost": 13,
    "reconciler.cli.commands.offers.list": 18,
    "reconciler.cli.commands.plan.apply": 19,
    "reconciler.cli.commands.plan.destroy": 14,
    "reconciler.cli.commands.plan.plan": 24,
    "reconciler.cli.commands.pool.add": 17,
    "reconciler.cli.commands.pool.add_ssh": 16,
    "reconciler.cli.commands.run.attach": 17,
    "reconciler.cli.commands.run.confirm": 15,
    "reconciler.cli.commands.run.cp": 14,
    "reconciler.cli.commands.run.follow": 15,
    "reconciler.cli.commands.run.run": 15,
    "reconciler.cli.commands.state.move": 16,
    "reconciler.cli.commands.state.show": 15,
    "reconciler.cli.project": 13,
    "reconciler.config.load_run": 13,
    "reconciler.engine.decide": 24,
    "reconciler.engine.tick": 18,
}
"""Modules that import more than that today. A number may only go down."""
VAGUE = {"utils", "util", "common", "helpers", "helper", "manager", "managers", "misc", "service"}

# Packages of ours that compile documents or talk to the world are not part of the nouns' purity.
NOUNS_WITH_IO = ("schemas.documents",)
PURE_LIBRARY = {
    "__future__", "abc", "base64", "bisect", "collections", "dataclasses", "datetime", "decimal", "enum", "fractions",
    "fnmatch", "functools", "hashlib", "heapq", "hmac", "itertools", "json", "math", "msgspec", "operator", "re",
    "string", "textwrap", "types", "typing",
}  # fmt: skip
IMPURE_CALLS = {"open", "input", "print", "exec", "eval", "compile", "__import__", "breakpoint"}
CLOCKS = {"now", "today", "utcnow", "time", "time_ns", "monotonic", "perf_counter"}

# None of these may be paid for by a plan.
HEAVY = {
    "boto3", "botocore", "google.cloud", "azure", "kubernetes", "filelock", "fabric", "paramiko", "cryptography",
    "ruamel", "rich", "jsonschema", "numpy", "requests", "httpx", "urllib3", "asyncio",
}  # fmt: skip


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


@cache
def tree(name: str) -> ast.Module:
    """Read when a test asks: every worker collects every test, and few run these."""
    return ast.parse(SOURCES[name].read_text(), str(SOURCES[name]))


def where(name: str, node: ast.AST | None = None) -> str:
    line = getattr(node, "lineno", 1)
    return f"{SOURCES[name].relative_to(ROOT)}:{line}"


@cache
def imports(name: str) -> list[tuple[str, ast.stmt]]:
    """Every module that `name` imports, wherever in the file it does so."""
    found: list[tuple[str, ast.stmt]] = []
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            found.extend((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{where(name, node)}: relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.append((whole if whole in SOURCES else str(node.module), node))
    return found


def functions(name: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def package(module: str) -> str:
    return module.partition(".")[0]


def test_the_arrow_points_one_way() -> None:
    wrong = [
        f"{where(name, node)}: {package(name)} imports {module}"
        for name in SOURCES
        for module, node in imports(name)
        if package(module) in PACKAGES and PACKAGES.index(package(module)) > PACKAGES.index(package(name))
    ]
    assert wrong == []


def wing(module: str) -> str:
    """`planner` of `reconciler.planner.rules.retire`; "" of what lies in no wing."""
    parts = module.split(".")
    return parts[1] if parts[0] == "reconciler" and len(parts) > 2 else ""


def floor(wing: str) -> int:
    return next(number for number, wings in enumerate(FLOORS) if wing in wings.split())


def test_every_wing_has_its_floor() -> None:
    there = {folder.name for folder in (ROOT / "reconciler").iterdir() if (folder / "__init__.py").is_file()}
    assert there == {name for wings in FLOORS for name in wings.split()}
    assert [module for module in SOURCES if package(module) == "reconciler" and module.count(".") == 1] == [
        f"reconciler.{name}" for name in sorted(there)
    ]


def test_no_wing_imports_one_above_it() -> None:
    """Imports inside functions count: they run, too."""
    wrong = [
        f"{where(name, node)}: {wing(name)} imports {module}"
        for name in SOURCES
        if wing(name)
        for module, node in imports(name)
        if wing(module) and wing(module) != wing(name) and floor(wing(module)) >= floor(wing(name))
    ]
    assert wrong == []


def test_only_the_engine_and_the_commands_need_the_planner() -> None:
    wrong = [
        f"{where(name, node)}: {module}"
        for name in SOURCES
        if wing(name) in WITHOUT_PLANNER
        for module, node in imports(name)
        if wing(module) == "planner"
    ]
    assert wrong == []


def test_no_module_reaches_itself_by_imports() -> None:
    """Also not by imports inside functions: a circle is two modules that are one."""
    reached: dict[str, frozenset[str]] = {name: frozenset() for name in SOURCES}
    direct = {name: {module for module, _ in imports(name) if module in SOURCES} for name in SOURCES}
    changed = True
    while changed:
        changed = False
        for name, those in direct.items():
            more = reached[name].union(those, *(reached[module] for module in those))
            if more != reached[name]:
                reached[name], changed = more, True
    assert [name for name in SOURCES if name in reached[name]] == []


def test_a_vendors_library_is_imported_in_its_folders_alone() -> None:
    wrong = [
        f"{where(name, node)}: {module}"
        for name, path in SOURCES.items()
        for module, node in imports(name)
        for folders in [SDKS_ONLY_IN.get(package(module))]
        if folders is not None and not path.relative_to(ROOT).as_posix().startswith(folders)
    ]
    assert wrong == []


def test_no_cloud_imports_another() -> None:
    shared = {"base", "errors", "naming", "http", "boot", "catalog", "nvidia_smi", "checks", "scope", "credentials"}
    shared |= {"http_answers", "own_address"}
    wrong = [
        f"{where(name, node)}: {module}"
        for name in SOURCES
        if package(name) == "backends" and name.count(".") > 1 and not name.startswith("backends.catalog.")
        for module, node in imports(name)
        if package(module) == "backends" and module.split(".")[1] not in {name.split(".")[1], *shared}
    ]
    assert wrong == []


def test_optional_calls_have_defaults_and_nobody_asks_whether_they_are_there() -> None:
    """Each backend inherits `BackendDefaults`, so that the engine calls what it needs of any."""
    asked = [path for path in SOURCES.values() if "runtime_checkable" in path.read_text()]
    assert asked == []


def test_no_module_imports_half_of_the_program() -> None:
    """Imports inside functions count. What lies in `schemas` does not: those are the words of the program."""
    counts = {
        name: len({module for module, _ in imports(name) if module in SOURCES and package(module) != "schemas"})
        for name in SOURCES
    }
    assert {name: count for name, count in counts.items() if count > CROWDED.get(name, MOST_IMPORTS)} == {}
    assert {name: counts.get(name) for name, most in CROWDED.items() if counts.get(name) != most} == {}, "lower it"


def test_no_class_has_the_name_of_another() -> None:
    where_defined: dict[str, list[str]] = {}
    for name in SOURCES:
        for node in tree(name).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                where_defined.setdefault(node.name, []).append(where(name, node))
    assert {name: found for name, found in where_defined.items() if len(found) > 1} == {}


def test_no_folder_is_crowded() -> None:
    folders = Counter(path.parent.relative_to(ROOT).as_posix() for path in SOURCES.values() if path.stem != "__init__")
    assert {folder: count for folder, count in folders.items() if count > MOST_MODULES} == {}


def test_packages_have_no_code_of_their_own() -> None:
    wrong = [
        str(path.relative_to(ROOT))
        for name, path in SOURCES.items()
        if path.stem == "__init__" and len(tree(name).body) > (1 if ast.get_docstring(tree(name)) else 0)
    ]
    assert wrong == []


@pytest.mark.parametrize("name", [name for wings in FLOORS for name in wings.split()])
def test_each_wing_has_a_page_that_says_what_enters_and_what_leaves(name: str) -> None:
    page = (ROOT / "reconciler" / name / "README.md").read_text()
    assert 5 <= page.count("\n") <= 20
    assert all(word in page for word in ("Enters", "Leaves", "Never"))


def test_the_walks_of_the_page_lead_through_modules_that_exist() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    walks = page[page.index("## Three walks") : page.index("## A tick")]
    named = re.findall(r"`((?:reconciler|backends|schemas)\.[\w.]+)`", walks)
    assert len(named) > 30
    assert [name for name in named if name not in SOURCES] == []
    files = re.findall(r"`((?:reconciler|backends)/[\w./]+)`", walks)
    assert [name for name in files if not (ROOT / name).is_file()] == []


@cache
def pure_modules() -> frozenset[str]:
    """The named pure modules and packages, the nouns, and all of ours that any of them imports."""
    roots = {f"reconciler.{name}" for name in PURE}
    found = {name for name in SOURCES if name in roots or any(name.startswith(root + ".") for root in roots)}
    found |= {name for name in SOURCES if package(name) == "schemas" and not name.startswith(NOUNS_WITH_IO)}
    queue = list(found)
    while queue:
        for module, _ in imports(queue.pop()):
            if module in SOURCES and module not in found:
                found.add(module)
                queue.append(module)
    return frozenset(found)


def test_pure_modules_import_only_values() -> None:
    wrong = [
        f"{where(name, node)}: {module}"
        for name in sorted(pure_modules())
        for module, node in imports(name)
        if module not in SOURCES and package(module) not in PURE_LIBRARY
    ]
    assert wrong == []
    documents = [name for name in pure_modules() if name.startswith(NOUNS_WITH_IO)]
    assert not documents, f"a pure module imports {documents}, which read documents"


def test_pure_modules_read_no_clock_and_do_nothing() -> None:
    wrong = []
    for name in sorted(pure_modules()):
        for node in ast.walk(tree(name)):
            called = node.func if isinstance(node, ast.Call) else None
            if isinstance(called, ast.Name) and called.id in IMPURE_CALLS:
                wrong.append(f"{where(name, node)}: {called.id}()")
            if isinstance(called, ast.Attribute) and called.attr in CLOCKS:
                wrong.append(f"{where(name, node)}: .{called.attr}()")
    assert wrong == []


def test_every_pure_module_exists() -> None:
    missing = [name for name in PURE if f"reconciler.{name}" not in SOURCES]
    assert missing == []


def test_no_function_is_long() -> None:
    long = [
        f"{where(name, function)}: {function.name} has {lines} lines"
        for name in SOURCES
        for function in functions(name)
        if (lines := (function.end_lineno or 0) - function.lineno + 1) > LONGEST_FUNCTION
    ]
    assert long == []


def test_no_module_is_long() -> None:
    lengths = {name: path.read_text().count("\n") for name, path in SOURCES.items()}
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_MODULE} == {}


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [name for name in SOURCES if VAGUE & set(name.split("."))] == []


def test_every_module_says_what_it_is() -> None:
    assert [name for name in SOURCES if tree(name).body and not ast.get_docstring(tree(name))] == []


def test_pydantic_stays_with_the_documents() -> None:
    wrong = [
        where(name, node)
        for name in SOURCES
        for module, node in imports(name)
        if package(module) == "pydantic" and not name.startswith("schemas.documents")
    ]
    assert wrong == []


def test_no_exception_is_swallowed() -> None:
    wrong = []
    for name in SOURCES:
        for node in ast.walk(tree(name)):
            if isinstance(node, ast.ExceptHandler) and (node.type is None or all(map(says_nothing, node.body))):
                wrong.append(where(name, node))
    assert wrong == []


def says_nothing(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Pass) or (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    )


@pytest.mark.parametrize("name", PACKAGES)
def test_each_package_is_typed(name: str) -> None:
    assert (ROOT / name / "py.typed").is_file()


PLAN_AND_LIST = """
import json, sys
from reconciler.cli.main import main
sys.argv = ["dstack", "plan"]
try:
    main()
except SystemExit as end:
    assert end.code in (0, None), end.code
json.dump(sorted(sys.modules), sys.stderr)
"""


def test_a_plan_imports_nothing_heavy(tmp_path: Path) -> None:
    folder = tmp_path / "hello"
    shutil.copytree(ROOT / "examples" / "hello", folder, ignore=shutil.ignore_patterns("state", "keys"))
    done = subprocess.run(
        [sys.executable, "-c", PLAN_AND_LIST],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_STATE_HOME": str(tmp_path / "state")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stderr.splitlines()[-1])
    heavy = [module for module in loaded if any(module == name or module.startswith(name + ".") for name in HEAVY)]
    assert heavy == []


# ---------------------------------------------------------------- what a backend is, said once

AWS_ALONE = "backends.aws."
"""Modules of AWS's own: nobody else names them."""
NAMED = {
    "schemas.backend_types": "the table itself",
    "reconciler.cli.commands.backend.aws_configure": "the command is called so",
    "reconciler.cli.options.backend": "the command is called so, and its default name",
    "reconciler.cli.suggest": "names of commands",
    "reconciler.cli.keep_here": "the folder ~/.dstack/ssh",
    "reconciler.hosts.ssh.aliases": "the folder ~/.dstack/ssh",
    "reconciler.config.edit.hosts": "the key `ssh` of a pool",
    "reconciler.config.compile.project": "the key `ssh` of a pool",
    "reconciler.planner.rules.pool_edits": "the key `ssh` of a pool",
    "reconciler.store.objects.open": "extras of the package",
    "backends.aws.access": "the vendor's program",
    "reconciler.config.found_here": "what a kubeconfig is for",
    "schemas.location": "`state: local`",
    "backends.aws.backend": "a partition of AWS",
    "backends.aws.iam_policy": "a partition of AWS",
    "backends.local.backend": "its own",
    "backends.ssh.backend": "its own",
    "backends.runpod.backend": "the key `ssh` of a pod",
    "reconciler.hosts.ssh.ask_ssh": "the program",
    "backends.aws.snapshot_catalog": "of AWS alone",
    "backends.azure.machine": "a key of Azure's",
    "backends.azure.snapshot_catalog": "of Azure alone",
}
"""Modules in which the name of a type stands as a text, and why."""


def test_nobody_else_names_a_module_of_aws() -> None:
    wrong = [
        f"{where(name, node)}: {module}"
        for name in SOURCES
        for module, node in imports(name)
        if module.startswith(AWS_ALONE) and not name.startswith(AWS_ALONE)
    ]
    assert wrong == []


def test_the_registry_names_no_module_of_a_backend() -> None:
    own = {one.module for one in TYPES.values() if one.module}
    assert [module for module, _ in imports("backends.registry") if module in own] == []


def test_the_name_of_a_type_stands_in_the_table_alone() -> None:
    names = {one.name for one in TYPES.values() if one.available}
    found = {
        name
        for name in SOURCES
        for node in ast.walk(tree(name))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in names
        if not name.startswith("schemas.documents.backends")
    }
    assert sorted(found - NAMED.keys()) == []
    assert sorted(NAMED.keys() - found) == [], "no longer needed"


def test_no_type_is_told_apart_by_its_name() -> None:
    names = {one.name for one in TYPES.values()}
    wrong = [
        where(name, node)
        for name in SOURCES
        for node in ast.walk(tree(name))
        if isinstance(node, ast.Compare)
        for side in (node.left, *node.comparators)
        if isinstance(side, ast.Constant) and side.value in names
        if not name.startswith(("backends.aws.backend", "schemas.documents.backends"))
    ]
    assert wrong == []
