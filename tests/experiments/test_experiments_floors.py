"""The rooms of experiments/: who imports whom."""

import ast
import pathlib

import pytest

import experiments

ROOT = pathlib.Path(experiments.__file__).parent
FLOORS, ROOMS = 6, 8  # of a study at most


def imports_of(path):
    """Return the modules of experiments that a file imports."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("experiments"):
            found += [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.startswith("experiments")]
    return found


def room_graph(study, imports=imports_of):
    """Return for every folder or single file of a study the others that it imports."""
    graph = {}
    for path in sorted((ROOT / study).rglob("*.py")):
        room = path.relative_to(ROOT / study).parts[0].removesuffix(".py")
        prefix = f"experiments.{study}."
        used = {m.removeprefix(prefix).split(".")[0] for m in imports(path) if m.startswith(prefix)}
        graph.setdefault(room, set()).update(used - {room})
    return graph


def floor_of(room, graph, above=()):
    """Return how many floors lie beneath a room."""
    assert room not in above, f"a circle: {' -> '.join((*above, room))}"
    return 1 + max((floor_of(r, graph, (*above, room)) for r in graph.get(room, ())), default=-1)


@pytest.mark.parametrize("study", ["even_better", "variants", "study"])
def test_rooms_import_downwards(study):
    graph = room_graph(study)
    assert len(graph) > 3
    assert max(floor_of(room, graph) for room in graph) < FLOORS
    folders = [path for path in (ROOT / study).iterdir() if (path / "__init__.py").exists()]
    assert len(folders) <= ROOMS


def test_a_circle_is_found():
    with pytest.raises(AssertionError, match="a circle: a -> b -> a"):
        floor_of("a", {"a": {"b"}, "b": {"a"}})
    assert floor_of("a", {"a": {"b", "c"}, "b": {"c"}}) == 2


def test_studies_share_the_study_layer_alone():
    for path in sorted(ROOT.rglob("*.py")):
        own = path.relative_to(ROOT).parts[0]
        others = {module.split(".")[1] for module in imports_of(path)} - {own}
        allowed = {"even_better": {"study"}, "variants": {"study"}}.get(own, set())
        assert others <= allowed, path
