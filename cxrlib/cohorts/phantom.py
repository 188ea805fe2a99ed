"""The phantom cohort: radiograph-like images with planted, known biases on real NIH rows.

Patients, ages, sexes, view positions and part of the findings are real (NIH ChestX-ray14
metadata). Everything else is drawn from hashed streams: each random number is a pure function of
the cohort seed, the image or patient, and the name of what it decides. So a cohort can be built
again with one dial changed and all else equal, grain included, which gives counterfactual twins
(:func:`twin`): the same patient with and without the drain, with another contrast, at another
site. The paired difference between twins is the recorded truth of a dial.
"""

from __future__ import annotations

import hashlib
import zlib
from copy import deepcopy
from dataclasses import asdict, dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from cxrlib.cohorts import metadata, nih6x200, render, reports, shape_model
from cxrlib.cohorts.cohort import Cohort, Count, Unit, Whole, flow
from cxrlib.core import toml
from cxrlib.core.checks import one_of
from cxrlib.core.errors import nearest

if TYPE_CHECKING:  # matplotlib takes a while
    from matplotlib.figure import Figure

FINDINGS = metadata.STUDIED
_WHO = toml.beside(__file__)
DEVICES, SITES, RACES = tuple(_WHO["devices"]), tuple(_WHO["sites"]), _WHO["races"]
GROUPS = {"sex": ("F", "M"), "age_group": metadata.AGE_GROUPS, "race": tuple(RACES), "site": SITES}
"""Attributes that a dial may name, and their groups."""
GROUPED = ("share", "prevalence_factor", "contrast", "underreport")


@dataclass(frozen=True)
class Dials:
    """What is planted. Grouped dials map an attribute to a value per group; others stay neutral.

    Attributes
    ----------
    drain_if_pneumothorax, drain_if_none : float
        P(drain | pneumothorax) and P(drain | no pneumothorax).
    contrast : dict
        Factor on how visible findings are, for example ``{"age_group": {"80+": 0.5}}``. Attributes:
        ``age_group``, ``sex``, ``site``; factors multiply.
    prevalence : float
        Target prevalence of each finding: real NIH findings are kept and topped up at random.
        0 keeps the real ones alone.
    prevalence_factor : dict
        Factor on the top-up by group (attributes as in ``share``, and ``race``).
    share : dict
        Wanted shares of patients by ``sex`` or ``age_group`` (of the first image).
    underreport : dict
        Probability, by group, that a finding which is there is missing in label and report.
    images_per_patient : int
        At most so many images a patient.
    site_by_race : float
        0: sites independent of race; 1: each race at its own site.
    site_signature : float
        0: all sites' images alike; 1: full scanner signatures. Race reaches the image only here.
    """

    drain_if_pneumothorax: float = 0.5
    drain_if_none: float = 0.05
    contrast: dict[str, dict[str, float]] = field(
        default_factory=lambda: deepcopy(_WHO["contrast"])
    )
    prevalence: float = 0.12
    prevalence_factor: dict[str, dict[str, float]] = field(default_factory=dict)
    share: dict[str, dict[str, float]] = field(default_factory=lambda: deepcopy(_WHO["share"]))
    underreport: dict[str, dict[str, float]] = field(default_factory=dict)
    images_per_patient: int = 4
    site_by_race: float = 0.6
    site_signature: float = 1.0

    def __post_init__(self):
        for share in (f.name for f in fields(self) if f.type == "float"):
            if not 0 <= getattr(self, share) <= 1:
                raise ValueError(f"dial {share}={getattr(self, share)}: expected 0 to 1")
        if (n := self.images_per_patient) < 1:
            raise ValueError(f"dial images_per_patient={n}: expected 1 or more")
        for dial in GROUPED:
            for attribute, factors in getattr(self, dial).items():
                unknown = set(factors) - set(GROUPS.get(attribute, ()))
                if attribute not in GROUPS or unknown:
                    raise ValueError(
                        f"dial {dial}: unknown group {attribute}={sorted(unknown) or '?'}; "
                        f"known groups: {GROUPS}"
                    )
                # Race may act through the site alone; see the chapter on data curation.
                if attribute == "race" and dial == "contrast":
                    raise ValueError("dial contrast: race acts only through site; use 'site'")
                if min(factors.values(), default=0) < 0:
                    raise ValueError(f"dial {dial}: negative value in {factors}")


# --- hashed streams: every draw has a name ---


