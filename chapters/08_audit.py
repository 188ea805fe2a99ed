# ---
# jupyter:
#   chapter:
#     answers:
#       S 2.1: fig-audit-length
#       S 2.2: ''
#       S 2.3: ''
#       S 2.4: ''
#       S 4: ''
#       S Fig. 4b: fig-audit-prevalence
#       S Table 1: ''
#     goals:
#     - read a paper beside its code, and say which choices matter
#     - tell what the unit of resampling does to an interval
#     - show that a metric is not free of what it adjusts for
#     needs:
#     - 02_zero_shot
#     - 04_subgroup_fairness
# ---

# %% [markdown]
# # Audit: what the papers say, what their code does, what open data show
#
# *Answers sections 2 and 4 of {cite:t}`sourget2025`, paper S, with its public
# code. {cite:t}`sun2025`, paper X, which has no public code, has a chapter of
# its own: [The audit of X](21_audit_x).*
#
# The head of a radiology department has both papers on her desk. One says that
# models do worse without chest drains, the other that fine-tuning makes some
# models less fair. She has to decide by Friday whether to buy. If she trusts a
# gap that is noise, she sends back a model that would have helped; if she
# waves away a gap that is real, some of her patients pay for it. Before she
# acts on a number she asks what a careful reader of any trial asks: **whose
# images were these, what exactly was computed, and could it be chance?**
#
# An audit helps to read; it does not accuse. Every study makes dozens of
# choices that no page limit has room for, and both groups deserve thanks for
# making theirs checkable: S by publishing its code and result files, X by
# giving recipe and exception precisely enough to be rebuilt. Here each choice
# that matters is named, and its effect is computed wherever open data or
# arithmetic allow it. All of them stand together in the register at the end of
# the chapter; readers in a hurry begin there.

# %% tags=["parameters"]
models: str = "phantom-resnet"  # a name of `cxrbook models`: the one examined
seed: int = 1907  # [0, 1000000] of the phantom cohort, of draws and splits
n_patients: int = 4000  # [100, 30805] of NIH, on whom intervals are shown
n_images: int = 1500  # [60, 17000] images in the phantom cohort
n_resamples: int = 300  # [2, 100000] bootstrap resamples
n_splits: int = 8  # [1, 1000] splits of patients for the probes

# %% tags=["remove-cell"]
from cxrlib.book.chapters import check

check(globals())

# %% [markdown]
# It takes one model, phantoms, and the metadata of NIH ChestX-ray14.

# %% tags=["hide-input"]
import numpy as np
import pandas as pd

from cxrlib import cohorts, schema
from cxrlib.cohorts import metadata, nih6x200
from cxrlib.cohorts.metadata import S_FINDINGS
from cxrlib.embed.extract import embed
from cxrlib.models import choose_models, load_model, published_models
from cxrlib.models.registry import entrances
from cxrlib.papers import audit, published
from cxrlib.predict.zeroshot import POSITIVE
from cxrlib.protocol import NAMES, differences, protocol_of
from cxrlib.show import plots
from cxrlib.show.notebook import figure, quiz, show, warn_if_seeded
from cxrlib.show.say import in_short, say
from cxrlib.show.words import fmt, fmt_row, percent, plural, readable, span
from cxrlib.stats import metrics, probes, simulate
from cxrlib.stats.as_published import performance_by_protocol

# %%
first = choose_models(models)[0]
as_published, corrected = map(protocol_of, NAMES)
warn_if_seeded([first])
cohort = cohorts.load("phantom", n_images=n_images, seed=seed)
nih = cohorts.load("nih-metadata").table

# %% [markdown]
# ## One object carries every switch
#
# Where the code of a paper, its text, the authors of a model or statistics
# disagree, this book offers both forms by name. `protocol="as_published"` is
# what a printed number came from, `protocol="corrected"` what the models'
# authors prescribe or statistics ask for. Neither is the truth; the difference
# between them is a finding.

# %% tags=["hide-output"]
switches = differences().replace("all", "all digits")
show(switches, "The switches between the two protocols")

