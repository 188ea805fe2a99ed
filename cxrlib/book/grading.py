"""Graded checks: another planted bias, and so another right answer, for each student.

A course word and a student's name give a seed; the seed gives the dials of a phantom cohort, and
the dials give the right answers. Nothing is stored: whoever has the course word can grade.
Right answers are read from the dials, or computed here with NumPy and scikit-learn alone, so that
students, who use the functions of the chapters, are compared with another way to the same number.
"""

import csv
import hashlib
import math
import re
import textwrap
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from cxrlib.cohorts import phantom
from cxrlib.cohorts.cohort import Cohort
from cxrlib.core import atomic, toml
from cxrlib.core.errors import BookError, nearest

N_IMAGES = 1500  # enough for the faint group to stand out, few enough for seconds
FAIR, BIASED = "phantom-resnet", "phantom-resnet-drain"
GROUPS = phantom.GROUPS
# Groups large enough that the planted loss shows among so few images.
FAINT = (
    *(("sex", group) for group in GROUPS["sex"]),
    *(("age_group", group) for group in ("25-50", "50-65", "65-80")),
    *(("site", group) for group in GROUPS["site"]),
)


TOO_LONG = (
    "more cells than headings: a name that holds the separator has to stand in quotation marks"
)


class Task(NamedTuple):
    """What one student is asked."""

    exercise: str
    chapter: str  # in which it is learnt
    question: str
    start: str  # lines of Python to begin with


class Checked(NamedTuple):
    """What an answer is worth, and what the student is told."""

    points: int  # 0 or 1
    feedback: str


class Solved(NamedTuple):
    """The right answer, what still counts as right and why, and what known mistakes give."""

    right: float | tuple[str, str]
    tolerance: float = 0.0
    reason: str = ""
    slips: tuple[tuple[float, str], ...] = ()  # (wrong number, what was probably done)


@dataclass(frozen=True)
class Exercise:
    """One of ``grading.toml``, with blanks, and the function that knows the right answer."""

    chapter: str
    question: str
    start: str
    hint: str  # for wrong answers that no known mistake explains
    solve: Callable[[Cohort], tuple]  # the right answer, and what known mistakes give by name
    form: str = "number"  # or "group"
    tolerance: float = 0.0
    relative: bool = False  # whether the tolerance is a share of the right answer
    reason: str = ""
    slips: dict[str, str] = field(default_factory=dict)  # what was probably done, by name


# --- who gets what -------------------------------------------------------------------------------


def seed_of(course: str, student: str) -> int:
    """The seed of a student: nine digits of the SHA-256 of course word and name.

    Parameters
    ----------
    course : str
        A word that the teacher keeps; another word gives every student another seed.
    student : str
        Capitals and spaces at the ends or in rows do not matter.

    Returns
    -------
    int, 0 to 999,999,999
    """
    name = " ".join(unicodedata.normalize("NFC", student).split()).casefold()
    if not name or not course.strip():
        raise ValueError("seed_of: a course word and a name are needed; one of them is empty")
    return int(hashlib.sha256(f"{course.strip()}\n{name}".encode()).hexdigest(), 16) % 10**9


def dials(seed: int) -> phantom.Dials:
    """What is planted for a seed, as `cxrlib.cohorts.phantom.Dials`.

    One group is drawn fainter, the findings of one race are under-reported, and prevalence, drains
    and the number of films a patient differ from seed to seed.
    """
    attribute, group = _one(seed, "faint", FAINT)
    race = _one(seed, "race", GROUPS["race"])
    return phantom.Dials(
        contrast={attribute: {group: _between(seed, "contrast", 0.30, 0.40)}},
        underreport={"race": {race: _between(seed, "underreport", 0.20, 0.45)}},
        prevalence=_between(seed, "prevalence", 0.12, 0.20),
        drain_if_pneumothorax=_between(seed, "drain", 0.30, 0.70),
        drain_if_none=_between(seed, "no drain", 0.03, 0.12),
        images_per_patient=_one(seed, "images", (2, 3, 4, 6, 8)),
        site_by_race=0.3,
    )


