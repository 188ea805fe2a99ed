"""No number typed by hand in a chapter's prose where a result belongs.

Numbers come from the run (``say(f"...")``) or from print (``{published}``). What may be typed:
references, names, math, what a sentence supposes, and the conventions in `ALLOWED`. Prose is the
text of a chapter, and what its code says, its captions and text alternatives.
"""

import ast
import re

import pytest
from conftest import ROOT

from cxrlib.book.chapters import Chapter, chapters

# --- what is no prose, or may hold numbers -------------------------------------------------------

FENCE = re.compile(r"^(?P<f>`{3,}|:{3,})(?P<kind>.*)\n(?P<body>(?:.*\n)*?)(?P=f)[ \t]*$", re.M)
SUPPOSED = ("{exercise}", "{solution}")  # their numbers are made up, unless they are of this run
READ = ("{note}", "{warning}", "{tip}", "{important}", "{admonition}", "{teacher}", "{dropdown}")
OF_THIS_RUN = re.compile(r"\b(?:this|the|our) run\b|\babove\b|\{numref\}|\bour\b", re.I)
SUPPOSITION = re.compile(r"^\W*(?:Suppose|Imagine)\b")

NUMBER = r"\d+[a-d]?(?:\.\d+)*"
SERIES = rf"{NUMBER}(?:(?:,|,? and|,? or| to| minus|-|–) {NUMBER}|[-–]{NUMBER})*"
NO_PROSE = (
    re.compile(r"\$\$.*?\$\$(?: *\([\w-]+\))?", re.S),
    re.compile(r"\{[\w:]+\}`[^`]*`"),  # roles: printed, cited, referenced
    re.compile(r"`[^`\n]*`"),
    re.compile(r"\$[^$]+\$"),
    re.compile(r"\]\([^)\s]*\)"),  # the target of a link
    re.compile(r"<[^<>\n]*>"),
    re.compile(r"^:[\w-]+:.*$", re.M),  # options of a directive
    re.compile(r"^ *\d+\. ", re.M),  # items of a list
)
REFERENCES = (
    re.compile(
        rf"\b(?:sections?|tables?|fig(?:ure|s)?s?\.?|eq(?:uation|s)?s?\.?|chapters?|part) {SERIES}",
        re.I,
    ),
    re.compile(rf"\b[SX] (?:in )?{SERIES}"),
)
NAMES = re.compile(
    r"NIH[- ]?(?:ChestX-ray|CXR)-?14|ChestX-ray(?:14|8)|CXR14|(?:NIH )?6 ?[x×] ?200|7:1:2|PMC-15M"
    r"|MIMIC-I[IV]+|ViT-[BLS](?:/\d+)?|ResNet-?\d+|DenseNet-?\d+|\bF1\b|SHA-256|COVID-19"
    r"|NFS(?: version)? \d"
)
# What is true whatever is run, each line with the reason.
ALLOWED = tuple(
    re.compile(pattern, re.I)
    for pattern in (
        # the level of an interval, its tails, and what it promises
        r"\b95 % (?:confidence )?interval|\b(?:nominal|promise of|a true|passes for|off) 95 %",
        r"\b95 (?:of|in) 100 (?:studies|cases|fair)|\b95th percentile|95 % of fair classifiers",
        r"cut off 2\.5 %|\[5 %, 95 % of them\]",
        # the level of a test, the power of a plan
        r"(?:level|p-value below) 0\.05\b|a chance of 80 %",
        # the ends of a scale and where a line is drawn, never a value that was found
        r"\b0 and 1\b(?!\.\d)|between [−-]?\d and \d\b(?!\.\d)|[([]0, 1[)\]]|perfect ones 1\b",
        r"\b[01](?: is| means|:) (?:random|perfect|fair|a clean cut|chance|as good|\"the)",
        r"\b(?:above|below|beside|from|left|right|of|to|than|exactly|at|else|minus|near|around|gives?"
        r"|includes?|excludes?|intervals?|factor|length|scale|radius|distance of|sum to) +[01]\b"
        r"(?![.,:–-]?\d| ?%)|\b[01] where\b",
        r"\b(?:above|near|around|at|than|says|takes|chance:) +0\.5\b|\b0\.5 none at all",
        # groups of age are definitions
        r"\b(?:ages?|aged|old|patients|those|wom[ae]n|m[ae]n)"
        r"(?: (?:groups|of|from|over|above|under|against|cut|once|at|to|the|between))*"
        rf" {SERIES}(?: years)?(?! ?%)|{SERIES} years|\b60 and (?:over|older)",
        r"\b(?:18|25|50|65)(?:–| to )(?:25|50|65|80)\b|border at 60\b",
        # what calibration means
        r"does 30 percent mean 30 percent|given 30 %|Brier score of 0\.25",
        # how images and labels are stored
        r"256 grey levels|\([−-]1\)|with [−-]1\b|written as 91\b",
    )
)
# Sizes in words; other words for numbers are left to the reader.
IN_WORDS = re.compile(
    r"\b(?:one|two|three|four|five|six|seven|eight|nine|ten|twenty|thirty|forty|fifty|sixty|seventy"
    r"|eighty|ninety|hundred|half|third|quarter) (?:(?:percentage )?points\b|per ?cent\b"
    r"|times (?:as|more|higher|lower|larger|smaller|better|worse)\b)",
    re.I,
)