# %% tags=["remove-input"]
sizes = published.table("S Section 2.3").set_index(["cohort", "metric"])
sizes = sizes.loc["mimic-cxr-sourget", "value"].astype(int)
said, used = sizes["n_images"], sizes["n_images_with_findings_text"]
OFFICIAL = {"images": 5159, "reports": 3269}  # test split, MIMIC-CXR-JPG
say(f"""
There are {len(switches)} of them, in the folded table with reason and source;
the rest of this chapter asks what they are worth. A single one can be turned
too: `replace(protocol_of("corrected"), unit="image")`.
The page [Parameters](../parameters.md) shows which chapters take the protocol.

## Which images?

S works on the part of MIMIC-CXR {{cite:p}}`johnson2019` that it calls the
original test split. The paper counts {said:,} images, of which {used:,} have a
FINDINGS section. The test split in the official file, which this book uses
where a reader has access, has {OFFICIAL["images"]:,} images with
{OFFICIAL["reports"]:,} reports, so that even all of it is smaller than what
the paper *keeps*. The table that its code reads is made by no public script:
the cohort cannot be rebuilt. Nothing suggests that the results are wrong; they
belong to a selection that only its authors can describe.
""")

# %% [markdown]
# ## Where intervals come from
#
# An interval in S comes from the *bootstrap*: images are drawn again with
# replacement, many times, and the metric is computed anew each time
# ([Zero-shot](02_zero_shot)). S draws images, not patients, and one stream of
# random numbers runs through findings, groups and metrics in turn. What that
# does shows best on real patients. Pixels of NIH ChestX-ray14 are not at hand,
# but its metadata are, so here is a "model" that knows nothing of a film but
# the age of the patient. Whether it is any good is not the question; how sure
# one may be of its AUC is.

# %%
rng = np.random.default_rng(seed)
some = rng.permutation(nih["patient_id"].unique())[:n_patients]
part = nih[nih["patient_id"].isin(some) & nih["age_group"].notna()]
about = ["image_id", "patient_id", "sex", "age_group", "age"]
by_age = part.melt(about, list(S_FINDINGS), "label", "y_true").assign(
    cohort="nih-metadata", model="age alone", method="none"
)
by_age["score"] = by_age["age"] / 120
ATTRIBUTES = {"sex": ["F", "M"], "age_group": list(metadata.AGE_GROUPS)}
sampling = {"n_resamples": n_resamples, "seed": seed}
both = [
    performance_by_protocol(by_age, ATTRIBUTES, p, **sampling) for p in NAMES
]
both = pd.concat(both, ignore_index=True)

# %% tags=["hide-input"]
single = schema.rows(both[both["label"] != "mean"], metric="auc")
shown = single[(single["label"] == "Pneumonia") | (single["group"] == "all")]
cells = schema.wide(shown, ["label", "group"], "protocol")
counts = schema.rows(shown, protocol="corrected")["n_positive"]
cells.insert(0, "positives", counts.to_numpy())
what = "AUC of the age alone under both protocols, NIH ChestX-ray14"
show(cells.rename_axis(["finding", "group"]), what)

# %% tags=["remove-input"]
width = single.assign(width=single["ci_high"] - single["ci_low"])
width = width.pivot_table("width", ["label", "group"], "protocol")
wider = (width["corrected"] / width["as_published"]).replace(np.inf, np.nan)
wider = wider.dropna().sort_values()
every = schema.rows(single, protocol="as_published")
few = every[every["value"].notna()].sort_values("n_positive")
few = few[few["n_positive"] < corrected.min_cases]
scarcest = [
    f"{r['label']}, {readable(r['group'])}: {fmt_row(r)} from "
    f"{plural(r['n_positive'], 'positive image')}"
    for _, r in few.head(1).iterrows()
]
whole = {"label": "mean", "group": "all"}
spread = schema.row(both, metric="auc_sd_over_labels", **whole)["value"]
mean = schema.row(both, metric="auc", protocol="corrected", **whole)
where = [", ".join(map(readable, at)) for at in wider.index[-1:]]
say(f"""
But for rounding, the AUC itself is the same under both protocols; its interval
is not. Drawn as whole patients, with
{len(part) / part["patient_id"].nunique():.1f} images each on average, and read
off with expanded limits, the data give intervals {fmt(wider.median(), 1)}
times as wide (median over all findings and groups), and up to
{fmt(wider.max(), 1)} times ({"".join(where)}). Many films of one patient look
alike; drawn image by image they pass for as many witnesses.
[Do the intervals cover?](09_coverage) counts how often they hold the truth.

As published, {len(few)} of {len(every)} AUC values rest on fewer than
{corrected.min_cases} positive images. The scarcest:
{"".join(scarcest) or "there is none"}. An interval from so few films can look
tight and still know nothing. Corrected, such cells stay in the table without a
number and say why.

The "±" behind a mean in S's Table 1 is the spread between findings,
{spread:.3f} here. Half the interval of that mean over patients is
{(mean["ci_high"] - mean["ci_low"]) / 2:.3f}. They answer different questions.
""")

