"""The parameters of a chapter: declared once, in its tagged cell, and checked everywhere alike.

A declaration is one line: name, type, default, and behind ``#`` what it may be and what it is::

    n_images: int = 4000  # [60, 1000000] images in the phantom cohort
    specificity: float = 0.8  # (0, 1) at the operating point
    protocol: str = "corrected"  # {corrected, as_published} who decides

Brackets and braces are an interval and a set, as in mathematics. The cell behind it calls
`check`, so a notebook run by papermill, a script, and ``cxrbook run`` refuse the same values with
the same words; ``cxrbook`` does so before it starts a kernel.
"""

import ast
import inspect
import math
import re
from dataclasses import dataclass, fields
from difflib import get_close_matches

from cxrlib.core.errors import BookError, nearest

BOUNDS = re.compile(r"(?:([\[(])([^,()\[\]]+),([^,()\[\]]+)([\])])|\{([^{}:]*)\})(?:\s+|$)(.*)")


@dataclass(frozen=True)
class Interval:
    """Numbers from `low` to `high`; an open end does not belong to it."""

    low: float
    high: float
    open_low: bool
    open_high: bool

    def __contains__(self, x):
        above = x > self.low if self.open_low else x >= self.low
        return above and (x < self.high if self.open_high else x <= self.high)

    def __str__(self):
        ends = f"{_plain(self.low)}, {_plain(self.high)}"
        return f"{'(' if self.open_low else '['}{ends}{')' if self.open_high else ']'}"


@dataclass(frozen=True)
class Parameter:
    """One assignment of a chapter's parameters cell."""

    name: str
    type: str
    default: object
    bounds: Interval | tuple | None  # an interval, the choices, or whatever the type allows
    help: str

    @property
    def allowed(self):
        """The bounds as text; "" without any."""
        if isinstance(self.bounds, tuple):
            return ", ".join(map(str, self.bounds))
        return "" if self.bounds is None else f"in {self.bounds}"


def _plain(x):
    return "inf" if math.isinf(x) else f"{x:g}" if x != int(x) else f"{int(x)}"


