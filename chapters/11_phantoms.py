# ---
# jupyter:
#   chapter:
#     goals:
#     - say what a planted bias is good for, and what it can never show
#     - measure the effect of one change on one patient, with a twin
#     - prove that a cause has no other path into the image
#     needs:
#     - 01_data_curation
# ---

# %% [markdown]
# # Phantoms: films whose truth is known
#
# *Goes further than [Data curation](01_data_curation): the cohort on which the
# other chapters run unless a real one is named.*
#
# Suppose an audit finds that a model misses more pneumonias in old women. Is
# it age, sex, the bed in which they were imaged, the scanner of their
# hospital, or chance? In a hospital nobody can tell: no patient comes in a
# second time, thirty years younger and otherwise the same. So nobody can say
# either whether the audit was right.
#
# Metadata cannot be shown to a vision model, and real radiographs need a
# licence and a download. So this book draws its own: a *phantom*,
# radiograph-like images, drawn by a program for real rows of the NIH table.
# Age, sex, view position and part of the findings are those of an NIH patient;
# the picture, the race and the hospital site are not. What makes a phantom
# worth the trouble is not that it looks right. It is that **its biases are
# planted**. **Are they found by somebody who counts, and does each dial change
# what it should and nothing else?**

# %% tags=["parameters"]
data: str = "phantom"  # a phantom; with credentialed data, no film is shown
options: dict = {}  # the dials of the phantom, or options of a real cohort
seed: int = 1907  # [0, 1000000] of the phantom cohort
n_images: int = 800  # [60, 17000] images in the phantom cohort
size: int = 96  # [32, 256] side of a phantom image, in pixels

# %% tags=["remove-cell"]
from cxrlib.book.chapters import check

check(globals())

# %% tags=["hide-input"]
import textwrap

import matplotlib.pyplot as plt
import pandas as pd

from cxrlib import cohorts, guard, schema
from cxrlib.cohorts import associations, metadata, phantom, planted
from cxrlib.models import load_models
from cxrlib.predict.film_grid import film_grid
from cxrlib.show import plots
from cxrlib.show.film_explorer import film_explorer
from cxrlib.show.notebook import figure, quiz, show, withheld
from cxrlib.show.say import in_short, say
from cxrlib.show.words import count, fmt_row, listed, percent

# %%
phantoms = cohorts.study(data, n_images, seed, options, size=size)
if phantoms.name != "phantom":  # whatever is studied elsewhere
    phantoms = cohorts.load("phantom", n_images=n_images, seed=seed, size=size)
table = phantoms.table
dials = phantoms.recipe["dials"]

# %% [markdown]
# ## What they look like

# %% tags=["hide-input"]
if guard.active():
    withheld("films, not even those of phantoms")
else:
    phantom.contact_sheet(phantoms, columns=7)
    figure(
        "fig-curation-contact-sheet",
        "Phantom radiographs: a row without findings, then one finding a row "
        "with severity rising to the right, then devices. Above each image: "
        "sex, age, view, site. Where the cohort has too few, places stay "
        "empty.",
        "Grid of drawn chest radiographs: a row without findings, one row for "
        f"each of {listed(phantoms.findings)}, with severity rising to the "
        "right, and a row of drains, pacemakers and leads.",
    )

# %% [markdown]
# These are cartoons. They have a rib cage, a heart whose width is set, lungs
# whose outlines were learnt from lung masks, and findings drawn by formula. No
# conclusion about patients follows from them; conclusions about *methods of
# audit* do.
#
# Each image comes with a report, from which the small CLIP models of the other
# chapters learn.

# %% tags=["hide-input"]
several = table[list(phantoms.findings)].sum(axis=1) > 1
if guard.active():
    withheld("reports, not even those of phantoms")
else:
    for report in table.loc[several, "report"].head(3):
        print(textwrap.fill(report, 76), end="\n\n")

# %% [markdown]
# ## The dials
#
# A *dial* is a number that plants one bias. Each can be set by hand:
# `-p options='{"dials": {"drain_if_none": 0.3}}'` gives drains to many
# patients without a pneumothorax.

# %% tags=["hide-input"]
show(planted.dials(phantoms), "Dials of the phantom cohort", counts=())