# %% [markdown]
# ### Intervals that exclude their own estimate
#
# An older version of the code cut limits to [0, 1]. But adjusted AUPRC goes
# below 0, wherever scores rank films worse than chance. What the cut does to
# the limits of this run:

# %%
below = schema.rows(both, protocol="as_published", metric="adjusted_auprc")
below = below[(below["value"] < 0) & (below["label"] != "mean")]
cut = below[["ci_low", "ci_high"]].clip(0, 1)
excluded = (below["value"] < cut["ci_low"]) | (below["value"] > cut["ci_high"])

# %% tags=["remove-input"]
table_1 = published.table("S Table 1")
n_printed = table_1["ci_low"].notna().sum()
outside = schema.rows(
    published.compare(both, table_1), verdict=published.CONTRADICTED
)
say(f"""
As published, {len(below)} adjusted AUPRCs of the age alone are negative. With
limits cut to [0, 1], {excluded.sum()} of them lie outside their interval. Of
the {n_printed} intervals of S's Table 1, {len(outside)} exclude the value in
front of them ({", ".join(outside["model"].unique())}:
{", ".join(outside["label"].unique())}). They carry the mark of the cut; the
estimates are untouched.
""")

# %% [markdown]
# ## "Adjusted" for prevalence, but not free of it
#
# S compares pneumothorax with drains and without by adjusted AUPRC. The two
# arms differ in prevalence, the share of films with the disease, and the
# adjustment $1 - \log\mathrm{AUPRC} / \log\pi$ is meant to take the prevalence
# $\pi$ out. Does it? Take a test whose scores are normal in the ill and in the
# healthy, with the same spread: its ROC curve is known, and average precision
# follows for any prevalence by an integral, which `simulate.population` takes.
# Here the truth is planted: same test, same ROC curve, only the prevalence
# changes.


# %%
def adjusted_auprc(auc, prevalence):
    return simulate.population(auc, prevalence)["adjusted_auprc"]


# prevalences in S's result files
ARMS = {"without drain": 0.04, "with drain": 0.07}
by_auc = pd.DataFrame({"AUC of the test": [0.6, 0.7, 0.8, 0.9, 0.95]})
for arm, share in ARMS.items():
    by_auc[f"{arm}, {percent(share)}"] = [
        adjusted_auprc(auc, share) for auc in by_auc["AUC of the test"]
    ]
by_auc["difference"] = by_auc.iloc[:, 2] - by_auc.iloc[:, 1]
what = "Adjusted AUPRC of one and the same test at the prevalences of S's arms"
show(by_auc, what)

# %% tags=["hide-input"]
curves = pd.DataFrame({"prevalence": np.geomspace(0.005, 0.5, 40)})
for auc in (0.6, 0.7, 0.8, 0.9):
    curves[f"AUC {auc}"] = [
        adjusted_auprc(auc, share) for share in curves["prevalence"]
    ]
axis = curves.plot("prevalence", logx=True, ylim=(0, 1.2), figsize=(4.2, 3.2))
axis.set(ylabel="adjusted AUPRC", xlabel="prevalence (log scale)")
axis.set_xticks([0.01, 0.1, 0.5], ["1 %", "10 %", "50 %"])
for share in ARMS.values():
    axis.axvline(share, color="#D55E00", lw=1, ls="--")
figure(
    "fig-audit-prevalence",
    "One ROC curve, many adjusted AUPRCs. Each line is one test at all "
    "prevalences; the dashed lines mark the prevalences of S's two drain "
    "arms.",
    alt="Adjusted AUPRC over prevalence, one line for each ROC curve: "
    + "; ".join(f"{a} {span(line)}" for a, line in curves.items()),
    table=curves,
)