def spaces(text):
    """As many spaces, so that positions and lines stay."""
    return re.sub(r"[^\n]", " ", text)


def typed(text):
    """The numbers typed in MyST text where a result could stand.

    Returns
    -------
    list of (int, str)
        Line in the text, from 0, and the sentence.
    """
    prose = FENCE.sub(_block, text)
    for pattern in NO_PROSE:
        prose = pattern.sub(lambda match: spaces(match.group()), prose)
    prose = prose.replace("\n", " ")  # a phrase may go on in the next line
    for pattern in (NAMES, *REFERENCES, *ALLOWED):
        prose = pattern.sub(lambda match: spaces(match.group()), prose)
    found = {}
    for number in [*re.finditer(r"\d", prose), *IN_WORDS.finditer(prose)]:
        start, sentence = _sentence(text, number.start())
        if not SUPPOSITION.match(sentence):
            found.setdefault(start, (text.count("\n", 0, number.start()), sentence))
    return list(found.values())


def _block(fence):
    """What of a fenced block is held to the rule."""
    if fence["kind"].startswith(READ):
        return spaces(fence["f"] + fence["kind"]) + "\n" + fence["body"] + spaces(fence["f"])
    if fence["kind"].startswith(SUPPOSED):
        head = len(fence["f"] + fence["kind"]) + 1
        parts = re.split(r"(?<=[.?!])(?=\s)", fence.group()[head:])
        kept = (part if OF_THIS_RUN.search(part) else spaces(part) for part in parts)
        return spaces(fence.group()[:head]) + "".join(kept)
    return spaces(fence.group())


def _sentence(text, at):
    """Where the sentence around a position begins, and the sentence."""
    ends = [m.end() for m in re.finditer(r"[.?!][*\"]*(?=\s)|\n\s*\n|\n(?=[-|:`])", text)]
    start = max([0, *(end for end in ends if end <= at)])
    return start, " ".join(text[start : min([len(text), *(e for e in ends if e > at)])].split())


def shown(source):
    """What code gives to readers: (line, text) of the strings and numbers in its calls."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in (
            "figure",
            "show",
        ):
            for argument in [
                *node.args[1:],
                *(k.value for k in node.keywords if k.arg != "digits"),
            ]:
                if isinstance(argument, ast.Constant):
                    found.append((argument.lineno - 1, str(argument.value)))
                else:
                    found += [(line, text) for line, text in _strings(argument) if " " in text]
    return found


def said(source):
    """The MyST texts that code says: (line, text), with ` ` where a value is computed."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("say", "in_short"):
            text = node.args[0]
            parts = text.values if isinstance(text, ast.JoinedStr) else [text]
            whole = "".join(p.value if isinstance(p, ast.Constant) else "` `" for p in parts)
            found.append((text.lineno - 1, whole))
            found += [
                (line, inner)
                for part in parts
                if isinstance(part, ast.FormattedValue)
                for line, inner in _strings(part)
                if " " in inner
            ]
    return found


def _strings(node):
    if isinstance(node, ast.Constant):
        return [(node.lineno - 1, node.value)] if isinstance(node.value, str) else []
    parts = [node.value] if isinstance(node, ast.FormattedValue) else ast.iter_child_nodes(node)
    return [found for part in parts for found in _strings(part)]


