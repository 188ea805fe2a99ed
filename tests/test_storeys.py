"""The README draws the imports as they are; its storeys are those of ``make lint``."""

import tomllib

import grimp
import pytest

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def picture():
    """Mermaid: an arrow from each package to those it imports, but not to what these import."""
    graph = grimp.build_graph("cxrlib")
    imports = {}
    for module in sorted(graph.modules - {"cxrlib"}):
        own = imports.setdefault(module.split(".")[1], set())
        found = graph.find_modules_directly_imported_by(module) - {"cxrlib"}
        own |= {name.split(".")[1] for name in found}

    def below(name):
        return {one for direct in imports[name] - {name} for one in {direct} | below(direct)}

    arrows = []
    for name, direct in sorted(imports.items()):
        through = {one for other in direct - {name} for one in below(other)}
        arrows += [(name, one) for one in sorted(direct - through - {name})]
    return "\n".join(["flowchart TD", *(f"    {a} --> {b}" for a, b in arrows)])


def test_the_readme_draws_the_imports(picture):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"```mermaid\n{picture}\n```" in readme, f"draw them anew in README.md:\n{picture}"


def test_the_storeys_are_those_of_the_picture(picture):
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = rules["contracts"][0]["layers"]
    storey = {name: i for i, layer in enumerate(layers) for name in layer.split(" | ")}
    arrows = [line.split(" --> ") for line in picture.replace(" " * 4, "").splitlines()[1:]]
    assert {name for arrow in arrows for name in arrow} == set(storey)
    assert all(storey[upper] < storey[lower] for upper, lower in arrows)