# %% tags=["remove-input"]
drains = published.table("S Fig. 4b")["value"]
say(f"""
Were the metric free of prevalence, the lines of
{{numref}}`fig-audit-prevalence` would be level, and the planted difference of
zero would come out as zero. Prevalence alone moves adjusted AUPRC by
{span(by_auc["difference"])} between the two arms. S prints gaps of
{span(drains)} for five models. The smallest of them can be prevalence up to
{percent(by_auc["difference"].max() / drains.min())}; the largest cannot be
explained in this way. The direction of the finding stands, its size needs arms
of equal prevalence. The arms raw, matched and with controls free of drains:
[A detector for the controls](16_drain_detector). CXR-CLIP is the exception
that the abstract's "all models" passes over and the results section names.
""")

# %% [markdown]
# ## Texts of different length
#
# CLIP compares directions: both embeddings are brought to length 1. In S's
# code the text embeddings of BioViL and BioViL-T keep their length, so the
# longer prompt counts for more. That changes not the scale but the *ranking*
# of films, and with it AUC. Any model can play this too, and the ratio of the
# two lengths can be set to anything.

# %%
clip = load_model(first).members[0]
z = embed(cohort, clip)
prompts = [POSITIVE.format(label=label) for label in S_FINDINGS]
prompts.append(corrected.negative_prompt)
encoded = clip.encode_text(prompts, raw=True).numpy()
length = np.linalg.norm(encoded, axis=1, keepdims=True)
unit = encoded / length
TEXTS = {"as encoded": encoded, "unit length": unit}


def auc_of(texts, k):
    score = z @ (texts[k] - texts[-1])
    return metrics.auc(cohort.table[S_FINDINGS[k]], score)


text_auc = pd.DataFrame(
    {"finding": S_FINDINGS, "length of its prompt": length[:-1, 0]}
)
for p in (as_published, corrected):
    texts = TEXTS[p.text_vectors]
    text_auc[f"AUC, {readable(p.name)}"] = [
        auc_of(texts, k) for k in range(len(S_FINDINGS))
    ]
show(text_auc, f"AUC by the length of text embeddings, {first}", digits=3)

# %% tags=["hide-input"]
ratios = np.geomspace(0.25, 4, 17)
bent = pd.DataFrame(index=pd.Index(ratios, name="ratio of lengths"))
for k, label in enumerate(S_FINDINGS):
    bent[label] = [
        metrics.auc(cohort.table[label], z @ (ratio * unit[k] - unit[-1]))
        for ratio in ratios
    ]
line = bent.rename_axis(columns="finding").stack().rename("value")
line = line.reset_index().assign(metric="auc", ci_low=line.to_numpy())
line["ci_high"] = line["value"]
xlabel = "length of the finding's prompt / length of the other"
fig = plots.dose_response(line, "ratio of lengths", "finding", xlabel)
fig.axes[0].set_xscale("log", base=2)
fig.axes[0].axvline(1, color="#888888", lw=1)
figure(
    "fig-audit-length",
    f"AUC of {first} when the prompt of the finding is longer (right) or "
    "shorter (left) than that of no finding. The vertical line marks equal "
    "lengths.",
    table=bent.reset_index(),
)

# %% tags=["remove-input"]
moved = (text_auc.iloc[:, -1] - text_auc.iloc[:, -2]).abs().max()
fall = (bent.max() - bent.min()).sort_values()
lengths = span(pd.Series(length[:, 0]), digits=1)
say(f"""
The lengths of this model's prompts run from {lengths}, and leaving them in
moves AUC by {moved:.3f} at most. How much it would move for another model
depends on how unlike its lengths are, and nothing in training keeps them
alike. Over the ratios in {{numref}}`fig-audit-length`, AUC moves by up to
{fall.max():.2f} ({fall.index[-1]}).
""")

# %% [markdown]
# ## The same film, prepared otherwise
#
# A network expects films as it saw them in training: so many pixels, cut or
# padded in one way, and grey levels brought to one mean and spread. The code
# of S prepares films for some models in another way than their authors do.
# What that does can be computed without any weights: a phantom film, upright
# as films of chests often are, and what enters the network.

# %%
square = cohorts.load("phantom", n_images=60, seed=seed, size=512)
upright = square.images([0])[0][:, 56:456]
inputs = entrances(upright)
what = "One film at the entrance of the network, as the authors and as S do it"
show(inputs, what, missing="other size")

