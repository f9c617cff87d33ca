"""The rules of the house, checked over the source."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import edge_vad

ROOT = Path(__file__).resolve().parents[1]
RUNTIME = sorted((ROOT / "edge_vad").rglob("*.py"))
SOURCES = [*RUNTIME, *sorted((ROOT / "converters").rglob("*.py")), *sorted((ROOT / "profiles").rglob("*.py"))]
CONVERTERS = "edge_vad.converters"
OPTIONAL = {
    "onnxruntime",
    "cv2",
    "openvino",
    "hnswlib",
    "scipy",
    "safetensors",
    "picamera2",
    "gi",
    "torch",
    "onnx",
    "onnxscript",
    "pynvml",
}
# Only the first is imported by itself; it imports the others once torch is there. So does a method with edge_vad/tensors.
TORCH_BACKEND = {"torch.py", "_torch_operators.py", "_torch_network.py"}
NO_VERBS = {"edge_vad.commands.__init__", "edge_vad.commands.options"}
NEVER = {"matplotlib"}  # not even inside the evaluation


def imports(tree: ast.AST) -> Iterator[str]:
    """Absolute names of everything imported below a node, also by import_module("...")."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__", "require"):
                yield str(node.args[0].value)


def at_import(tree: ast.Module) -> Iterator[str]:
    """Names imported when the module is: not those inside functions or under TYPE_CHECKING."""
    for node in tree.body:
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or typing_only:
            continue
        if isinstance(node, ast.ClassDef):
            node = ast.Module([n for n in node.body if not isinstance(n, ast.FunctionDef)], [])
        yield from imports(node)


def is_below(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", RUNTIME, ids=named)
def test_the_runtime_does_not_know_the_converters_torch_or_onnx(path: Path) -> None:
    foreign = {CONVERTERS, "torch", "onnx", "onnxscript"}
    if (path.parent.name == "backends" and path.name in TORCH_BACKEND) or path.parent.name == "tensors":
        foreign -= {"torch"}
    assert not [name for name in imports(parse(path)) if any(is_below(name, package) for package in foreign)]


@pytest.mark.parametrize("path", RUNTIME, ids=named)
def test_optional_packages_are_imported_where_they_are_used(path: Path) -> None:
    with_torch = path.name in TORCH_BACKEND - {"torch.py"} or path.parent.name == "tensors"
    optional = OPTIONAL - ({"torch"} if with_torch else set())
    assert not {name.split(".")[0] for name in at_import(parse(path))} & (optional | NEVER)


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_there_is_no_pickle_and_yaml_is_loaded_safely(path: Path) -> None:
    tree = parse(path)
    for name in imports(tree):
        assert name.split(".")[0] not in {
            "pickle",
            "cPickle",
            "_pickle",
            "dill",
            "cloudpickle",
            "shelve",
            "marshal",
            "joblib",
        }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "yaml":
            assert node.attr in {"safe_load", "YAMLError"}
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"np.load", "numpy.load"}:
            assert {k.arg: ast.literal_eval(k.value) for k in node.keywords if k.arg == "allow_pickle"} == {
                "allow_pickle": False
            }
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            assert any(k.arg == "weights_only" and ast.literal_eval(k.value) is True for k in node.keywords)
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in {"eval", "exec", "yaml.load"}


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys, json; print(json.dumps(sorted(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    return set(json.loads(ended.stdout))


def test_importing_edge_vad_loads_no_optional_package() -> None:
    loaded = loaded_by("import edge_vad")
    assert "edge_vad" in loaded and not loaded & OPTIONAL
    assert not any(is_below(name, CONVERTERS) for name in loaded)


def test_help_answers_without_loading_anything_heavy() -> None:
    quietly = "import contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()): main(['--help'])"
    loaded = loaded_by(f"from edge_vad.cli import main\n{quietly}")
    assert not loaded & {*OPTIONAL, "numpy"}


def test_every_verb_of_the_command_line_has_its_file_and_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    from edge_vad.cli import COMMANDS, main

    on_device = {f"edge_vad.commands.{path.stem}" for path in (ROOT / "edge_vad" / "commands").glob("*.py")}
    offline = {f"{CONVERTERS}.{path.stem}" for path in (ROOT / "converters").glob("*_command.py")}
    assert {module for module, _ in COMMANDS.values()} == (on_device | offline) - NO_VERBS
    for verb in COMMANDS:
        with pytest.raises(SystemExit) as end:
            main([verb, "--help"])
        said = capsys.readouterr().out
        assert end.value.code == 0
        assert said.startswith(f"usage: edge-vad {verb}") and len(said.splitlines()) <= 40


def test_the_public_names_are_those_of_all() -> None:
    classes_and_functions = {name: getattr(edge_vad, name) for name in edge_vad.__all__}
    assert all(value.__module__.startswith("edge_vad.") and value.__doc__ for value in classes_and_functions.values())
    for_type_checkers = next(node for node in parse(ROOT / "edge_vad" / "__init__.py").body if isinstance(node, ast.If))
    seen = {alias.name for node in for_type_checkers.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == set(edge_vad.__all__)
    with pytest.raises(AttributeError, match="'Detectr'"):
        _ = edge_vad.Detectr


def test_every_error_is_an_edge_vad_error_and_drawn_in_the_tree() -> None:
    from edge_vad import errors

    kinds = [value for value in vars(errors).values() if isinstance(value, type) and value.__module__ == errors.__name__]
    assert all(
        issubclass(kind, errors.EdgeVadError) and kind.__name__ in str(errors.__doc__) and kind.__doc__ for kind in kinds
    )


def test_the_word_of_the_glossary_is_used_everywhere() -> None:
    for path in SOURCES:
        assert "backbone" not in path.read_text(encoding="utf-8").lower(), f"{named(path)}: say encoder"


@pytest.mark.parametrize("kind", ["backends", "banks", "cameras", "methods", "sinks"])
def test_plug_ins_are_one_class_in_one_file(kind: str) -> None:
    from edge_vad.plugins import available

    for name in available(kind):
        tree = parse(ROOT / "edge_vad" / kind / f"{name}.py")
        plug_ins = [
            n
            for n in tree.body
            if isinstance(n, ast.ClassDef)
            and any(ast.unparse(base).endswith(("Backend", "Bank", "Camera", "Method", "Sink")) for base in n.bases)
        ]
        assert len(plug_ins) == 1 and ast.get_docstring(plug_ins[0])
