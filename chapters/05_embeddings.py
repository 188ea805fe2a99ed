# ---
# jupyter:
#   chapter:
#     answers:
#       S 2.2: ''
#       S 3.2: ''
#       S Fig. 2a: fig-embeddings-modality
#       S Fig. 2b: fig-embeddings-attributes
#       S Fig. 2c: fig-embeddings-attributes
#       S Fig. 2d: fig-embeddings-attributes
#       S Fig. 3: fig-embeddings-centroids
#       S Table 2: fig-embeddings-probes
#     goals:
#     - say what a projection shows, and why it can be blank
#     - set up an honest probe, with new patients, an interval and a yardstick
#     - compare a distance between groups with that of random halves
#     needs:
#     - 01_data_curation
#     - 02_zero_shot
# ---

# %% [markdown]
# # Embeddings: what the model knows of the patient
#
# *Answers sections 2.2 and 3.2 of {cite:t}`sourget2025`, paper S: Fig. 2
# (projections), Fig. 3 (centroids) and Table 2 (what probes read).*
#
# A hospital is offered a model for chest films. The vendor writes: sex, age
# and race were never given to it. But a radiologist sees at a glance whether a
# film is that of a woman or a man, and roughly how old the patient is. If the
# model sees it too, it *can* treat people by it, although no field of a form
# ever said so. And whoever claims to have proved that it discriminates, or
# that it cannot, had better have more than a picture.
#
# Paper S looks at the *embedding*, the list of numbers to which a model
# reduces a film. On a map of the embeddings, a projection, it sees no trace of
# sex, age or race. A simple classifier, a probe, reads them off. **Which of
# the two should one believe, and about what?**

# %% tags=["parameters"]
models: str = "all"  # names of `cxrbook models`, or "all" of the small ones
probed: str = "first two"  # of `models`: which are probed; or names, or "all"
data: str = "phantom"  # a cohort of `cxrbook cohorts`
options: dict = {}  # of a real cohort, or the dials of a phantom
seed: int = 1907  # [0, 1000000] of the phantom cohort, splits and resamples
n_images: int = 4000  # [100, 1000000] of a phantom; real ones are whole
n_resamples: int = 500  # [2, 100000] bootstrap resamples
protocol: str = "corrected"  # {corrected, as_published} as S; probes: 12 min

# %% tags=["remove-cell"]
from cxrlib.book.chapters import check

check(globals())

# %% [markdown]
# Races are those of S; whoever has another entry, or none, has no group.

# %% tags=["hide-input"]
import numpy as np
import pandas as pd

from cxrlib import cohorts, schema
from cxrlib.embed.extract import embed, embed_reports
from cxrlib.models import choose_models, load_model
from cxrlib.papers import published
from cxrlib.protocol import protocol_of
from cxrlib.show import interactive, plots
from cxrlib.show.notebook import figure, keep, quiz, show, warn_if_seeded
from cxrlib.show.say import in_short, say
from cxrlib.show.words import count, each, estimate, listed, percent, plural
from cxrlib.stats import metrics, probes

# %% tags=["hide-input"]
chosen = protocol_of(protocol)
names = choose_models(models)
examined = names[:2] if probed == "first two" else choose_models(probed)
first = examined[0]
loaded = dict.fromkeys([first, *names, *examined])
clips = {name: load_model(name, chosen) for name in loaded}
warn_if_seeded(clips, data)
sampling = {"protocol": chosen, "n_resamples": n_resamples, "seed": seed}
cohort = cohorts.study(
    data, n_images, seed, options, preprocessing=chosen.preprocessing
)
table, WAY = cohort.table, "site" if cohort.planted else "view"
if "race" in table:
    of_s = table["race"].isin(["White", "Black", "Asian"])
    table = table.assign(race=table["race"].where(of_s))

# %% [markdown]
# ## Two encoders, one space
#
# A CLIP model has two encoders. One turns a film into a list of numbers, the
# other turns a text into a list of the same length, and training pulls the
# film towards its own report. Where a cohort has no reports, the texts here
# name the findings recorded for each film.

