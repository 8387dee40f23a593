"""Reading YAML: what values mean, where they are, and hostile files."""

import resource
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.config.init import init, mint_project
from reconciler.config.load import Invalid, Problem, load
from reconciler.config.yaml.reader import parse_yaml, read_yaml
from reconciler.config.yaml.values import SourceText, locate, scalar_text


def parse(text: str | bytes) -> SourceText:
    return parse_yaml(text.encode() if isinstance(text, str) else text, shown="x.yml")


def said(text: str | bytes) -> list[str]:
    return [str(problem) for problem in parse(text).problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("Off", "Off"),
        ("yes", "yes"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("0777", "0777"),
        ("010", "010"),
        ("0x1f", "0x1f"),
        ("0o17", "0o17"),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("22:59", "22:59"),
        ("3000:22", "3000:22"),
        ("2024-02-26", "2024-02-26"),
        ("-0", "-0"),
        ("2001-12-14t21:59:43.10-05:00", "2001-12-14t21:59:43.10-05:00"),
        ("1e3", 1000.0),
        ("1.5", 1.5),
        (".5", 0.5),
        ("5", 5),
        ("-5", -5),
        ("+5", "+5"),
        (".inf", ".inf"),
        (".NaN", ".NaN"),
        ("1e999", "1e999"),
        ("=", "="),
        ("99999999999999999999999", "99999999999999999999999"),
        ("'5'", "5"),
        ('"true"', "true"),
        ("!!str 5", "5"),
        ("!!int 5", 5),
        ("!!float 1.5", 1.5),
    ],
)
def test_scalars_are_what_they_look_like(text: str, value: Any) -> None:
    found = parse(f"a: {text}\n").value["a"]
    assert found == value
    assert type(found) is type(value) or isinstance(found, float)


@pytest.mark.parametrize("text", ["3.10", "1e3", "5", "0777", "no"])
def test_a_scalar_remembers_how_it_was_written(text: str) -> None:
    assert scalar_text(parse(f"a: {text}").value["a"]) == text


def test_positions_count_characters_from_one() -> None:
    source = parse("ä: {b: [1,\n  è, x]}\n")
    assert locate(source, ("ä", "b", 2)) == (2, 6)
    assert locate(source, ("ä", "b"), key=True) == (1, 5)
    assert locate(source, ("ä", "missing")) == (1, 4)


def test_merge_keys_keep_what_is_written() -> None:
    source = parse("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: {<<: [{x: 5}, *a]}\n")
    assert source.value["b"] == {"y": 3, "x": 1}
    assert source.value["c"] == {"x": 5, "y": 2}
    assert locate(source, ("b", "x")) == (1, 11)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"a: \xff\n", "x.yml:1:4: is not UTF-8 text (byte 0xff)"),
        (b"a: b\nc: \xc3", "x.yml:2:4: is not UTF-8 text (byte 0xc3)"),
        ("a: b\n\0", "x.yml:2:1: the control character U+0000 is not allowed in YAML"),
        ("a: \x1b[31m", "x.yml:1:4: the control character U+001B is not allowed in YAML"),
        ("a: x".encode("utf-16"), "x.yml:1:1: is not UTF-8 text (byte 0xff)"),
        ("a:\n  b: 1\n  b: 2\n", "x.yml:3:3: duplicate key `b`, first written at x.yml:2:3"),
        ("a: 1\n'a': 2\n", "x.yml:2:1: duplicate key `a`, first written at x.yml:1:1"),
        ("a: 1\n---\nb: 2\n", "x.yml:2:1: a second document begins here (`---`): one file holds one"),
        ("a:\n\tb: 1", "x.yml:2:1: a tab cannot indent YAML: use spaces"),
        ("? [a]\n: b", "x.yml:1:3: a key is text here, not a list or a mapping"),
    ],
)
def test_problems_of_yaml(text: str | bytes, problem: str) -> None:
    assert said(text) == [problem]