def cohort(seed: int) -> Cohort:
    """The phantom cohort of a seed: 1,500 films of 64 pixels, drawn in about a second."""
    return phantom.build(N_IMAGES, seed, dials=dials(seed))


def _draw(seed, name):
    """A number in [0, 1) for a name; hashed, so that every computer draws the same."""
    return int(hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()[:12], 16) / 16**12


def _one(seed, name, choices):
    return choices[int(_draw(seed, name) * len(choices))]


def _between(seed, name, low, high):
    return round(low + (high - low) * _draw(seed, name), 2)


# --- right answers -------------------------------------------------------------------------------


def _asked(seed):
    """What fills the blanks of the questions."""
    return {
        "seed": seed,
        "finding": _one(seed, "finding", phantom.FINDINGS),
        "missed": _one(seed, "missed", phantom.FINDINGS),
        "specificity": _one(seed, "specificity", (0.75, 0.80, 0.85, 0.90)),
    }


def _score(cohort, model, finding):
    """Zero-shot probabilities (n,) from the store of embeddings, which is filled once."""
    from cxrlib.predict import zeroshot  # torch takes a while

    return zeroshot.predict(cohort, [model], [finding])["score"].to_numpy()


def _unrecorded(cohort):
    table = cohort.table
    there = np.stack([table[f"severity_{f}"] > 0 for f in phantom.FINDINGS], 1)
    lost = there & (table[list(phantom.FINDINGS)].to_numpy() == 0)
    (race, _), *_ = cohort.recipe["dials"]["underreport"]["race"].items()
    mine = (table["race"] == race).to_numpy()
    share = lost[mine].sum() / there[mine].sum()
    return share, {
        "recorded": 1 - share,
        "everybody": lost.sum() / there.sum(),
        "of all films": lost[mine].mean(),
    }


def _adjusted(cohort):
    finding = _asked(cohort.recipe["seed"])["finding"]
    y, score = cohort.table[finding].to_numpy(), _score(cohort, FAIR, finding)
    ap = average_precision_score(y, score)
    shown = (cohort.table[f"severity_{finding}"] > 0).to_numpy()

    def adjusted(precision, prevalence):
        return 1 - math.log(precision) / math.log(prevalence)

    return adjusted(ap, y.mean()), {
        "not adjusted": ap,
        "auc": roc_auc_score(y, score),
        "linear": (ap - y.mean()) / (1 - y.mean()),
        "shown": adjusted(average_precision_score(shown, score), shown.mean()),
    }


def _faint(cohort):
    (attribute, groups), *_ = cohort.recipe["dials"]["contrast"].items()
    return (attribute, min(groups, key=groups.get)), {}


def _drain_gap(cohort):
    table = cohort.table
    ill, drain = table["Pneumothorax"] == 1, table["drain"] == 1

    def gap(model, controls):
        score = _score(cohort, model, "Pneumothorax")
        of = [(ill & arm) | controls for arm in (drain, ~drain)]
        with_drain, without = (roc_auc_score(ill[rows], score[rows]) for rows in of)
        return with_drain - without

    right = gap(BIASED, ~ill & ~drain)
    other_model = gap(FAIR, ~ill & ~drain)
    return right, {"sign": -right, "controls": gap(BIASED, ~ill), "other model": other_model}


def _missed(cohort):
    asked = _asked(cohort.recipe["seed"])
    y = (cohort.table[asked["missed"]] == 1).to_numpy()
    score = _score(cohort, FAIR, asked["missed"])
    women = (cohort.table["sex"] == "F").to_numpy()

    def threshold(rows):
        return np.quantile(score[rows & ~y], asked["specificity"], method="inverted_cdf")

    def gap(of_women, of_men):
        missed = [(score[y & g] <= at).mean() for g, at in ((women, of_women), (~women, of_men))]
        return missed[0] - missed[1]

    one = threshold(np.ones(len(y), bool))
    right = gap(one, one)
    of_its_own = gap(threshold(women), threshold(~women))
    return right, {"sign": -right, "two thresholds": of_its_own, "one half": gap(0.5, 0.5)}