# %%
images = {name: embed(cohort, clip) for name, clip in clips.items()}
texts = {name: embed_reports(cohort, clip) for name, clip in clips.items()}
z, (t, spoken) = images[first], texts[first]
patient = table["patient_id"].to_numpy()

# %% tags=["remove-input"]
unit = clips[first].unit_text
text = "and so is a text" if unit else "a text lies wherever it comes out"
say(f"""
For {first}, each of the {count(len(z))} films of the cohort {cohort.name} and
each of their texts has become {z.shape[1]} numbers: a film is a point on the
surface of a sphere with radius 1, {text}.
""")

# %% [markdown]
# ## The map
#
# Nobody sees so many dimensions. Principal component analysis (PCA) turns the
# cloud of points so that its widest extent comes first, and we look at the
# first two axes. (Of credentialed data no single film is shown: each group
# becomes its centroid and the ellipse of one standard deviation.)

# %%
both, explained = probes.project(z, t)
both = np.concatenate(both)
patients = np.concatenate([patient, patient[spoken]])
modality = {"modality": np.repeat(["image", "text"], [len(z), len(t)])}
is_text = modality["modality"] == "text"

# %% tags=["hide-input"]
spread = probes.group_spreads(both, patients, modality)
plots.pca_map(both, modality, *spread, explained).suptitle(first)
figure(
    "fig-embeddings-modality",
    "Image and text embeddings, projected together (S, Fig. 2a). The axes "
    "name their share of the variance.",
    counts=(),
)

# %% tags=["remove-input"]
on_map = probes.best_axis(both, {"text": is_text}, patients, **sampling)
between = t.mean(axis=0) - z.mean(axis=0)
line = metrics.auc(is_text, np.concatenate([z, t]) @ between)
CLEAR = 0.1  # a difference in AUC that sentences call one
more = "the map shows the gap"
if line > on_map["value"][0] + CLEAR:
    more = "the gap is wider than the map shows"
say(f"""
In {{numref}}`fig-embeddings-modality`, the two axes carry
{percent(explained.sum())} of the variance. The better one tells films from
texts with an AUC of {estimate(on_map)}; 1 is a clean cut, 0.5 none at all.
Along the line that joins the mean film and the mean text, it is {line:.2f}:
{more}.
""")

# %% [markdown]
# Training pulled every film towards its report. That films and texts keep to
# regions of their own all the same is known as the *modality gap*
# {cite:p}`liang2022`, and paper S sees it in most of its models. Now the films
# alone, coloured by what we know of the patients, and by where or how they
# were imaged.

# %% tags=["hide-input"]
points, explained = probes.image_panel(z, t, axes=chosen.pca_axes)
asked = ("sex", "age_group", "race", WAY)
known = [a for a in asked if a in table and table[a].nunique() > 1]
coloured = {a: table[a] for a in known}
spread = probes.group_spreads(points, patient, coloured)
plots.pca_map(points, coloured, *spread, explained).suptitle(first)
figure(
    "fig-embeddings-attributes",
    "Image embeddings on their first two principal components, coloured by "
    "attributes of patients and films (S, Fig. 2b to 2d).",
    counts=(),
)

# %% tags=["remove-input"]
is_woman = {"women": table["sex"].map({"F": 1, "M": 0})}
sex_axis = probes.best_axis(points, is_woman, patient, **sampling)
near = sex_axis["value"][0] < 0.6
say(f"""
Does a colour in {{numref}}`fig-embeddings-attributes` keep to a corner of its
own? A number is better than an eye: the better of the two axes tells women
from men with an AUC of {estimate(sex_axis)}{", near chance" if near else ""}.
(Since the better axis and the better direction were picked, chance gives
slightly more than 0.5.) One map, coloured by one attribute after the other:
""")

# %% tags=["remove-input"]
interactive.scatter(points, coloured, "Explore: the films, recoloured")

