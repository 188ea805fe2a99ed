"""The parameters of a chapter: declared once, in its tagged cell, and checked everywhere alike.

A declaration is one line: name, type, default, and behind ``#`` what it may be and what it is::

    n_images: int = 4000  # [60, 1000000] images in the phantom cohort
    specificity: float = 0.8  # (0, 1) at the operating point
    protocol: str = "corrected"  # {corrected, as_published} who decides

Brackets and braces are an interval and a set, as in mathematics. ``options`` are those of the
cohort ``data``, or of the balanced one beside it where the comment has that word. The cell behind
calls `check`, so a notebook run by papermill, a script, and ``cxrbook run`` refuse the same values
with the same words; ``cxrbook`` does so before it starts a kernel.
"""

from __future__ import annotations

import ast
import contextlib
import json
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from math import isfinite
from typing import Annotated, Any, Literal

from cxrlib.core import toml
from cxrlib.core.errors import BookError, nearest

BOUNDS = re.compile(r"(?:([\[(])([^,()\[\]]+),([^,()\[\]]+)([\])])|\{([^{}:]*)\})(?:\s+|$)(.*)")
TYPES = {kind.__name__: kind for kind in (bool, dict, float, int, list, str)}
# Kinds of pydantic's errors that are about bounds; the others are about the type.
OUTSIDE = ("greater_than", "greater_than_equal", "less_than", "less_than_equal", "literal_error")


@dataclass(frozen=True)
class Parameter:
    """One assignment of a chapter's parameters cell."""

    name: str
    type: str
    default: Any
    limits: dict[str, float]  # by pydantic's names for them
    choices: tuple[str, ...]
    allowed: str  # limits or choices as text; "" without any
    help: str

    @cached_property
    def _adapter(self):
        from pydantic import ConfigDict, Field, TypeAdapter

        kind = eval(self.type, {"__builtins__": TYPES})
        if self.choices:
            kind = Literal[tuple(map(self._read, self.choices))]
        config = ConfigDict(strict=True, allow_inf_nan=False)
        return TypeAdapter(Annotated[kind, Field(**self.limits)], config=config)

    def parsed(self, value: Any) -> Any:
        """The value, or what its text says, in the parameter's type.

        Raises
        ------
        ValueError
            What it is not: "of type int", "in [2, 100]", "one of plain, fancy".
        """
        from pydantic import ValidationError

        try:
            text = value if isinstance(value, str) else repr(value)
            return self._adapter.validate_python(self._read(text))
        except ValidationError as error:
            outside = any(found["type"] in OUTSIDE for found in error.errors())
            bounds = f"one of {self.allowed}" if self.choices else self.allowed
            raise ValueError(bounds if outside else f"of type {self.type}") from None

    def _read(self, text):
        """What a text says: of a Python literal its value, where true, false, none may begin small;
        otherwise, and where texts are allowed, the text itself."""
        if "str" in re.split(r"[\s|]+", self.type):
            return text
        word = text.capitalize()
        try:
            return ast.literal_eval(word if word in ("True", "False", "None") else text)
        except (ValueError, SyntaxError):
            return text


def declared(source: str, where: str) -> dict[str, Parameter]:
    """The declarations of a parameters cell: dict of name -> Parameter.

    Parameters
    ----------
    source : str
        Python code; whatever is not an assignment is passed over.
    where : str
        What to call it in messages.

    Raises
    ------
    BookError
        A declaration of several lines, whose comment would be lost; a type that is none of
        :data:`TYPES`; a default that is no literal, of another type, or outside of its own bounds.
    """
    lines, found = source.splitlines(), {}
    for node in ast.parse(source).body:
        match node:
            case ast.AnnAssign(target=ast.Name(id=name), value=value) if value is not None:
                annotation = ast.unparse(node.annotation)
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                annotation = ""
            case _:
                continue
        if node.end_lineno != node.lineno:
            raise BookError(f"{where}: parameter {name!r} is spread over lines; give it one")
        try:
            default = ast.literal_eval(value)
        except ValueError:
            raise BookError(f"{where}: the default of parameter {name!r} is no literal") from None
        comment = lines[node.end_lineno - 1].encode()[node.end_col_offset :].decode()
        kind = annotation or type(default).__name__
        found[name] = Parameter(name, kind, default, *_bounds(comment.strip().lstrip("# ")))
        try:
            found[name].parsed(default)
        except NameError as error:
            raise BookError(f"{where}: the type of parameter {name!r}: {error}") from None
        except ValueError as error:
            raise BookError(
                f"{where}: the default {default!r} of parameter {name!r} is not {error}"
            ) from None
    return found