def _clusters(cohort):
    x = cohort.table["pacemaker"].to_numpy(float)
    of_patient = np.unique(cohort.table["patient_id"], return_inverse=True)[1]
    films = np.bincount(of_patient)
    residual = np.bincount(of_patient, x - x.mean())
    effect = (residual**2).sum() * len(films) / (len(films) - 1) / (len(x) * x.var())
    right = math.sqrt(effect)
    equal_sizes = math.sqrt(films.mean())
    return right, {"inverse": 1 / right, "variances": effect, "equal": equal_sizes, "one": 1.0}


# --- the exercises -------------------------------------------------------------------------------

_SOLVE = {
    "unrecorded": _unrecorded,
    "adjusted": _adjusted,
    "faint": _faint,
    "drain-gap": _drain_gap,
    "missed": _missed,
    "clusters": _clusters,
}


def _exercise(name: str, about: dict) -> Exercise:
    about |= {key: " ".join(about[key].split()) for key in ("question", "hint")}
    slips = {key: " ".join(text.split()) for key, text in about.get("slips", {}).items()}
    about |= {"start": about["start"].strip(), "slips": slips}
    return Exercise(**about, solve=_SOLVE[name])


_TEXTS = toml.beside(__file__)
HOW = " ".join(_TEXTS.pop("how").split())
EXERCISES = {name: _exercise(name, about) for name, about in _TEXTS.items()}


def task(exercise: str, seed: int) -> Task:
    """What is asked of the student with this seed, see `Task`."""
    about, asked = _known(exercise), _asked(seed)
    question, start = (text.format(**asked) for text in (about.question, about.start))
    return Task(exercise, about.chapter, question, start)


def solve(exercise: str, cohort: Cohort) -> Solved:
    """The right answer on any phantom cohort, whatever its dials, see `Solved`."""
    about = _known(exercise)
    right, wrong = about.solve(cohort)
    slips = tuple((number, about.slips[name]) for name, number in wrong.items())
    tolerance = about.tolerance * (right if about.relative else 1)
    return Solved(right, tolerance, about.reason, slips)


def check(exercise: str, seed: int, answer: float | str) -> Checked:
    """Points and feedback for an answer.

    Parameters
    ----------
    exercise : name in `EXERCISES`
    seed : int
    answer : number, or text as a student would write it

    Returns
    -------
    Checked
        One point or none, and what the student is told.

    Raises
    ------
    ValueError
        An unknown exercise, or an answer that is no number or no group.
    """
    about = _known(exercise)
    given = _group(answer) if about.form == "group" else _number(answer)
    return _judge(about, _solved(exercise, seed), given)


@lru_cache(maxsize=64)
def _solved(exercise, seed):
    return solve(exercise, _cohort(seed))


@lru_cache(maxsize=1)
def _cohort(seed):
    return cohort(seed)


def _judge(about, solved, given):
    chapter = f"See chapter {about.chapter}."
    if about.form == "group":
        if given == solved.right:
            return Checked(1, "Right.")
        return Checked(0, f"{_group_slip(*given)}{about.hint} {chapter}")
    if abs(given - solved.right) <= solved.tolerance:
        return Checked(1, f"Right, within {solved.tolerance:.2g} ({solved.reason}).")
    near = [(abs(given - value), what) for value, what in solved.slips]
    if near and min(near)[0] <= solved.tolerance:
        return Checked(0, f"{min(near)[1]} {chapter}")
    if abs(given - 100 * solved.right) <= 100 * solved.tolerance:
        return Checked(0, "Write a percentage as a fraction, 0.5 for 50 %.")
    return Checked(0, f"{about.hint} {chapter}")


def _group_slip(attribute, group):
    """What may have led to a group that nothing was planted in."""
    if attribute == "race":
        return "Race reaches a phantom's film through the site alone. "
    if group in ("18-25", "80+"):
        return "The youngest and the oldest are few: a low AUC there is often chance. "
    return ""


def _known(exercise):
    if exercise not in EXERCISES:
        raise ValueError(f"unknown exercise {exercise!r}; {nearest(exercise, list(EXERCISES))}")
    return EXERCISES[exercise]