# %% [markdown]
# Where no colour keeps to a corner, it would be easy to close the file: no
# pattern, no information, no risk. Paper S names this temptation.
#
# ## A probe asks a better question
#
# PCA answers "in which directions do the films differ most?". If sex changes
# the embedding a little, but in every film and always the same way, it is a
# faint direction, and PCA, which ranks by strength, drops it. A probe is told
# what to look for. Both get the same test: a linear probe on the two axes of
# the map, and one on all dimensions. The patients are split, so that the probe
# is tested on people it has never seen.

# %%
view = {"map (2 axes)": points, "all dimensions": z}
map_or_all = probes.probe_table(view, table, known, ["linear"], **sampling)
show(
    map_or_all,
    f"{first}: AUC of a linear probe, from the map and from all dimensions",
    rows="label",
    columns="model",
)

# %% tags=["remove-input"]
on_two, on_all = (schema.rows(map_or_all, model=which) for which in view)
gain = on_all["value"].to_numpy() - on_two["value"].to_numpy()
hidden = on_all["label"].to_numpy()[gain > CLEAR]
sex_two, sex_all = (estimate(on, label="sex") for on in (on_two, on_all))
say(f"""
Sex: {sex_two} from the map, {sex_all} from the whole embedding. Attributes
that the whole tells better than the map by more than {CLEAR:.1f}:
{listed(hidden, none="none of them")}. A picture without a pattern is no
evidence that there is nothing to read.
""")

# %% tags=["remove-input"]
quiz(
    "A map of embeddings shows women and men thoroughly mixed. Which "
    "conclusion holds?",
    {
        "The model does not know the sex of a patient.": (
            False,
            f"Here a linear probe reads sex with {sex_two} from the map and "
            f"with {sex_all} from all {z.shape[1]} dimensions.",
        ),
        "Sex is not among the strongest directions; all else is open.": (
            True,
            "The axes are the directions in which films differ most. A faint "
            "direction can still be reliable.",
        ),
        "The model treats women and men alike.": (
            False,
            "Neither a map nor a probe says what an answer depends on.",
        ),
    },
)

# %% [markdown]
# ## How far apart are the groups?
#
# Paper S describes the gaps in a third way. Take the centroid, the mean
# embedding, of two groups, and look at the difference in each dimension,
# largest first. Paper S gives each panel its own scale; here they share one.
# And centroids of finite groups never coincide: two random halves of the
# patients, which differ in nothing, are the yardstick.

# %%
PAIRS = {
    "18-25, 80+": ("age_group", "18-25", "80+"),
    "female, male": ("sex", "F", "M"),
    "White, Black": ("race", "White", "Black"),
}
differences = {
    name: probes.group_differences(of, texts[name][0], table, PAIRS, seed)
    for name, of in images.items()
}
distances = pd.concat(
    probes.concentration(of).assign(model=name)
    for name, of in differences.items()
)

# %% tags=["hide-input"]
halves = "random halves"
shown = {name: d for name, d in differences[first].items() if name != halves}
plots.sorted_differences(shown).suptitle(first)
figure(
    "fig-embeddings-centroids",
    "Differences between the centroids of two groups, dimension by dimension "
    "and largest first, on one scale (S, Fig. 3).",
    counts=(),
)

# %% tags=["hide-input"]
share = "share of the largest tenth"
own = distances[distances["model"] == first].drop(columns="model")
show(
    own.assign(**{share: own[share].map(percent)}).reset_index(drop=True),
    f"Distance between two centroids of {first}, and how much of it the "
    "largest tenth of the dimensions carries",
    digits=3,
)