def findings(chapter):
    """The typed numbers of a chapter: "file:line: sentence"."""
    script = chapter.path.read_text(encoding="utf-8")
    found = []
    for cell in chapter.notebook.cells:
        if cell.cell_type == "markdown":
            inside = "\n".join(f"# {line}".rstrip() for line in cell.source.splitlines())
            numbers = typed(cell.source)
        else:
            inside = cell.source
            numbers = [(line, s) for line, text in shown(inside) for _, s in typed(text)]
            numbers += [
                (first + line, s) for first, text in said(inside) for line, s in typed(text)
            ]
        at = max(script.find(inside), 0)  # jupytext drops the "#" of a line such as "#!/bin/sh"
        first = script.count("\n", 0, at) + 1
        found += [f"{chapter.path.name}:{first + line}: {sentence}" for line, sentence in numbers]
    return found


@pytest.mark.parametrize("chapter", chapters(ROOT), ids=lambda chapter: chapter.name)
def test_no_result_is_typed(chapter):
    found = findings(chapter)
    assert not found, "say these, or look them up with {published}:\n" + "\n".join(found)


@pytest.mark.parametrize(
    "sentence",
    [
        "The AUC is 0.87.",
        "It falls by 12 % in women.",
        "Old patients fare worse (0.71 [0.68, 0.75]).",
        "Of 240 images, the model misses 31.",
        "In Fig. 2 the best AUC is 0.9.",
        "The gap is ` `, against 0.05 in print.",
        "All but 3 intervals exclude 0.",
        "95 % of the films are right.",
        "In patients over 80 the AUC drops to 0.6.",
        "1 in 20 is missed.",
        "The AUC lies between 0.6 and 0.7.",
        "It lies about five points lower.",
        "It is three times as large in women.",
        "| women | 0.81 |",
        "```{note}\nThe AUC is 0.87.\n```",
        "```{exercise}\n:label: ex-a\nThis run has an AUC of 0.87. Why?\n```",
        "```{solution} ex-a\nAs the table above shows, 12 films are missed.\n```",
    ],
)
def test_a_typed_result_is_found(sentence):
    assert len(typed(f"# A title\n\nA sentence before.\n{sentence}\n")) == 1


@pytest.mark.parametrize(
    "text",
    [
        "The AUC is ` `, in print {published}`S Table 1; MedCLIP; mean; auc`.",
        "Section 3.1, Table 1, Fig. 4a and 4b, Eqs. 2 to 4 and X 3.3 say so {cite:p}`sun2025`.",
        "NIH ChestX-ray14, NIH 6x200, a ViT-B/16 and a DenseNet-121, split 7:1:2, by F1.",
        "The 95 % interval excludes\n0; 0 is random, 1 is perfect.",
        "With $\\tau = 100$ and\n\n$$ p = 0.5 $$ (eq-1)\n\n`n_images=300` is [enough](page_2).",
        "Patients from 18 to 25 years, and those over 80.",
        "Suppose a model has an AUC of 0.87.",
        "1. First\n2. Second",
        "```python\nx = 0.87\n```",
        "```{exercise}\n:label: ex-1\nA finding has a prevalence of 2 %. How many of 300?\n```",
    ],
)
def test_other_numbers_pass(text):
    assert typed(text) == []


def test_what_is_said_is_read_too(tmp_path):
    path = tmp_path / "01_a.py"
    path.write_text(
        "# %% [markdown]\n# # Title\n\n# %%\n"
        'say(f"""\nAn AUC of {auc:.2f} in {{numref}}`fig-2`.\n\nIt was 0.87 before.\n""")\n'
        "in_short(f\"{'up to 12 %' if x > 3 else 'none'} of {n}\", figure='fig-2')\n"
        'say("""```{solution} ex-a\n:class: dropdown\nThis run has 12.\n```""")\n'
    )
    places = [found.split(": ")[0] for found in findings(Chapter(path))]
    assert places == ["01_a.py:8", "01_a.py:10", "01_a.py:13"]


def test_captions_and_alternatives_are_read_too(tmp_path):
    path = tmp_path / "01_a.py"
    path.write_text(
        "# %% [markdown]\n# # Title\n#\n# Fine.\n#\n# An AUC of 0.87.\n\n# %%\n"
        'show(t, 0.87)\nshow(t, f"falls by 12 %{x:.2f}")\nshow(t, fmt(x, 3), digits=3)\n'
        'figure("fig-2", caption="AUC, with 95 % intervals", alt="AUC up to 0.87", table=t[:30])\n'
    )
    places = [found.split(": ")[0] for found in findings(Chapter(path))]
    assert places == ["01_a.py:6", "01_a.py:9", "01_a.py:10", "01_a.py:12"]