def test_every_duplicate_is_told() -> None:
    assert len(said("a: 1\na: 2\nb: 1\na: 3\nb: 2\n")) == 3


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 30)
)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (BOMB, "the aliases stand for more than 1,000,000 values"),
        ("[" * 1000 + "]" * 1000, "nested deeper than 64 levels"),
        ("[" * 500_000, "nested deeper than 64 levels"),
        ("- " * 5000 + "x", "nested deeper than 64 levels"),
        ("{a: " * 1000, "nested deeper than 64 levels"),
        (
            "".join(f"a{n}: &a{n} [{'*a' + str(n - 1) if n else 'x'}]\n" for n in range(1000)),
            "nested deeper than 64 levels",
        ),
        ("a: &a {<<: *a}", "the alias `*a` stands inside its own anchor"),
        (b"x" * (50 * 1024 * 1024), "is larger than 8 MiB: not read"),
    ],
    ids=["bomb", "deep", "very deep", "deep blocks", "deep mappings", "deep aliases", "itself", "huge"],
)
def test_hostile_files_are_refused(text: str | bytes, problem: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF)
    assert said(text)[0].endswith(problem)
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert after.ru_utime - before.ru_utime < 10
    assert after.ru_maxrss - before.ru_maxrss < 500_000


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "x.yml").open("wb") as stream:
        stream.truncate(50 * 1024 * 1024)
    source, data = read_yaml(tmp_path / "x.yml", shown="x.yml")
    assert source.problems[0].message == "is larger than 8 MiB: not read"
    assert len(data) <= 8 * 1024 * 1024 + 1