def _number(answer):
    text = str(answer).replace("\N{MINUS SIGN}", "-")  # as word processors and phones write it
    if "." not in text:
        text = text.replace(",", ".")  # as spreadsheets of half the world write it
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{answer!r} is no number such as 0.31, without a sign %")
    return value


def _group(answer):
    attribute, _, group = (part.strip() for part in str(answer).partition("="))
    for name, groups in GROUPS.items():
        for known in groups:
            if (attribute.lower(), group.lower()) == (name, known.lower()):
                return name, known
    every = "; ".join(f"{name}={', '.join(groups)}" for name, groups in GROUPS.items())
    raise ValueError(f"{answer!r} is no group such as sex=F; known: {every}")


# --- sheets and answers --------------------------------------------------------------------------


def sheet(student: str, seed: int) -> str:
    """The text that a student gets."""
    lines = [f"Graded checks for {student}", f"Your seed: {seed}", "", *_wrap(HOW), ""]
    for number, name in enumerate(EXERCISES, 1):
        asked = task(name, seed)
        lines += [f"{number}. {name} (chapter {asked.chapter})", ""]
        lines += [*_wrap(asked.question), "", textwrap.indent(asked.start, "    "), ""]
    return "\n".join([*lines, "Hand in these lines, with your answers:", "", _form([student])])


def _wrap(text):
    return textwrap.wrap(text, 88, break_on_hyphens=False)


def _form(students):
    lines = [f"{_cell(student)},{name}," for student in students for name in EXERCISES]
    return "\n".join(["student,exercise,answer", *lines])


def _cell(text):
    return '"' + text.replace('"', '""') + '"' if re.search(r'[",;\n]', text) else text