# %% tags=["remove-input"]
turned = planted.turned(phantoms)
but = f" but for {listed(turned)}" if turned else ""
say(f"""
In this run all dials stand at their defaults{but}.
""")

# %% [markdown]
# The first two dials plant the bias of the chapter on
# [shortcuts](06_shortcuts). A *pneumothorax* is air between lung and chest
# wall, and a *chest drain* is the tube that lets it out. How strong is the
# bond between the two in a real hospital? The labels of PadChest
# {cite:p}`bustos2020`, a Spanish cohort, include chest drains.

# %%
real = associations.padchest_drains()
drawn = associations.association(table, "drain", "Pneumothorax")

# %% tags=["hide-input"]
drains = pd.concat(
    [real.assign(cohort="PadChest"), drawn.assign(cohort="phantom")]
)
drains["share with a drain"] = [fmt_row(x, 3) for _, x in drains.iterrows()]
names = {"group": "pneumothorax", "n_positive": "drains", "n": "images"}
columns = ["cohort", "pneumothorax", "share with a drain", "drains", "images"]
show(
    drains.rename(columns=names)[[*columns, "n_patients"]].reset_index(
        drop=True
    ),
    "Chest drains with and without a pneumothorax, with 95 % intervals over "
    "patients",
)

# %% tags=["remove-input"]
share = {
    cohort: rows.set_index("group")["value"]
    for cohort, rows in drains.groupby("cohort")
}
ratio = {c: x["with"] / x["without"] for c, x in share.items() if x["without"]}
both = share["phantom"] > share["PadChest"]
more = both["with"] and both["without"]
say(f"""
Of the {real["n"].iloc[0]} PadChest images with a pneumothorax (those with
fluid as well included), {percent(share["PadChest"]["with"])} show a drain; of
the others {percent(share["PadChest"]["without"], 1)}, a ratio of
{ratio["PadChest"]:.0f} to one. The phantom has
{"more drains on both sides" if more else "other frequencies"}:
{percent(share["phantom"]["with"])} and {percent(share["phantom"]["without"])},
a ratio of {ratio.get("phantom", float("nan")):.0f} to one. The default dials
are not those of PadChest on purpose: with its frequencies, a cohort of a few
thousand images would hold hardly a drain without a pneumothorax, and nothing
could be compared.
""")

# %% [markdown]
# ## The patients beside those of NIH

# %%
nih = metadata.nih()
adults = nih[nih["age_group"].notna()]
composition = {}
for name, people in {"NIH adults, %": adults, "phantom, %": table}.items():
    shares = {
        attribute: people[attribute].value_counts(normalize=True)
        for attribute in ("sex", "age_group", "view", "race")
        if attribute in people
    }
    shares["finding"] = people[list(phantoms.findings)].mean()
    composition[name] = 100 * pd.concat(shares, names=["attribute", "group"])

# %% tags=["hide-input"]
show(
    pd.DataFrame(composition),
    "Composition by image",
    digits=1,
    missing="not recorded",
)

# %% tags=["remove-input"]
most = dials["images_per_patient"]
first = adults[adults.groupby("patient_id").cumcount() < most]
rarest = adults[list(phantoms.findings)].mean().idxmin()
say(f"""
Where the columns differ, a dial stands behind it. `share` decides how often
each age is drawn: patients of the oldest group have
{percent((table["age_group"] == "80+").mean())} of the phantom images and
{percent((adults["age_group"] == "80+").mean())} of the real ones. `prevalence`
tops up rare findings: {rarest}, the rarest of them in NIH, is on
{percent(table[rarest].mean(), 1)} of the phantom images and on
{percent(adults[rarest].mean(), 1)} of the real ones. `images_per_patient`
keeps the first {most} images of a patient at most. That alone moves the share
of AP films in NIH from {percent((adults["view"] == "AP").mean())} to
{percent((first["view"] == "AP").mean())}: long series of images belong to
patients in bed. What is left is the luck of {len(table):,} images. Race is not
recorded in NIH; in the phantom it is drawn at random, a patient at a time.
""")

# %% [markdown]
# The chapter on [fine-tuning](03_fine_tuning) uses a second phantom cohort:
# the rows of a 6x200 draw, each with its one real finding, split by patient.