def _mix(z: np.ndarray) -> np.ndarray:
    """SplitMix64 finaliser on uint64."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _key(seed: int, ids: pd.Series) -> np.ndarray:
    """One uint64 key an id under a cohort seed."""
    hashed = pd.util.hash_array(ids.to_numpy().astype(str).astype(object))
    return _mix(hashed + np.uint64(seed * 0x9E3779B97F4A7C15 % 2**64))


def _uniform(key: np.ndarray, name: str) -> np.ndarray:
    """Uniform numbers in [0, 1), one a key, from the stream of that name."""
    salt = np.uint64(zlib.crc32(name.encode()) * 0x9E3779B97F4A7C15 % 2**64)
    return (_mix(key ^ salt) >> np.uint64(40)).astype(np.float64) / 2**24


def _normal(key: np.ndarray, name: str) -> np.ndarray:
    """Roughly normal numbers (sum of three uniforms), mean 0, variance 1, within +-3."""
    return 2 * sum(_uniform(key, f"{name}/{i}") for i in range(3)) - 3


def _factor(table: pd.DataFrame, groups: dict, neutral: float) -> np.ndarray:
    """Product of the factors of the groups that each row belongs to."""
    value = np.full(len(table), 1.0)
    known = np.zeros(len(table), bool)
    for attribute, factors in groups.items():
        column = table[attribute].map(factors)
        value *= column.fillna(1.0).to_numpy(float)
        known |= column.notna().to_numpy()
    return np.where(known, value, neutral)


# --- who is in the cohort ---


def choose(
    n_images: int, seed: int, split: str | None, dials: Dials
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Real NIH rows of adults, drawn by patients; the rows and the exclusion flow.

    The split of a patient (60 % train, 10 % valid, 30 % test) depends on the patient alone, so no
    seed and no dial can put a patient of a training cohort into a test cohort.
    """
    rows = metadata.nih()
    steps = [("NIH ChestX-ray14 metadata", rows, "")]
    rows = rows[rows["age_group"].notna()]
    steps.append(("adults of possible age", rows, "under 18, or above 120"))
    tenth = _uniform(_key(0, rows["patient_id"]), "split")
    rows = rows.assign(split=np.select([tenth < 0.6, tenth < 0.7], ["train", "valid"], "test"))
    if split is not None:
        one_of("split", split, ("train", "valid", "test", None))
        rows = rows[rows["split"] == split]
        steps.append((f"split: {split}", rows, "in another split"))
    first = rows.drop_duplicates("patient_id")
    rows = rows[rows.groupby("patient_id").cumcount() < dials.images_per_patient]
    further = "further images of a patient"
    steps.append((f"at most {dials.images_per_patient} images a patient", rows, further))
    if n_images > len(rows):
        has = f"split {split!r} has {len(rows)} images under these dials"
        raise ValueError(f"n_images={n_images}: {has}; ask for fewer or raise images_per_patient")
    # Weighted sampling of patients without replacement (Efraimidis and Spirakis 2006).
    weight = np.ones(len(first))
    for attribute, shares in dials.share.items():
        actual = first[attribute].value_counts(normalize=True)
        ratio = {group: share / actual[group] for group, share in shares.items()}
        weight *= first[attribute].map(ratio).fillna(1).to_numpy()
    draw = -np.log1p(-_uniform(_key(seed, first["patient_id"]), "draw"))
    place = pd.Series(draw[weight > 0] / weight[weight > 0], first["patient_id"][weight > 0])
    rows = rows[rows["patient_id"].isin(place.index)]
    rows = rows.iloc[np.argsort(rows["patient_id"].map(place).to_numpy(), kind="stable")[:n_images]]
    if len(rows) < n_images:
        raise ValueError(f"n_images={n_images}: the dial share leaves {len(rows)} images")
    steps.append(("drawn by patients", rows, "not drawn"))
    return rows.sort_values("image_id", ignore_index=True), flow(steps)