# %% tags=["remove-input"]
far, part = (own.set_index("centroids of")[c] for c in ("distance", share))
of_people = far.drop(["image, text", halves])
beyond = of_people.index[of_people > 2 * far[halves]]
largest = of_people.idxmax() if len(of_people) else "undefined"
denser = part["image, text"] > part[of_people.index].max()
say(f"""
The modality gap is {far["image, text"]:.2f},
{far["image, text"] / of_people.max():.1f} times the largest gap between groups
of patients ({largest}). Random halves are {far[halves]:.3f} apart. Pairs of
groups that are further apart than twice this: {"; ".join(beyond) or "none"}.

Paper S found the modality gap concentrated on few dimensions, as others did
{{cite:p}}`schrodi2025`, and the gaps between groups spread over many: the
first could be removed by dropping a few dimensions, the others not. Here the
largest tenth carries {"more" if denser else "not more"} of the squared
modality gap than of any gap between groups. Sorting makes any difference look
steep: of random halves it carries {percent(part[halves])}.
""")

# %% tags=["hide-input"]
by_model = distances.pivot(
    index="centroids of", columns="model", values="distance"
)
show(by_model, "Distances between centroids, all models", digits=3)

# %% tags=["remove-input"]
larger = (by_model.idxmax() == "image, text").sum()
say(f"""
The modality gap is the largest of these distances in {larger} of
{plural(by_model.shape[1], "model")}.
""")

# %% [markdown]
# ## What three probes read
#
# Table 2 of paper S: three simple classifiers try to read sex, race and age
# group from the image embedding. A linear probe (LP) draws one flat border,
# k-NN asks the nearest neighbours, a small network (MLP) may bend the border.
# A fifth of the patients is set aside for the test, a fifth of the others
# chooses the settings. Added here: age cut once at 60, and what is no part of
# the body: site or view position, and drains where they are labelled.

# %%
over_60 = (table["age"] >= 60).where(table["age"].notna())
people = table.assign(**{"over 60": over_60})
wanted = ("sex", "race", "age_group", "over 60", WAY, "drain")
read = [a for a in wanted if a in people and people[a].nunique() > 1]
found = probes.probe_table(
    {name: images[name] for name in examined}, people, read, **sampling
).assign(cohort=cohort.name)
keep(found)

# %% tags=["hide-input"]
plots.probe_bars(found)
figure(
    "fig-embeddings-probes",
    "What a linear probe, nearest neighbours and a small network read from "
    "image embeddings (S, Table 2). The foot of the bars is chance.",
)

# %% tags=["hide-input"]
show(
    found,
    "AUC of attributes read from image embeddings, on new patients",
    rows=["model", "label"],
    columns="method",
)

# %% tags=["remove-input"]
linear = schema.rows(found, method="linear")
by_method = found.groupby("method")["value"].mean().dropna().sort_values()
ranked = [f"the {listed([m])}" for m in by_method.index] or ["none of them"]
say(f"""
In {{numref}}`fig-embeddings-probes`, {ranked[-1]} reads best on average and
{ranked[0]} worst. Nobody taught the small CLIPs of this book sex or age: no
report that they have read mentions either. What can be read came along with
the picture.
""")

# %% [markdown]
# ## Beside the paper
#
# Paper S prints its Table 2 without intervals, on patients of its own.

# %% tags=["hide-input"]
theirs = published.table("S Table 2")
show(theirs, "S, Table 2", rows=["label", "method"], columns="model")

# %% tags=["remove-input"]
verdicts = published.compare(found, theirs)["verdict"].value_counts()
lp_sex, our_sex, knn_race = (
    schema.rows(of, label=label, method=method)["value"].agg(["min", "max"])
    for of, label, method in (
        (theirs, "sex", "linear"),
        (found, "sex", "linear"),
        (theirs, "race", "knn"),
    )
)
say(f"""
Verdicts on the {len(theirs)} printed values:
{listed(f"{verdict}: {n}" for verdict, n in verdicts.items())}. In paper S, the
linear probe for sex ranges from {lp_sex["min"]:.2f} to {lp_sex["max"]:.2f},
and k-NN for race from {knn_race["min"]:.2f} to {knn_race["max"]:.2f}. In this
run, with other films and other models, the linear probe for sex ranges from
{our_sex["min"]:.2f} to {our_sex["max"]:.2f}. The low values deserve caution: a
linear probe that was stopped early, or a k-NN in many dimensions, can fail on
information that is there. A probe gives a lower bound. That it reads an
attribute is proof; that it does not is none.
""")