def _bounds(comment):
    """Limits, choices, either of them as text, and what else the comment says."""
    match = BOUNDS.match(comment)
    if not match:
        return {}, (), "", comment
    left, low, high, right, choices, text = match.groups()
    if choices is not None:
        names = tuple(choice.strip() for choice in choices.split(","))
        return {}, names, ", ".join(names), text
    ends = {"ge" if left == "[" else "gt": float(low), "le" if right == "]" else "lt": float(high)}
    limits = {name: int(x) if x.is_integer() else x for name, x in ends.items() if isfinite(x)}
    return limits, (), f"in {left}{low.strip()}, {high.strip()}{right}", text


def refuse_unknown(name: str, known: Iterable[str], who: str) -> None:
    """BookError with exit code 2 for a parameter that nobody declared."""
    if name not in known:
        near = nearest(name, sorted(known))
        raise BookError(f"unknown parameter {name!r} for {who}; {near}", code=2)


def validate(parameters: dict[str, Parameter], given: dict[str, Any], who: str) -> dict[str, Any]:
    """The given values in their types, once name, type, bounds and combination were checked.

    Parameters
    ----------
    parameters : dict of name -> Parameter
    given : dict
        name -> value, or name -> text as typed on a command line.
    who : str
        Whose parameters they are, such as "chapter 02_zero_shot".

    Raises
    ------
    BookError
        With exit code 2, for the first value that cannot be: names the parameter, what it may be,
        and the nearest name where one is unknown.
    """
    values = {}
    for name, value in given.items():
        refuse_unknown(name, parameters, who)
        parameter = parameters[name]
        try:
            values[name] = parameter.parsed(value)
        except ValueError as error:
            close = get_close_matches(str(value), parameter.choices, 1)
            near = f"; did you mean {close[0]!r}?" if close else ""
            raise BookError(
                f"parameter {name!r} of {who}: {value!r} is not {error} "
                f"(default {parameter.default!r}){near}",
                code=2,
            ) from None
    if values:
        balanced = "options" in parameters and "balanced" in parameters["options"].help
        every = {p.name: p.default for p in parameters.values()} | values
        _meaning(every, set(values), who, balanced)
        values |= {name: every[name] for name in ("models", "probed") if name in values}
    return values


# --- what values mean, and which of them go together --------------------------------------------


def _meaning(values, given, who, balanced):
    """Names that a registry has to know, files that have to be there, and combinations that cannot
    be. Options are those of the cohort called `data`, or of the `balanced` one beside it."""
    try:
        if given & {"models", "probed"}:
            _models(values)
        if given & {"data", "options"} and "data" in values:
            _cohort(values["data"], values.get("options", {}), balanced)
        if "device" in given:
            _device(values["device"])
        if "label_error" in given:
            _label_error(values["label_error"])
        if values.get("borrow"):
            _borrow(values["borrow"])
    except ValueError as error:
        raise BookError(f"{who}: {error}", code=2) from None
    if values.get("jobs", 1) > 1 and values.get("device", "cpu") != "cpu":
        raise BookError(
            f"{who}: jobs={values['jobs']} is for a CPU, device={values['device']!r} trains one "
            "after the other; set one of them",
            code=2,
        )


def _models(values):
    """Models and their files; folders of this machine go from the values, which pages show."""
    from cxrlib import models  # pandas takes a while

    chosen = models.choose_models(values["models"])
    probed = values.get("probed", "all")
    if probed not in ("all", "first two"):
        for name in models.without_places(probed).split(","):
            if name.strip() not in chosen:
                raise ValueError(
                    f"probed={probed!r}: {name.strip()!r} is not among models={values['models']!r}"
                )
        values["probed"] = models.without_places(probed)
    models.check_files(values["models"])
    values["models"] = models.without_places(values["models"])


def _cohort(data, options, balanced):
    from cxrlib import cohorts
    from cxrlib.cohorts import check_data

    name = cohorts.known(data).balanced or data if balanced else data
    cohorts.check_options(name, options)
    check_data.present(name, options)


def _device(device):
    import torch

    try:
        kind = torch.device(device).type
    except RuntimeError:
        expected = "cpu, cuda, cuda:1, ... as torch names it"
        raise ValueError(f"device={device!r}: expected {expected}") from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={device!r}: torch sees no GPU here; use device=cpu")


def _label_error(rates):
    from cxrlib.stats import label_error

    label_error.audits(rates)