def populate(rows: pd.DataFrame, seed: int, dials: Dials) -> pd.DataFrame:
    """Give rows their race, site, findings, devices and report under the dials.

    ``severity_<finding>`` is what the image shows (0: absent, else 0.15 to 1); the column of the
    finding itself is the recorded label, which ``underreport`` can falsify.
    """
    image, patient = _key(seed, rows["image_id"]), _key(seed, rows["patient_id"])
    table = rows[[c for c in _WHO["backbone"] if c in rows]].copy()
    cuts = np.cumsum(list(RACES.values()))[:-1]
    table["race"] = np.array(list(RACES))[np.searchsorted(cuts, _uniform(patient, "race"), "right")]
    own = table["race"].map(dict(zip(RACES, SITES, strict=True)))
    anywhere = np.array(SITES)[(3 * _uniform(patient, "site")).astype(int)]
    table["site"] = np.where(_uniform(patient, "own site") < dials.site_by_race, own, anywhere)

    top_up = _factor(table, dials.prevalence_factor, 1.0)
    missed = _factor(table, dials.underreport, 0.0)
    nih = metadata.nih().set_index("image_id")
    adults = nih[nih["age_group"].notna()]
    few = adults[adults.groupby("patient_id").cumcount() < dials.images_per_patient]
    usual = few[list(FINDINGS)].mean()
    real = nih.loc[rows["image_id"], list(FINDINGS)]
    for finding in FINDINGS:
        extra = max(0.0, (dials.prevalence - usual[finding]) / (1 - usual[finding])) * top_up
        present = (real[finding].to_numpy() == 1) | (_uniform(image, f"has {finding}") < extra)
        severity = 0.15 + 0.85 * _uniform(image, f"severity {finding}")
        table[f"severity_{finding}"] = np.where(present, severity, 0.0)
        omitted = _uniform(image, f"omits {finding}") < missed
        table[finding] = (present & ~omitted).astype(np.int8)

    ill = table["severity_Pneumothorax"] > 0
    chance = np.where(ill, dials.drain_if_pneumothorax, dials.drain_if_none)
    table["drain"] = (_uniform(image, "drain") < chance).astype(np.int8)
    table["pacemaker"] = (_uniform(patient, "pacemaker") < 0.08).astype(np.int8)
    with_leads = _uniform(image, "ecg") < np.where(table["view"] == "AP", 0.5, 0.05)
    table["ecg_leads"] = with_leads.astype(np.int8)
    sides = {f: np.where(_side(image, f) < 0, "right", "left") for f in FINDINGS}
    table["report"] = reports.write(
        table, FINDINGS, sides, lambda name: _uniform(image, f"report {name}")
    )
    return table


def _side(image, finding):
    """-1 for image left (the patient's right), 1 for image right."""
    return np.where(_uniform(image, f"side {finding}") < 0.5, -1.0, 1.0)


# --- what the images look like ---