# %% tags=["hide-cell"]
six = cohorts.load("phantom-6x200", seed=seed)
cell = six.table["age60"] + " " + six.table["sex"]
cells = pd.crosstab(six.table["disease"], cell)
cells = cells[["young F", "young M", "old F", "old M"]]
show(
    cells.rename_axis(columns=None),
    "Images of the phantom 6x200 cohort, by cell",
)

# %% [markdown]
# ## The truth of a dial: counterfactual twins
#
# Every random number of the phantom depends on the cohort's seed, the image
# and the *name* of what it decides, on nothing else. So the cohort can be
# drawn again with one dial changed and all else equal, down to the grain. Such
# a pair of images is a pair of *counterfactual twins*: the same patient with
# and without the drain. No hospital can supply that.
#
# Three biases are switched off, one after the other. Which images should
# change is known from the table: those with a drain, those with a finding
# drawn fainter, those from a scanner with a signature.

# %%
switches = planted.switches(phantoms)
truth = planted.reached(phantoms, switches)

# %% tags=["hide-input"]
show(
    truth.drop(columns="clearest"),
    "Images changed by each twin, and by how many of 256 grey levels a pixel "
    "on average",
    missing="undefined",
)

# %% tags=["hide-input"]
if guard.active():
    withheld("films, not even those of phantoms")
else:
    fig, axes = plt.subplots(3, 3, figsize=(4, 4.4))
    for row, (change, (twin, _)) in zip(axes, switches.items(), strict=True):
        at = truth.set_index("change").loc[[change], "clearest"]
        pair = [c.images(at)[0].astype(int) for c in (phantoms, twin)]
        for axis, image, title in zip(
            row, pair, ("image", change), strict=False
        ):
            axis.imshow(image, cmap="gray", vmin=0, vmax=255)
            axis.set_title(title, fontsize=10)
        row[2].imshow(pair[1] - pair[0], cmap="gray", vmin=-80, vmax=80)
        row[2].set_title("difference", fontsize=10)
    for axis in axes.flat:
        axis.set_axis_off()
    figure(
        "fig-curation-twins",
        "Counterfactual twins. Left: the image. Middle: its twin with one "
        "change. Right: the difference, black where the twin is darker, white "
        "where it is brighter.",
        "Three rows of three images: a phantom radiograph, its twin with one "
        f"thing changed ({listed(switches)}), and the difference.",
        truth.drop(columns="clearest"),
        counts=("meant to change", "of these changed", "others changed"),
    )

# %% tags=["remove-input"]
meant, hit, stray = truth.iloc[:, 1:4].sum()
reached = "all" if hit == meant else percent(hit / meant, 1)
say(f"""
The changes reach {reached} of the images they should. Of all the others,
{stray or "none"} changed by even one grey level in one pixel. Where phantoms
may be shown, the figure has the clearest pair of each kind. What a twin
changes in a model's answer is the true effect of the dial on this patient, and
later chapters hold their estimates against it.
""")

# %% [markdown]
# ## Change a film
#
# Add or remove the drain, make the findings fainter, change the scanner, the
# sex or the age of the anatomy: film and scores change at once, beside those
# as recorded. Each is a real film of this run, and each score that of a model
# that read it. The report stays: it tells of findings, never of drains,
# scanners or bodies. (These films are larger than those of other chapters, so
# that you can see something, and their scores differ a little from there.)

# %%
grid = None
if not guard.active():
    larger = cohorts.load("phantom", n_images=600, seed=seed, size=112)
    grid = film_grid(larger, load_models("all"))

# %% tags=["remove-input"]
if grid is None:
    withheld("films, not even those of phantoms")
else:
    film_explorer(*grid, "Change one thing, and watch what the models say")