# %% [markdown]
# ## What was planted, and was it found?
#
# In a phantom it is known what a film can give away. Every site has its
# scanner, whose signature lies in each of its films: a probe has to find it.
# Race is drawn nowhere in the body. If it can be read, then by way of the site
# at which a person was imaged.

# %% tags=["remove-input"]
at_site = schema.rows(linear, label="site")
above = (at_site["ci_low"] > 0.5).sum()
of = plural(len(at_site), "model")
verdict = f"the site is read above chance in {above} of {of}"
dials = cohort.recipe.get("dials", {})
planted = f"""
Scanners sign the films with a strength of {dials.get("site_signature", 0):g}
(0 is none), and **{verdict}**: {each(at_site)}. Race is read with
{each(schema.rows(linear, label="race"))}, although nobody's body shows it:
{percent(dials.get("site_by_race", 0))} of the patients are imaged at the site
of their race.
"""
say(planted if dials else "These are real films: nothing was planted in them.")

# %% [markdown]
# [What a probe may say](19_probes) closes this path and reads race again. It
# also shows why "the model encodes sex" does not mean "the model uses sex".
#
# ## Limits
#
# - Another probe, more patients or another layer of the network may read more.
# - Intervals come from the test patients of one split, attributes from what
#   was recorded: two sexes, bands of age, three words for race, or none.
# - Phantom bodies are simpler than real ones: AUCs say how the analysis works.

# %% tags=["remove-input"]
in_short(
    f"""
Does an embedding know who the patient is? On the map, the better axis tells
women from men with an AUC of {estimate(sex_axis)}; a linear probe on all
dimensions of {first}, tested on new patients, reads sex with {sex_all}. The
mean film and the mean text lie {far["image, text"]:.2f} apart, those of two
groups of patients at most {of_people.max():.2f}, of random halves
{far[halves]:.3f}. {f"Sites were planted: {verdict}." if dials else ""} Paper
S, on patients of its own, sees nothing on its maps either, and its linear
probes read sex with {lp_sex["min"]:.2f} to {lp_sex["max"]:.2f}.
""",
    figure="fig-embeddings-attributes",
    found=f"A probe on an embedding reads sex with an AUC of {sex_all}.",
)

# %% [markdown]
# ## Exercises
#
# ```{exercise}
# :label: ex-embeddings-erase
# Remove the difference of the two centroids by sex from every embedding
# (subtract the projection on it). Can sex still be read? By which probe?
# ```
#
# ```{solution} ex-embeddings-erase
# :class: dropdown
# With `d = z[women].mean(0) - z[men].mean(0)`, take
# `z - np.outer(z @ d, d) / (d @ d)`. The centroids now coincide, and on the
# phantom a linear probe falls to chance or, on new patients, below it. The MLP
# still reads sex well: women and men also vary in different ways around the
# same mean. Erasing an attribute is harder than shifting two means.
# ```
#
# ```{exercise}
# :label: ex-embeddings-components
# How many principal components does a linear probe need to read sex as well as
# from the whole embedding?
# ```
#
# ```{solution} ex-embeddings-components
# :class: dropdown
# Use `sklearn.decomposition.PCA(k)` for k = 2, 4, 8, 16, 32, 64 and probe
# each. On the phantom, the first handful of components brings almost nothing,
# the next dozens nearly all. Sex sits behind the strong directions, those of
# the diseases, and not at the end of the list either.
# ```
#
# ## Further reading
#
# - {cite:t}`belinkov2022`: what a probe can and cannot show, in a field that
#   has argued about it for longer.
# - {cite:t}`liang2022` and {cite:t}`schrodi2025`: where the modality gap comes
#   from, and why it sits in few dimensions.