def scene(table: pd.DataFrame, seed: int, dials: Dials) -> dict[str, np.ndarray]:
    """Numbers that :func:`cxrlib.cohorts.render.render` draws, one entry per image."""
    image, patient = _key(seed, table["image_id"]), _key(seed, table["patient_id"])
    u = lambda name: _uniform(image, name)  # noqa: E731
    z = lambda name: _normal(image, name)  # noqa: E731
    zp = lambda name: _normal(patient, name)  # noqa: E731
    female = (table["sex"] == "F").to_numpy(float)
    old = np.clip((table["age"].to_numpy(float) - 20) / 70, 0, 1)
    ap = (table["view"] == "AP").to_numpy(float)
    contrast = _factor(table, dials.contrast, 1.0)

    def shown(finding):
        severity = table[f"severity_{finding}"].to_numpy()
        least = _WHO["subtlest"].get(finding, 0.35)
        return severity > 0, least + (1 - least) * severity

    s = {"ap": ap, "contrast": contrast}
    s["shape"] = 0.75 * np.stack([zp(f"shape {k}") for k in range(shape_model.COMPONENTS)], 1)
    s["width"] = 0.735 - 0.035 * female + 0.018 * zp("width") + 0.008 * z("width")
    s["cx"] = 0.02 * z("cx")
    s["tilt"], s["roll"] = 0.02 * z("tilt"), 0.02 * z("roll")
    s["top"] = -0.80 + 0.02 * z("top")
    s["bottom"] = 0.50 + 0.03 * zp("bottom") + 0.03 * z("breath") - 0.10 * ap + 0.04 * old
    s["floor"] = s["top"] + 0.88 * (s["bottom"] - s["top"])
    s["hilum"] = s["top"] + 0.52 * (s["bottom"] - s["top"])
    s["body"] = 1.02 - 0.05 * female + 0.04 * zp("body")
    s["bulk"] = 0.46 + 0.035 * zp("bulk")
    s["air"] = 0.47 + 0.02 * zp("air") - 0.02 * ap + 0.02 * old
    s["ctr"] = 0.44 + 0.022 * zp("heart") + 0.012 * z("heart") + 0.02 * ap
    there, amount = shown("Cardiomegaly")
    s["ctr"] += 0.10 * np.where(there, contrast, 0) * amount
    s["aorta"] = 0.05 + 0.07 * old + 0.005 * zp("aorta")
    s["calcium"] = (old > 0.55) * _uniform(patient, "calcium")
    s["spine"] = 6.28 * _uniform(patient, "spine")
    s["rib_spacing"] = 0.152 + 0.006 * zp("ribs")
    s["rib_phase"] = _uniform(patient, "rib phase")
    s["bone"] = 1.35 - 0.85 * old + 0.06 * zp("bone")
    s["clavicle"] = 0.025 * z("clavicle")
    s["vessels"] = 0.24 + 0.02 * z("vessels")
    s["vessel_phase"] = 6.28 * _uniform(patient, "vessels")
    s["breast"] = female * np.clip(0.055 + 0.018 * zp("breast"), 0.015, 0.11)

    for finding in FINDINGS:
        there, amount = shown(finding)
        s[finding] = np.where(there, amount * contrast, 0.0)
        s[f"{finding.lower().replace(' ', '_')}_side"] = _side(image, finding)
    s["atelectasis_bands"] = 1 + (2.99 * u("bands")).astype(int)
    s["atelectasis_slope"] = 2 * u("slope") - 1
    s |= {name: u(name) for name in _WHO["uniform"]}
    s |= {device: table[device].to_numpy(float) for device in DEVICES}
    s["drain_side"] = _side(image, "Pneumothorax")  # treats the pneumothorax where there is one
    s["pacemaker_side"] = np.where(_uniform(patient, "pacemaker side") < 0.8, 1.0, -1.0)

    site = table["site"].to_numpy()
    s["site_b"] = (site == "B") * dials.site_signature
    s["site_c"] = (site == "C") * dials.site_signature
    s["site_mark"] = (site == "C") * dials.site_signature
    s["gain"] = 5.2 + 0.35 * z("gain") - 0.3 * ap
    s["center"] = 0.47 + 0.025 * z("center")
    s["grain"] = np.exp(0.25 * z("grain")) * (1 + 0.25 * ap)
    s["collimation"] = np.where(u("collimated") < 0.25, 0.90 + 0.06 * u("edge"), 1.2)
    s["marker"] = np.where(u("marker") < 0.75, 1.0, -1.0)
    return {"key": image} | {k: np.asarray(v, np.float32) for k, v in s.items()}


# --- cohorts ---


def build(
    n_images: Count = 4000,
    seed: Whole = 1907,
    split: Literal["train", "valid", "test"] | None = "test",
    size: Count = 64,
    dials: Dials | dict | None = None,
) -> Cohort:
    """A phantom cohort of ``n_images`` radiographs of ``size`` pixels a side.

    Parameters
    ----------
    n_images : int
    seed : int
        Another seed gives other patients, other anatomy and other findings.
    split : {"train", "valid", "test"} or None
        Which patients may be drawn; see :func:`choose`.
    size : int
    dials : Dials, or a dictionary with the dials to change

    Raises
    ------
    ValueError
        More images than the split has, an unknown split, dial or group.
    """
    dials = _dials(dials)
    return _cohort("phantom", *choose(n_images, seed, split, dials), seed, size, dials)


def build_6x200(
    seed: Whole = 1907, split: Unit = "patient", size: Count = 64, dials: Dials | dict | None = None
) -> Cohort:
    """The NIH 6x200 rows of X (1,200 images, one finding each) as phantom radiographs.

    ``split`` is the unit of the 7:1:2 split: "patient", or "image" as published. The recipe needs
    nearly all old women with edema, so its rows are not confined to the phantom's test split; the
    seed is offset, so that the persons drawn from them are other phantom persons.
    """
    dials = replace(_dials(dials), prevalence=0.0)
    rows = nih6x200.draw(seed, split)
    steps = [("NIH ChestX-ray14 metadata", metadata.nih(), "")]
    steps.append(("drawn by the 6x200 rule", rows, "not drawn"))
    return _cohort("phantom-6x200", rows, flow(steps), seed + 6200, size, dials)