# %% tags=["hide-input"]
SAME, TWO = ["patient", "contrast", "site", "sex", "age"], "phantom-resnet"
if grid is not None:
    films, states, scored = grid
    recorded = states[states["recorded"]].iloc[0]
    alike = (states[SAME] == recorded[SAME]).all(axis=1)
    pair = states[alike].sort_values("drain")
    scores = schema.rows(
        scored, label="Pneumothorax", model=[TWO, f"{TWO}-drain"]
    ).pivot(index="model", columns="image_id", values="score")
    plots.film_pair(
        films[pair.index],
        ["without a drain", "with a drain"],
        scores[pair["image_id"]],
    )
    figure(
        "fig-films",
        f"One phantom ({recorded['patient'].split(': ')[1]}) twice, alike but "
        "for a chest drain, and what two models say of a pneumothorax. The "
        "second learned from films in which a drain gave it away.",
    )

# %% [markdown]
# ## Race, through the site alone
#
# Race is a social category. There is no formula for how it should change a
# chest radiograph, and to invent one for the phantom would be to plant biology
# where none is established. What is well established is that patients of
# different race are cared for in different places, with different machines. So
# in the phantom race decides the odds of the *site*, and the site has a
# scanner with a signature. There is no other path.


# %%
def sites_of(people):
    shares = pd.crosstab(people["race"], people["site"], normalize="index")
    return shares.reindex(list(phantom.RACES)).rename_axis(columns=None)


show(sites_of(table), "Share of each race's images taken at each site")

# %% [markdown]
# That there is no other path can be tested. Switch the signatures off, then
# let sites be assigned without regard to race, so that images change their
# site. If race, or the site, had any other way into the image, some image
# would change.

# %%
plain, _ = switches["all scanners alike"]
moved = phantom.twin(phantoms, site_signature=0.0, site_by_race=0.0)
changed_site = (plain.table["site"] != moved.table["site"]).sum()
everything = range(len(table))
differ = plain.images(everything) != moved.images(everything)
changed_image = differ.any(axis=(1, 2)).sum()

# %% tags=["remove-input"]
say(f"""
{count(changed_site)} images changed their site, {changed_image or "none"} of
the cohort changed in any pixel.
{"In" if changed_site else "As no site changed, nothing was tested. In"} the
phantom, a *probe*, a small classifier on top of a model, that reads
race reads a scanner. In real radiographs, race can be read too
{{cite:p}}`gichoya2022`; from what is not settled, and the phantom has nothing
to say on it.
""")

# %% [markdown]
# ## What was planted, and was it found?
#
# A bias that is planted should be found by anybody who counts. Here are the
# dials that can be read off the cohort's own table. A race's own site takes
# its patients with the probability of the dial, and a third of the others, who
# go to a site by chance.

# %%
counted = planted.counted(phantoms)

# %% tags=["hide-input"]
interval = "counted, 95 % interval"
counted[interval] = [fmt_row(row) for _, row in counted.iterrows()]
show(
    counted[["share of", "planted", interval, "verdict"]],
    "Planted shares, and what was counted over patients",
    counts=(),
)

# %% tags=["hide-input"]
fig, axis = plt.subplots(figsize=(4, 1.8))
lines = counted["share of"].map(lambda text: textwrap.fill(text, 22))
axis.hlines(lines, counted["ci_low"], counted["ci_high"], color="#0072B2")
axis.plot(counted["value"], lines, "o", color="#0072B2", label="counted")
axis.plot(counted["planted"], lines, "kD", mfc="none", label="planted")
axis.set(xlim=(0, 1), xlabel="share")
axis.margins(y=0.3)
axis.invert_yaxis()
fig.legend(loc="outside upper left", ncols=2)
figure(
    "fig-phantoms-found",
    "Planted shares (diamonds), and what was counted, with 95 % intervals "
    "over patients.",
    "Three lines on an axis of shares: "
    + "; ".join(
        f"{x['share of']} planted {x['planted']:.2f}, counted {x[interval]}"
        for _, x in counted.iterrows()
    ),
    counted,
)

# %% tags=["remove-input"]
recovered = (counted["verdict"] == "found").sum()
say(f"""
The interval holds the planted number for {recovered} of {len(counted)}. (One
95 % interval in twenty is expected to miss, with nothing wrong.) Two further
dials, the contrast of the findings and the signatures of the scanners, leave
no trace in any table. They were found by twins alone, in {reached} of the
images they should have reached. This is why an audit that only counts cannot
see everything.
""")