def assign(roster: Path, course: str, out: Path) -> list[Path]:
    """Write one sheet per student below `out`, and ``answers.csv`` to collect the answers in.

    Parameters
    ----------
    roster : Path
        CSV with a column ``student``.
    course : str
    out : Path

    Returns
    -------
    list of Path
        The sheets in the order of the roster, then ``answers.csv``.

    Raises
    ------
    BookError
        A file that cannot be read or names nobody, an empty name, or one that stands there twice.
    """
    students = _students(roster, course)
    form = out / "answers.csv"
    if form.exists():
        raise BookError(f"{form} exists and may hold answers; choose another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BookError(f"cannot make the folder {out}: {error.strerror}") from None
    paths = []
    for number, student in enumerate(students, 1):
        slug = re.sub(r"\W+", "-", student).strip("-").lower()
        paths.append(out / f"{number:03d}-{slug}.txt")
        atomic.write(paths[-1], f"{sheet(student, seed_of(course, student))}\n".encode())
    # With a mark of UTF-8, without which spreadsheets misread an umlaut.
    atomic.write(form, f"{_form(students)}\n".encode("utf-8-sig"))
    return [*paths, form]


def _students(path, course):
    """Names in the order of the roster."""
    found = {}
    for row, line, too_long in _rows(path, ("student",)):
        name = line["student"]
        if too_long:
            raise BookError(f"{path}, row {row}, {TOO_LONG}")
        if not name:
            raise BookError(f"{path}, row {row}, column student: empty; expected a name or number")
        seed = seed_of(course, name)
        if seed in found:
            raise BookError(
                f"{path}, row {row}, column student: {name!r} is there already as "
                f"{found[seed]!r}; give each student another name or number"
            )
        found[seed] = name
    if not found:
        raise BookError(f"{path}: no student below the heading; expected one a row")
    return list(found.values())


def grade(
    answers: Sequence[Path], course: str, roster: Path | None = None
) -> tuple[list[dict], list[str]]:
    """Points and feedback for files of answers.

    Parameters
    ----------
    answers : sequence of Path
        CSV with the columns student, exercise, answer: one file of a class, or one a student.
    course : str
    roster : Path, optional
        Who may be in it; without it, a misspelt name is another student.

    Returns
    -------
    (list of dict, list of str)
        One dict an answer: student, exercise, answer, points, feedback; and what is wrong with
        rows that were not graded, with file, row and column.

    Raises
    ------
    BookError
        A file that cannot be read, or without one of the columns.
    """
    known = {seed_of(course, s) for s in _students(roster, course)} if roster else None
    graded, wrong, seen = [], [], {}
    columns = ("student", "exercise", "answer")
    rows = [(path, *row) for path in answers for row in _rows(path, columns)]
    # one student after the other, so that each cohort is drawn once
    for at in sorted(range(len(rows)), key=lambda i: rows[i][2]["student"].casefold()):
        path, row, line, too_long = rows[at]
        place = f"{path}, row {row}"
        seed = seed_of(course, line["student"]) if line["student"] else None
        try:
            if too_long:
                raise ValueError(TOO_LONG)
            found = _points(**line, seed=seed, place=place, seen=seen, known=known, roster=roster)
            graded.append((at, line | found._asdict()))
        except ValueError as error:
            wrong.append((at, f"{place}, {error}"))
    in_order = sorted(graded, key=lambda pair: pair[0])
    return [line for _, line in in_order], [text for _, text in sorted(wrong)]


def in_class(graded: list[dict]) -> list[str]:
    """What the answers of a class have in common: right ones, and mistakes that several made.

    Each student has another cohort, so one mistake gives everybody another number. What they share
    is the feedback; of it the first sentence is given here.

    Parameters
    ----------
    graded : list of dict
        Of `grade`.

    Returns
    -------
    list of str
        Lines of text.
    """
    lines = []
    for name in EXERCISES:
        mine = [line for line in graded if line["exercise"] == name]
        if not mine:
            continue
        lines.append(f"{name}: {sum(line['points'] for line in mine)} of {len(mine)} right")
        alike = Counter(_mistake(**line) for line in mine if not line["points"])
        lines += [
            f"  {number} students: {what}" for what, number in alike.most_common() if number > 1
        ]
    return lines


def _mistake(exercise, feedback, **_):
    """What a feedback names first, or that it could only give a hint."""
    hint = feedback.startswith(EXERCISES[exercise].hint)
    return "no known mistake" if hint else re.split(r"(?<=[.?]) ", feedback)[0]


def _points(student, exercise, answer, seed, place, seen, known, roster):
    """What one row is worth; ValueError with the column and what is wrong in it."""
    if not student:
        raise ValueError("column student: empty; expected a name or number")
    if known is not None and seed not in known:
        raise ValueError(f"column student: {student!r} is not in {roster}")
    if exercise not in EXERCISES:
        near = nearest(exercise, list(EXERCISES))
        raise ValueError(f"column exercise: unknown {exercise!r}; {near}")
    first = seen.setdefault((seed, exercise), place)
    if first != place:
        raise ValueError(f"column exercise: {exercise!r} was answered in {first}")
    try:
        return check(exercise, seed, answer) if answer else Checked(0, "No answer.")
    except ValueError as error:
        raise ValueError(f"column answer: {error}") from None


def _rows(path, columns):
    """(row of the file, dict of the wanted columns, whether it has cells without a heading) for
    each line that is not empty."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not a text file in UTF-8 ('CSV UTF-8' in Excel)"
        raise BookError(f"cannot read {path}: {why}") from None
    head = text.partition("\n")[0]
    delimiter = max(",;\t", key=head.count)
    if delimiter not in head:  # one column, in which a name may hold any of them
        delimiter = "\x1f"
    reader = csv.DictReader(text.splitlines(), delimiter=delimiter)
    names = {(name or "").strip().lower(): name for name in reader.fieldnames or ()}
    for column in columns:
        if column not in names:
            has = ", ".join(filter(None, names)) or "none"
            raise BookError(
                f"{path}, row 1: no column {column!r}; expected {', '.join(columns)}, found {has}"
            )
    for line in reader:
        too_long = any(cell.strip() for cell in line.pop(None, ()))
        if too_long or any((cell or "").strip() for cell in line.values()):
            cells = {c: (line[names[c]] or "").strip() for c in columns}
            yield reader.line_num, cells, too_long