def declared(source, where):
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
        A declaration of several lines, whose comment would be lost; a default that is no literal,
        or outside of its own bounds.
    """
    lines, found = source.splitlines(), {}
    for node in ast.parse(source).body:
        match node:
            case ast.AnnAssign(target=ast.Name(id=name), value=value) if value is not None:
                annotation = ast.unparse(node.annotation)
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                annotation = None
            case _:
                continue
        if node.end_lineno != node.lineno:
            raise BookError(f"{where}: parameter {name!r} is spread over lines; give it one")
        try:
            default = ast.literal_eval(value)
        except ValueError:
            raise BookError(f"{where}: the default of parameter {name!r} is no literal") from None
        comment = lines[node.end_lineno - 1].encode()[node.end_col_offset :].decode()
        bounds, text = _bounds(comment.strip().lstrip("# "))
        kind = annotation or type(default).__name__
        found[name] = Parameter(name, kind, default, bounds, text)
        if not _within(default, bounds):
            raise BookError(
                f"{where}: the default {default!r} of parameter {name!r} is not "
                f"{found[name].allowed}"
            )
    return found


def _bounds(comment):
    match = BOUNDS.match(comment)
    if not match:
        return None, comment
    left, low, high, right, choices, text = match.groups()
    if choices is not None:
        return tuple(choice.strip() for choice in choices.split(",")), text
    return Interval(float(low), float(high), left == "(", right == ")"), text


def _within(value, bounds):
    if bounds is None:
        return True
    if isinstance(bounds, tuple):
        return str(value) in bounds
    return not isinstance(value, str) and value in bounds


def validate(parameters, given, who):
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
        if name not in parameters:
            raise BookError(
                f"unknown parameter {name!r} for {who}; {nearest(name, sorted(parameters))}", code=2
            )
        parameter = parameters[name]
        typed = values[name] = _typed(parameter, value, who)
        if not _within(typed, parameter.bounds):
            choices = isinstance(parameter.bounds, tuple)
            near = get_close_matches(str(typed), parameter.bounds, 1) if choices else ()
            near = f"; did you mean {near[0]!r}?" if near else ""
            raise BookError(
                f"parameter {name!r} of {who}: {value!r} is not {'one of ' if choices else ''}"
                f"{parameter.allowed} (default {parameter.default!r}){near}",
                code=2,
            )
    if values:
        _meaning({p.name: p.default for p in parameters.values()} | values, set(values), who)
    return values


def _typed(parameter, value, who):
    text = value if isinstance(value, str) else repr(value)
    for kind in parameter.type.split("|"):
        try:
            return _parse(kind.strip(), text)
        except (ValueError, SyntaxError):
            continue
    raise BookError(
        f"parameter {parameter.name!r} of {who}: {value!r} is not of type "
        f"{parameter.type} (default {parameter.default!r})",
        code=2,
    )


def _parse(kind, text):
    match kind:
        case "str":
            return text
        case "int":
            return int(text)
        case "float":
            if not math.isfinite(value := float(text)):
                raise ValueError(text)
            return value
        case "bool":
            if text.lower() not in ("true", "false"):
                raise ValueError(text)
            return text.lower() == "true"
        case "None":
            if text.lower() == "none":
                return None
            raise ValueError(text)
    value = ast.literal_eval(text)
    if type(value).__name__ != kind.split("[")[0]:
        raise ValueError(text)
    return value


# --- what values mean, and which of them go together --------------------------------------------


def _meaning(values, given, who):
    """Names that a registry has to know, and combinations that cannot be."""
    try:
        if given & {"models", "probed"}:
            _models(values)
        if given & {"data", "options"} and "data" in values:
            _cohort(values["data"], values.get("options", {}))
        if "device" in given:
            _device(values["device"])
    except ValueError as error:
        raise BookError(f"{who}: {error}", code=2) from None
    if values.get("jobs", 1) > 1 and values.get("device", "cpu") != "cpu":
        raise BookError(
            f"{who}: jobs={values['jobs']} is for a CPU, device={values['device']!r} trains one "
            "after the other; set one of them",
            code=2,
        )


def _models(values):
    from cxrlib import models  # torch takes a while

    chosen = models.choose_models(values["models"])
    probed = values.get("probed", "all")
    if probed not in ("all", "first two"):
        for name in probed.split(","):
            if name.strip() not in chosen:
                raise ValueError(
                    f"probed={probed!r}: {name.strip()!r} is not among models={values['models']!r}"
                )


def _cohort(data, options):
    from cxrlib import cohorts
    from cxrlib.cohorts import files

    known, accepted = cohorts.known(data), {}
    for name in (data, cohorts.BALANCED.get(data, data)):  # a chapter may take the one beside it
        accepted |= inspect.signature(cohorts.known(name).builder()).parameters
    for name in options:
        if name not in accepted:
            raise ValueError(
                f"options: cohort {data!r} has no option {name!r}; {nearest(name, list(accepted))}"
            )
    if "dials" in options:
        from cxrlib.cohorts import phantom

        dials = [field.name for field in fields(phantom.Dials)]
        for name in options["dials"]:
            if name not in dials:
                raise ValueError(f"options: unknown dial {name!r}; {nearest(name, dials)}")
        phantom.Dials(**options["dials"])
    if known.folder:
        files.root_of(known.folder)


def _device(device):
    import torch

    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise ValueError(
            f"device={device!r}: expected cpu, cuda, cuda:1, ... as torch names it"
        ) from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={device!r}: torch sees no GPU here; use device=cpu")


# --- the page ------------------------------------------------------------------------------------


def page(chapters):
    """The reference page of all parameters, in MyST.

    Parameters
    ----------
    chapters : list of Chapter
    """
    lines = ["# Parameters", "", INTRODUCTION]
    for chapter in chapters:
        lines += ["", f"## {chapter.title}", "", f"Chapter [](chapters/{chapter.name}.ipynb).", ""]
        lines += ["| parameter | type | default | allowed | what it is |", "|---|---|---|---|---|"]
        for p in chapter.parameters.values():
            cells = (f"`{p.name}`", f"`{p.type}`", f"`{p.default!r}`", p.allowed or "any", p.help)
            lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


INTRODUCTION = """Every chapter declares its parameters once, in the first cell of code. An unknown
name, a wrong type, a value out of range and a combination that cannot be stop a run before it
begins, whichever way it was started:

```bash
cxrbook run zero_shot -p n_images=2000 -p seed=7
python chapters/02_zero_shot.py -p n_images=2000 -p seed=7
papermill chapters/02_zero_shot.ipynb mine.ipynb -p n_images 2000 -p seed 7
```

`(0, 1)` is an interval without its ends, `[0, 1]` one with them; names with commas between are the
choices. Models, cohorts and their options are checked against those that the book knows, a device
against those that torch sees."""


def pairs(texts):
    """``["a=1"]`` -> ``{"a": "1"}``; BookError for what has another form."""
    given = {}
    for pair in texts:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise BookError(f"-p {pair}: expected NAME=VALUE, for example -p n_images=2000", code=2)
        given[name.strip()] = value
    return given