@pytest.mark.parametrize(
    "text",
    [
        "pools:\n" + "".join(f"  - {{name: a, k{n}: 1}}\n" for n in range(3000)),
        "".join(f"k{n}: 1\n" for n in range(20_000)),
        f"pools: [{{name: a, idle_duration: '5w{' ' * 100_000}x', max_price: '{'1' * 100_000}'}}]",
        f"runs: [{{type: task, name: a, commands: ['{'${{' * 30_000}', '${{{{{' ' * 100_000}']}}]",
        f"runs: [{{type: task, name: a, commands: [x], env: {{A: '{'eyJ' * 100_000}'}}, ports: [x], resources: "
        f"{{gpu: '{'A' * 100_000}:{':' * 1000}', memory: '1{' ' * 100_000}x'}}}}]",
    ],
    ids=["unknown keys", "unknown top-level keys", "spaces", "references", "texts"],
)
def test_costly_documents_are_refused_soon(text: str, tmp_path: Path) -> None:
    (tmp_path / ".dstack").mkdir()
    (tmp_path / ".dstack" / "a.yml").write_text(text)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    with pytest.raises(Invalid):
        load(tmp_path, home=tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - before < 10


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(st.binary(max_size=300), st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass")))
)
def test_any_bytes_are_a_value_or_located_problems(data: bytes) -> None:
    source = parse(data)
    assert all(problem.line >= 1 and problem.col >= 1 for problem in source.problems)


def told(root: Path) -> list[Problem]:
    """What is wrong with a project; any other exception is a defect."""
    try:
        load(root, home=root)
    except Invalid as invalid:
        return invalid.problems or [Problem("", 0, 0, "")]
    return []


WORDS = st.sampled_from(
    [
        "pools",
        "runs",
        "name",
        "type",
        "task",
        "gpu",
        "nodes",
        "2..",
        "&a",
        "*a",
        "<<",
        "${{ env.A }}",
        "${{",
        "off",
        "-1",
        "profiles",
        "secrets",
        "backends",
        "local",
        "project",
        "id",
        "resources",
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "- ",
        "\n",
        "  ",
        "\n  - ",
        ": ",
        "commands",
        "'",
        '"',
        "!!str",
        "1e9",
        "!",
        "|",
        ">",
        "#",
        "env",
        "A=b",
        "null",
        "5m",
        "\t",
        "---",
    ]
)


@settings(max_examples=400, deadline=None)
@given(text=st.lists(WORDS, max_size=40).map("".join))
def test_any_document_is_loaded_or_invalid(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("fuzz")
    (root / ".dstack" / "runs").mkdir(parents=True)
    for name in ("a.yml", "runs/b.yml"):
        (root / ".dstack" / name).write_text(text)
    assert all(problem.path and problem.line >= 1 and problem.message for problem in told(root))


KEYS = st.sampled_from(
    [
        "name",
        "type",
        "nodes",
        "resources",
        "gpu",
        "env",
        "commands",
        "retry",
        "ssh",
        "probe",
        "ports",
        "volumes",
        "model",
        "creds",
        "budget",
        "replicas",
        "scaling",
        "python",
        "idle_duration",
        "tags",
    ]
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(allow_nan=False),
    st.text(max_size=8),
    st.sampled_from(["task", "service", "aws", "local", "a", "2..4", "8GB", "5m", "${{ env.A }}"]),
)
SECTIONS = st.sampled_from(
    [
        "pools",
        "runs",
        "profiles",
        "backends",
        "secrets",
        "project",
        "budget",
        "keep",
        "autoscale",
        "requires",
        "authorized_keys",
    ]
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=12,
)


@settings(max_examples=400, deadline=None)
@given(tree=st.dictionaries(SECTIONS, TREES, max_size=4))
def test_any_tree_is_loaded_or_invalid(tree: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    from json import dumps

    root = tmp_path_factory.mktemp("fuzz")
    (root / ".dstack").mkdir()
    (root / ".dstack" / "a.yml").write_text(dumps(tree))
    assert all(problem.path and problem.line >= 1 and problem.message for problem in told(root))


def test_the_starter_loads_without_a_word(tmp_path: Path) -> None:
    written = init(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in written] == [
        ".dstack/pools.yml",
        ".dstack/runs/hello.yml",
        ".dstack/schema/documents.schema.json",
        ".dstack/schema/run.schema.json",
        ".dstack/.gitignore",
    ]
    assert mint_project(tmp_path, nonce="abcd1234") == "abcd1234"
    documents = load(tmp_path, home=tmp_path)
    assert documents.warnings == ()
    assert documents.desired.project == "abcd1234"
    assert (tmp_path / ".dstack" / ".gitignore").read_text().split()[-2:] == ["state/", "keys/"]
    assert init(tmp_path) == []


def test_the_starter_overrides_no_default_of_its_pool(tmp_path: Path) -> None:
    """A value that the starter writes would hold for `pool add`, too: its 72h, say."""
    init(tmp_path)
    mint_project(tmp_path, nonce="abcd1234")
    (pool,) = load(tmp_path, home=tmp_path).desired.pools
    (tmp_path / ".dstack" / "pools.yml").write_text("pools: [{name: default-pool, default: true}]")
    assert (pool,) == load(tmp_path, home=tmp_path).desired.pools
    assert [field for field, source in pool.sources if source != "default"] == []


def test_the_starter_names_the_schemas_that_lie_beside_it(tmp_path: Path) -> None:
    init(tmp_path, backends=["{type: local}", "{type: aws, regions: [eu-west-1], creds: {profile: research}}"])
    for file in (tmp_path / ".dstack").rglob("*.yml"):
        first = file.read_text().partition("\n")[0]
        assert (file.parent / first.removeprefix("# yaml-language-server: $schema=")).is_file()
    mint_project(tmp_path, nonce="abcd1234", name="mine")
    desired = load(tmp_path, home=tmp_path).desired
    assert [one.name for one in desired.backends] == ["local", "aws"]


def test_a_schema_of_another_version_is_replaced(tmp_path: Path) -> None:
    init(tmp_path)
    (tmp_path / ".dstack" / "schema" / "run.schema.json").write_text("{}")
    assert [path.name for path in init(tmp_path)] == ["run.schema.json"]


def test_init_touches_no_documents(tmp_path: Path) -> None:
    (tmp_path / ".dstack").mkdir()
    (tmp_path / ".dstack" / "mine.yml").write_text("pools: []")
    assert [path.name for path in init(tmp_path)] == ["documents.schema.json", "run.schema.json", ".gitignore"]


def test_keys_are_ignored_by_git_even_beside_other_rules(tmp_path: Path) -> None:
    (tmp_path / ".dstack").mkdir()
    (tmp_path / ".dstack" / ".gitignore").write_text("*.bak\nstate/")
    init(tmp_path)
    assert (tmp_path / ".dstack" / ".gitignore").read_text() == "*.bak\nstate/\nkeys/\n"


def test_two_that_mint_at_once_agree(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    for round_ in range(20):
        root = tmp_path / str(round_)
        root.mkdir()
        with ThreadPoolExecutor(8) as pool:
            ids = set(pool.map(lambda n, root=root: mint_project(root, nonce=f"nonce{n}00"), range(8)))
        assert ids == {load(root, home=tmp_path).desired.project}
        assert sorted(path.name for path in (root / ".dstack").iterdir()) == [".gitignore", "project.yml"]


def test_a_project_file_without_an_id_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / ".dstack").mkdir()
    (tmp_path / ".dstack" / "project.yml").write_text("project: {name: x}\n")
    with pytest.raises(ValueError, match="holds no project id"):
        mint_project(tmp_path, nonce="abcd1234")