# %% tags=["remove-input"]
off = (inputs["off by"] / inputs["SD, authors"]).astype(float)
entrance = f"{fmt(off.max())} SD ({inputs['model'][off.idxmax()]})"
say(f"""
It concerns {len(inputs)} of {len(published_models())} models; "off by" is the
mean absolute difference of their pixels. In standard deviations (SD) of the
authors' input, a pixel is off on average by up to {entrance}: as if the film
had been exposed otherwise. Whether a network minds can be computed only with
its weights: `protocol="as_published"`, in a chapter that takes it and with the
files in place, shows it.
""")

# %% [markdown]
# ## Probabilities near one half
#
# A CLIP learns a factor, the *logit scale* (the inverse of a temperature), by
# which cosines are multiplied before they become probabilities. Without it,
# the softmax sees the bare difference of two cosines, between −2 and 2.

# %%
low, high = 1 / (1 + np.exp([2, -2]))
wordings = as_published.negative_prompt, corrected.negative_prompt
one, other = (clip.tokenizer([text]).ids.tolist() for text in wordings)

# %% tags=["remove-input"]
say(f"""
So every probability lies between {low:.2f} and {high:.2f}, whatever the film
shows. In S that holds for CheXzero and CXR-CLIP. The factor of BioViL and
BioViL-T is left out too, but there the length of the texts takes its place,
and no such bound holds. [Calibration](07_calibration) draws the curves with
and without. The other prompt is written "{wordings[1]}" in the paper and
"{wordings[0]}" in the code; for {first} these are
{"the same" if one == other else "different"} tokens. A tokenizer that keeps
case tells them apart.
""")

# %% tags=["remove-input"]
quiz(
    "S's code leaves out the learned factor for four models. What does that "
    "change?",
    {
        "AUC and the probabilities": (
            False,
            "The factor is positive, so the order of the films stays, and "
            "AUC sees nothing but the order.",
        ),
        "The probabilities, not AUC": (
            True,
            f"They are pressed into {low:.2f} to {high:.2f}. Each film keeps "
            "its rank.",
        ),
        "Nothing, since softmax normalises": (
            False,
            "The two sum to 1. How far apart they are depends on the factor.",
        ),
    },
)

# %% [markdown]
# ## Probes tuned on other films
#
# In the code behind Table 2, the rows on which a probe's setting is chosen are
# mixed up, as [What a probe may say](19_probes) explains. One split may be
# lucky, so here are several, with k-NN, which lets the nearest films vote,
# reading the sex of the patient:

# %%
draws = probes.tuning_compared(
    z, cohort.table, "sex", "knn", range(seed, seed + n_splits)
)

# %% tags=["remove-input"]
loss = draws["matched"] - draws["mismatched"]
worst = max(loss.dropna(), key=abs, default=np.nan)
cost = "is undefined, with so few films"
if loss.notna().any():
    cost = "cost performance" if loss.mean() > 0 else "cost none"
tuning = fmt(loss.mean(), 3, signed=True)
say(f"""
On average over {n_splits} splits by patient, {percent(draws["own"].mean())} of
the labels keep their own embedding, and {percent(draws["test"].mean())} of the
embeddings come from test films. Tuning on the right rows changes the test AUC
by {tuning} on average and {fmt(worst, 3, signed=True)} at most. Splits in
which it is higher, equal and lower: {(loss > 0).sum()}, {(loss == 0).sum()}
and {(loss < 0).sum()}. The reported test AUC itself is computed on the right
rows, so the slip can choose a poor setting but cannot invent performance. On
average it {cost} here.

The panels of Fig. 2 for single attributes mix axes of two projections; the
same chapter draws both versions.
""")

# %% [markdown]
# ## The register
#
# What cannot be computed here without the papers' images is listed too, with
# its source: the code and the result files that the authors of S publish. Each
# entry says what the paper says, what its code or open data show, and how far
# it moves a result. Those of X are computed in [The audit of X](21_audit_x).