def _borrow(attributes):
    names = [name.strip() for name in attributes.split(",")]
    known = ("sex", "age_group", "race")
    if len(set(names)) < 2 or not set(names) <= set(known):
        expected = f"two or more of {', '.join(known)} with commas between them, or nothing"
        raise ValueError(f"borrow={attributes!r}: expected {expected}")


# --- on pages ------------------------------------------------------------------------------------


def table(parameters: Iterable[Parameter], label: str, given: dict | None = None) -> str:
    """Parameters as an HTML table: name, value, what it may be, what it is.

    Parameters
    ----------
    parameters : list of Parameter
    label : str
        What the table is called to who cannot see where it stands.
    given : dict, optional
        name -> value of what a run changed; without it the values are called defaults.
    """
    import pandas as pd

    from cxrlib.show.notebook import rendered

    rows = []
    for p in parameters:
        value = f"`{p.default!r}`"
        if p.name in (given or {}):
            value = f"changed to `{given[p.name]!r}` from {value}"
        may_be = f"{p.type}, one of {p.allowed}" if p.choices else f"{p.type} {p.allowed}".strip()
        rows.append((f"`{p.name}`", value, may_be, p.help))
    columns = ["parameter", "default" if given is None else "value", "may be", "what it is"]
    page, _ = rendered(pd.DataFrame(rows, columns=columns).set_index("parameter"))
    page = page.replace('aria-label="table"', f'aria-label="{label}"', 1)
    return re.sub("`([^`]+)`", r"<code>\1</code>", page)


def fold(cells: list, chapter: Any) -> None:
    """Put a folded table in place of the cells that declare and change the parameters of a chapter.

    Both stand below the table; a line above it names what this run changed.

    Parameters
    ----------
    cells : list of notebook cells
        Of the executed chapter; changed in place.
    chapter : Chapter
    """
    from nbformat.v4 import new_markdown_cell

    def tagged(tag):
        return [c for c in cells if tag in c.metadata.get("tags", [])]

    (declaring,), injected = tagged("parameters"), tagged("injected-parameters")
    given = {
        node.targets[0].id: ast.literal_eval(node.value)
        for cell in injected
        for node in ast.parse(cell.source).body
    }
    changed = (f"`{name} = {value!r}`" for name, value in given.items())
    lines = ["**Changed in this run**: " + ", ".join(changed) + ".", ""] if given else []
    lines += ["::::{dropdown} Parameters of this run", ":class-container: cxr-parameters"]
    lines += ["", table(chapter.parameters.values(), "Parameters of this run", given), ""]
    lines += ["How to change them: [](../parameters.md). As declared:"]
    for cell in (declaring, *injected):
        lines += ["", "```python", cell.source, "```"]
    at = cells.index(declaring)
    cells[at] = new_markdown_cell("\n".join([*lines, "::::"]), id=declaring.id)
    for cell in injected:
        cells.remove(cell)


def page(chapters: Iterable) -> str:
    """The reference page of all parameters, in MyST.

    Parameters
    ----------
    chapters : list of Chapter
    """
    lines = ["# Parameters", "", toml.beside(__file__)["introduction"]]
    for chapter in chapters:
        number = int(chapter.number)
        lines += ["", f"## {number}. {chapter.title}", ""]
        lines += [f"[Chapter {number}](chapters/{chapter.name}.ipynb)", ""]
        label = f"Parameters of chapter {number}"
        lines.append(table(chapter.parameters.values(), label))
    return "\n".join(lines) + "\n"


def pairs(texts: Iterable[str]) -> dict[str, str]:
    """``["a=1"]`` -> ``{"a": "1"}``; BookError for what has another form."""
    given = {}
    for pair in texts:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise BookError(f"-p {pair}: expected NAME=VALUE, for example -p n_images=2000", code=2)
        given[name.strip()] = value
    return given


def command(chapter: str, given: dict[str, Any]) -> str:
    """What to type in a shell to run a chapter with these parameters; `pairs` reads them back.

    Parameters
    ----------
    chapter : str
        Its name.
    given : dict
        name -> value, of those that differ from the defaults.
    """
    words = ["cxrbook", "run", chapter]
    for name, value in given.items():
        words += ["-p", f"{name}={_typed(value)}"]
    return shlex.join(words)


def _typed(value):
    """A value as text: with the quotation marks of JSON, which need no care in a shell, where that
    is Python as well."""
    if isinstance(value, str):
        return value
    text = json.dumps(value, ensure_ascii=False)
    with contextlib.suppress(ValueError):
        if ast.literal_eval(text) == value:
            return text
    return repr(value)