def twin(
    cohort: Cohort, *, drain: int | None = None, site: str | None = None, **dials: float | str
) -> Cohort:
    """The same rows with something changed and all else equal, grain included.

    Parameters
    ----------
    cohort : Cohort
        A phantom cohort.
    drain : 0 or 1, optional
        Give all images a drain, or none.
    site : str, optional
        Take all images at this site.
    **dials
        Dials to change. ``share`` and ``images_per_patient`` choose the rows and cannot.
    """
    blocked = {"share", "images_per_patient"} & set(dials)
    if blocked:
        raise ValueError(f"twin: {sorted(blocked)} choose the rows, which a twin keeps")
    changed = _dials(cohort.recipe["dials"] | dials)
    table = populate(cohort.table, cohort.recipe["seed"], changed)
    what = dict(dials)
    if drain is not None:
        table["drain"], what["drain"] = np.int8(drain), drain
    if site is not None:
        one_of("site", site, SITES)
        table["site"], what["site"] = site, site
    recipe = cohort.recipe | {"dials": asdict(changed), "twin": what}
    return _with_images(cohort.name, table, cohort.flow, recipe)


def _dials(dials: Dials | dict | None) -> Dials:
    if dials is None:
        return Dials()
    if isinstance(dials, Dials):
        return dials
    known = [f.name for f in fields(Dials)]
    if unknown := sorted(set(dials) - set(known)):
        raise ValueError(f"unknown dial {unknown[0]!r}; {nearest(unknown[0], known)}")
    return Dials(**dials)


def _cohort(name, rows, steps, seed, size, dials):
    table = populate(rows, seed, dials)
    recipe = {"name": name, "seed": seed, "size": size}
    recipe |= {"dials": asdict(dials), "renderer": renderer_hash()}
    return _with_images(name, table, steps, recipe)


@lru_cache
def renderer_hash() -> str:
    """Hash of the code and shapes that decide the pixels, so that no cache outlives them."""
    names = ("render.py", "phantom.py", "phantom.toml", "reports.py", "reports.toml", "anatomy.npz")
    parts = (Path(__file__).with_name(name).read_bytes() for name in names)
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def _with_images(name, table, steps, recipe):
    dials = Dials(**recipe["dials"])

    def images(positions):
        part = scene(table.iloc[np.asarray(positions)], recipe["seed"], dials)
        return render.render(part, recipe["size"])

    return Cohort(name, table, FINDINGS, "open", recipe, steps, images, sources=("phantom",))


def contact_sheet(cohort: Cohort, columns: int = 8) -> Figure:
    """Figure of examples: a row without findings, a row per finding by rising severity, devices.

    Each image is captioned with sex, age, view position and site. A cell stays empty when the
    cohort has too few images with exactly one finding and no device.
    """
    import matplotlib.pyplot as plt

    table = cohort.table
    severity = table[[f"severity_{f}" for f in FINDINGS]].to_numpy()
    count, devices = (severity > 0).sum(1), table[list(DEVICES)].to_numpy()
    plain = devices.sum(1) == 0
    rows = {"No finding": np.flatnonzero((count == 0) & plain)[:columns]}
    for k, finding in enumerate(FINDINGS):
        alone = np.flatnonzero((count == 1) & (severity[:, k] > 0) & plain)
        alone = alone[np.argsort(severity[alone, k])]
        rows[finding] = alone[np.linspace(0, len(alone) - 1, min(columns, len(alone))).astype(int)]
    third = columns // 3
    one_device = (count == 0) & (devices.sum(1) == 1)
    wanted = (columns - 2 * third, third, third)
    examples = [
        np.flatnonzero(one_device & has)[:n] for has, n in zip(devices.T == 1, wanted, strict=True)
    ]
    rows["Devices"] = np.concatenate(examples)

    size, grid = (1.0 * columns, 1.13 * len(rows)), {"wspace": 0.02, "hspace": 0.16}
    figure, axes = plt.subplots(
        len(rows), columns, figsize=size, gridspec_kw=grid, squeeze=False, layout="none"
    )
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[], frame_on=False)
    for line, (name, positions) in zip(axes, rows.items(), strict=True):
        line[0].set_ylabel(name, fontsize=9)
        if not len(positions):
            continue
        for axis, i, image in zip(line, positions, cohort.images(positions), strict=False):
            row = table.iloc[i]
            axis.imshow(image, cmap="gray", vmin=0, vmax=255)
            title = " ".join(str(row[c]) for c in ("sex", "age", "view", "site"))
            axis.set_title(title, fontsize=9, pad=1.5)
    return figure