# %% tags=["hide-input"]
size = schema.rows(published.table("X Section 2.1"), cohort="nih-cxr14")
size = size.set_index("metric")["value"]
satisfies = nih6x200.cell_counts(nih)["satisfies"]
patients = nih["patient_id"].nunique()
register = audit.register(
    "S",
    "X",
    said=f"{said:,}",
    official=f"{OFFICIAL['images']:,}",
    low_arm=percent(min(ARMS.values())),
    high_arm=percent(max(ARMS.values())),
    by_prevalence=span(by_auc["difference"]),
    moved=fmt(moved, 3),
    bent=fmt(fall.max()),
    entrance=entrance,
    low=fmt(low),
    high=fmt(high),
    tuning=tuning,
    outside=len(outside),
    printed=n_printed,
    wider=fmt(wider.median(), 1),
    satisfying=satisfies.sum(),
    findings=len(satisfies),
    size_said=f"{size['n_images']:,.0f} / {size['n_patients']:,.0f}",
    size=f"{len(nih):,} / {patients:,}",
)
show(register, "The register of the audit")

# %% tags=["remove-input"]
stated = (register["effect"] == audit.STATED).sum()
say(f"""
Of the {len(register)} entries, {stated} rest on reading alone; for the others
the effect was computed, here or in the chapter that is named.
""")

# %% [markdown]
# ## Limits
#
# - S could be audited deeper than X because it published more. A long list of
#   entries is the reward of openness: most are small slips in honest work.
#   Auditors slip too, and corrections are welcome.
# - Effects are shown on phantoms, on metadata and by arithmetic. How far a
#   switch moves the paper's own tables takes its images and weights, and a
#   list of images that is not public.
# - Age alone is a poor "model": its intervals show what the unit of resampling
#   does, not how wide those of a good model are.

# %% tags=["remove-input"]
in_short(
    f"""
Which of the choices in S's code move a result? Some change the scale alone
(without the logit scale, probabilities stay within {low:.2f} to {high:.2f}),
some the ranking (lengths of texts: AUC by up to {moved:.3f} for {first}), some
only the uncertainty (resampling patients makes intervals
{fmt(wider.median(), 1)} times as wide on real metadata). Planted: one and the
same test at the prevalences of S's two drain arms, so a true gap of 0. In
adjusted AUPRC it is {span(by_auc["difference"])}; S prints gaps of
{span(drains)}.
""",
    figure="fig-audit-prevalence",
)

# %% [markdown]
# ## Exercises
#
# ```{exercise}
# :label: ex-audit-parameter
# Run the chapter with `-p n_patients=500` and with `-p n_patients=16000`.
# Predict for each: are the corrected intervals narrower or wider, are there
# more or fewer undefined cells, and does the ratio of corrected to published
# widths change as much?
# ```
#
# ```{solution} ex-audit-parameter
# :class: dropdown
# With fewer patients the intervals widen under both protocols and more cells
# fall below the fewest cases that a number needs, most of all among the
# youngest and the oldest; with more patients the reverse. The ratio of widths
# depends far less on their number: it comes from how many films each of them
# has and how alike these are. Where few patients are left it wobbles.
# ```
#
# ```{exercise}
# :label: ex-audit-switch
# Turn single switches of `protocol_of("corrected")` back with `replace` and
# evaluate the metadata table of this chapter. Which one alone makes it look
# most like the one as published?
# ```
#
# ```{solution} ex-audit-switch
# :class: dropdown
# The unit of resampling, by far: the intervals become about half as wide. Try
# it with `performance_by_protocol(by_age, ATTRIBUTES, replace(corrected,
# unit="image"))`, and so on for the others. `min_cases=0` fills the empty
# cells, `digits=2` rounds, `interval="percentile"` narrows intervals a little,
# most of all in small groups. `stream="running"` changes every limit a little
# and no estimate: noise of the bootstrap itself, which more resamples remove.
# ```
#
# ```{exercise}
# :label: ex-audit-own
# Take the last paper you wrote or read. List its switches: unit of resampling,
# split, minimum group size, correction for many comparisons, rounding,
# handling of missing labels. Which can be read off the text, which only off
# the code, which not at all?
# ```
#
# ```{solution} ex-audit-own
# :class: dropdown
# There is no model answer. In the two papers here, the unit of resampling is
# found in S's code only, the unit of X's split not at all, the minimum group
# size is none, and no correction is mentioned in either. A table such as the
# first one of this chapter fits into any supplement.
# ```
#
# ## Further reading
#
# - {cite:t}`varoquaux2022`: how studies of medical images go astray, from data
#   to publication.
# - {cite:t}`pineau2021`: a checklist for papers, and what it changed.
# - {cite:t}`mosquera2024`: metrics under class imbalance, among them the
#   adjusted AUPRC.