# %% tags=["remove-input"]
quiz(
    "In the phantom, findings fade with age, and an audit finds that a model "
    "misses more of them in old patients. What does that say about real "
    "patients?",
    {
        "That real models fail old patients too.": (
            False,
            "The fading was put there by a dial. Turned the other way, the "
            "same audit would find the opposite.",
        ),
        "Nothing about patients; it says that the audit finds such a bias "
        "where there is one.": (
            True,
            "This is what a phantom is for: the truth is known, so the method "
            "can be graded.",
        ),
        "That findings fade with age in real films.": (
            False,
            "Whether they do is a question to radiologists and real films. No "
            "program that draws pictures can answer it.",
        ),
    },
)

# %% [markdown]
# ## Limits
#
# - Findings that were topped up fall on patients at random. Real findings come
#   together and come back; the phantom's do so less.
# - Labels of PadChest were read from reports, most of them by a network.
# - A bias that nobody thought of planting is not in the phantom. That an audit
#   finds the planted ones says nothing of the others.

# %% tags=["remove-input"]
in_short(
    f"""
What are phantoms good for? Their biases are known. Of {len(counted)} planted
shares, {recovered} lie in the interval counted over
{count(table["patient_id"].nunique())} patients. Twins, the same films with one
bias off, change {reached} of the images they should and {stray or "none"} of
the others; with all scanners alike, race changes {changed_image or "none"} of
{count(len(table))} films. Drains come with a pneumothorax in
{percent(share["phantom"]["with"])} of its films here and in
{percent(share["PadChest"]["with"])} in PadChest, a real cohort: planted on
purpose, so that an audit has something to find.
""",
    figure="fig-phantoms-found" if guard.active() else "fig-curation-twins",
)

# %% [markdown]
# ## Exercises
#
# ```{exercise}
# :label: ex-curation-drain
# Most PadChest labels were predicted from the report by a network. Does the
# association of drain and pneumothorax survive when only reports labelled by
# physicians count, on frontal films?
# ```

# %% [markdown] tags=["solution"]
# ````{solution-start} ex-curation-drain
# :class: dropdown
# ````

# %% tags=["solution"]
by_hand = associations.padchest_drains(
    frontal_only=True, read_by_hand_only=True
)
columns = [
    "group",
    "value",
    "ci_low",
    "ci_high",
    "n_positive",
    "n",
    "n_patients",
]
show(
    by_hand[columns],
    "PadChest, read by physicians",
    digits=3,
    counts=columns[4:],
)

# %% tags=["remove-input", "solution"]
apart = by_hand.iloc[-1]
survives = "survives" if apart["ci_low"] > 0 else "is no longer certain"
say(f"""
The association {survives}: the difference of the two shares is
{fmt_row(apart)}. The interval is wide, since {by_hand["n"].iloc[0]} images
with a pneumothorax are left.
""")

# %% [markdown] tags=["solution"]
# ````{solution-end}
# ````

# %% [markdown]
# ```{exercise}
# :label: ex-curation-site
# Turn a dial: `-p options='{"dials": {"site_by_race": 0}}'`. Predict before
# you run it: what becomes of the table of races and sites, and of the test
# that race has no other path into the image?
# ```

# %% [markdown] tags=["solution"]
# ````{solution-start} ex-curation-site
# :class: dropdown
# ````

# %% tags=["solution"]
at_random = sites_of(phantom.twin(phantoms, site_by_race=0.0).table)
show(at_random, "The same shares, with site_by_race at 0")

# %% tags=["remove-input", "solution"]
say(f"""
Each race goes to each site a third of the time, up to the luck of the draw:
here the shares run from {percent(at_random.min().min())} to
{percent(at_random.max().max())}. The test would come out clean, and mean
nothing. Switching the dial off changes no site any more, as it is off already,
so no image *could* change. A test that cannot fail proves nothing: always look
at how many images it put to the test.
""")

# %% [markdown] tags=["solution"]
# ````{solution-end}
# ````

# %% [markdown]
# ## Further reading
#
# - {cite:t}`gichoya2022` show that models read race from real films, which
#   nobody could explain.
# - {cite:t}`bustos2020` made PadChest, and tell how its labels were read.
# - {cite:t}`larrazabal2020` vary the share of women and men in training.
