"""FINDINGS of made-up reports in the shapes that real ones take."""

import random
import re

import pytest

from cxrlib.cohorts.report_sections import findings, sections

BODY = "There is a small left pleural effusion. No pneumothorax."
WRAPPED = "There is a small left\n pleural effusion. No\n pneumothorax."

WITH = {
    "own paragraph": f" HISTORY:  ___F\n \n FINDINGS: \n \n {WRAPPED}\n \n IMPRESSION: \n \n No.",
    "same line": f" FINDINGS:  {WRAPPED}\n\n IMPRESSION:  No.",
    "last section": f"TECHNIQUE: Portable.\nFINDINGS: {BODY}",
    "title case": f" Findings:\n {WRAPPED}\n Impression: No.",
    "lower case": f" comparison: None.\n\n findings: {WRAPPED}\n\n impression: no.",
    "no colon, own line": f" COMPARISON: ___\n\n FINDINGS\n\n {WRAPPED}\n\n IMPRESSION\n\n No.",
    "no colon, same line": f" FINDINGS {WRAPPED}\n IMPRESSION No.",
    "blank before colon": f" FINDINGS : {WRAPPED}\n IMPRESSION : No.",
    "middle of a line": f" COMPARISON: ___. FINDINGS: {WRAPPED} IMPRESSION: No.",
    "misspelt": f" FINDIGNS: {WRAPPED}\n IMPRESSON: No.",
    "singular": f" FINDING: {WRAPPED}\n CONCLUSION: No.",
    "with impression": f" FINDINGS AND IMPRESSION:  {WRAPPED}\n",
    "with a slash": f" FINDINGS/IMPRESSION:\n {WRAPPED}\n",
    "impression first": f" IMPRESSION AND FINDINGS: {WRAPPED}",
    "films described": f" PA AND LATERAL CHEST RADIOGRAPHS, ___:  {WRAPPED}\n IMPRESSION: No.",
    "films described, then named": f" CHEST, TWO VIEWS: ___\n FINDINGS: {BODY}",
    "empty, films below": f" FINDINGS:\n PORTABLE AP CHEST RADIOGRAPH: {WRAPPED}\n IMPRESSION: No.",
    "final report": f"      FINAL REPORT\n EXAMINATION: CHEST (PA AND LAT)\n FINDINGS: {BODY}",
    "wet read": " WET READ: ___\n  FINDINGS: Tubes in place.\n ________________\n"
    f"      FINAL REPORT\n FINDINGS: {WRAPPED}\n",
    "addendum after": f" FINDINGS: {BODY}\n ADDENDUM  Discussed by telephone.\n",
    "addendum before": f" FINAL REPORT\n ADDENDUM Called.\n ___\n FINAL REPORT\n FINDINGS: {BODY}",
    "drawn lines": f" FINDINGS:\n ___________________\n {WRAPPED}\n ____________\n IMPRESSION: No.",
    "notification": f" FINDINGS: {BODY}\n NOTIFICATION: Dr. ___ at 5:00 p.m.",
    "long preamble": " HISTORY: " + "Pain and more pain, of ___. " * 60 + f"\n FINDINGS: {BODY}\n",
    "carriage returns": WRAPPED.join([" FINDINGS:\n ", "\n\n IMPRESSION: No."]).replace(
        "\n", "\r\n"
    ),
}
WITHOUT = {
    "impression only": " INDICATION: Cough.\n\n IMPRESSION:  No acute process in this chest.",
    "bare paragraph": "  FINAL REPORT\n CHEST RADIOGRAPH PERFORMED ON ___\n\n The lungs are clear.",
    "empty": " FINDINGS: \n\n IMPRESSION: Normal radiograph of the chest.",
    "films and a date": " CHEST, TWO VIEWS: ___\n HISTORY: Cough.\n IMPRESSION: None.",
    "nothing": "",
    "in a sentence": " IMPRESSION: No change in\n the following findings: none of note.",
    "wrapped line": " IMPRESSION: As told, there are no new\n findings\n of note.",
}


@pytest.mark.parametrize("text", WITH.values(), ids=WITH)
def test_findings(text):
    assert findings(text) == BODY


@pytest.mark.parametrize("text", WITHOUT.values(), ids=WITHOUT)
def test_no_findings(text):
    assert findings(text) is None


def test_parts_inside_findings_stay_there():
    text = " FINDINGS:\n LUNGS: Clear.\n HEART: Normal, of ___ cm.\n IMPRESSION: Normal."
    assert findings(text) == "LUNGS: Clear. HEART: Normal, of ___ cm."


# --- a few hundred reports made of parts, whose sections are known ------------------------------

HEADERS = {  # section to the ways in which it is headed
    "findings": """FINDINGS; FINDING; FINDINGS AND IMPRESSION; FINDINGS/RECOMMENDATIONS
        FINDINGS AND RECOMMENDATIONS; FINDINGS (PORTABLE); FINDINGS BY SYSTEM; FINDINGS & NOTE""",
    "before": """INDICATION; CLINICAL HISTORY; REASON FOR EXAM; COMPARISON; TECHNIQUE; EXAMINATION
        COMPARISON FILM; COMPARISON CHEST RADIOGRAPHS; PRIOR CHEST FILMS; HISTORY FOR CHEST X-RAY
        REASON FOR CHEST VIEWS; TYPE OF EXAMINATION; ORDERED BY""",
    "after": """IMPRESSION; CONCLUSION; RECOMMENDATIONS; NOTIFICATION; PFI; NOTE; CC; SUMMARY
        IMPRESSION AND PLAN; RECOMMENDATION(S); COMMUNICATION OF CRITICAL FINDINGS; DICTATED BY
        COMPARISON CHEST RADIOGRAPH; NOTIFICATION OF FINDINGS""",
}
OF_FINDINGS = (  # in one line each; what a line of a wrapped one can begin with is in them
    "In comparison with the study of ___, there is no change.",
    "LUNGS: Clear. PLEURA: No effusion.\n CARDIAC SILHOUETTE: Normal, at 5:30 p.m.",
    "The findings\n comparison with which was made\n impression of the catheter: none.",
    "LINES AND TUBES: The tube ends\n SVC: as before.\n OSSEOUS STRUCTURES: Intact.",
    "There is a small left\n pleural effusion.",
)
ELSEWHERE = (
    "Rule out pneumonia; see the\n findings: of note.",
    "___ year old\n findings\n and more.",
    "As told, no new\n FINDINGS were seen by Dr. ___ at 5:30 PM.",
    "THE NEW\n FINDINGS WERE TOLD TO DR. ___ AT 5:30 PM.",
    "None.",
)


def misspelt(header, rng):
    """One inner letter of a longer word lost, doubled, changed, or changed places with the next."""
    words = header.split(" ")
    long = [i for i, word in enumerate(words) if word.isalpha() and len(word) > 6]
    if not long:
        return header
    word = words[i := rng.choice(long)]
    k = rng.randrange(1, len(word) - 2)
    a, b = word[k], word[k + 1]
    new = rng.choice((a, a + a + b, "O" + b, b + a))
    words[i] = word[:k] + (b if new == a else new) + word[k + 2 :]
    return " ".join(words)


def made_up(rng):
    """A report, and its FINDINGS in one line (None where it has none)."""
    has = rng.random() < 0.7
    order = [("before", rng.choice(ELSEWHERE)) for _ in range(rng.randrange(3))]
    order += [("findings", rng.choice(OF_FINDINGS))] * has
    order += [("after", rng.choice(ELSEWHERE)) for _ in range(rng.randrange(not has, 3))]
    text = "                 FINAL REPORT\n" * rng.randrange(2)
    for kind, body in order:
        header = rng.choice(re.split(r"; |\n +", HEADERS[kind]))
        if rng.random() < 0.4:
            header = misspelt(header, rng)
        if rng.random() < 0.2 and "\n" not in header and header in ("FINDINGS", "IMPRESSION"):
            header = header.title()
        between = rng.choice(("  ", " \n \n ", "\n "))
        text += f" {header}{rng.choice((':', ' :'))}{between}{body}\n" + " \n" * rng.randrange(2)
    bodies = [" ".join(body.split()) for kind, body in order if kind == "findings"]
    return text, bodies[0] if bodies else None


def test_reports_made_of_parts():
    rng = random.Random(7)
    wrong = [text for text, known in (made_up(rng) for _ in range(600)) if findings(text) != known]
    assert not wrong, f"{len(wrong)} of 600, such as\n{wrong[0]}"


@pytest.mark.parametrize(
    ("text", "body"),
    [
        (" FINDINGS - Clear lungs.\n IMPRESSION - No.", "Clear lungs."),
        (" Finidngs: Clear lungs.\n Impresion: No.", "Clear lungs."),
        (" COMPARISON: ___. FINIDNGS: Clear lungs. IMPRESION: No.", "Clear lungs."),
        (
            " COMPARISION\n\n None.\n\n FINDNGS\n\n Clear lungs.\n\n IMPRESION\n\n No.",
            "Clear lungs.",
        ),
        (" INDICATION: COUGH.\n\n FINDINGS: CLEAR LUNGS.\n\n IMPRESSION: NO.", "CLEAR LUNGS."),
        (" INDICATION: COUGH.\n\n FINDINGS ARE AS TOLD.\n\n IMPRESSION: NO.", None),
        (" PRIOR CHEST RADIOGRAPHS: Of last week, there were two of them.\n", None),
        (
            " PORTABLE CHEST, ___ AT 5:30 PM: The lungs are clear as before.",
            "The lungs are clear as before.",
        ),
        (" CHEST PORT. LINE PLACEMENT: The lungs are clear now.", "The lungs are clear now."),
        (" FINDINGS: Clear.\n CHEST TUBES: None.\n FILMS: Two.", "Clear. CHEST TUBES: None."),
        (" RECOMMENDATIONS FOR INCIDENTAL FINDINGS: Chest CT in a year.", None),
    ],
)
def test_single_shapes(text, body):
    assert findings(text) == body


def test_misspelt_names_are_mended():
    text = (
        " INDICTAION: Cough.\n COMPARISION: None.\n FINIDNGS: Clear.\n PFI: So.\n IMORESSION: No."
    )
    assert sections(text) == {
        "indication": "Cough.",
        "comparison": "None.",
        "findings": "Clear.",
        "pfi": "So.",
        "impression": "No.",
    }


def test_sections_lose_no_word():
    text = WITH["wet read"]
    found = sections(text)
    assert list(found) == ["preliminary", "findings"]
    assert found["preliminary"] == "WET READ: ___ FINDINGS: Tubes in place."
    report = " INDICATION: Cough.\n COMPARISON:\n None.  FINDINGS: Clear.\n INDICATION: Fever."
    assert sections("Doctor ___\n" + report) == {
        "preamble": "Doctor ___",
        "indication": "Cough. Fever.",
        "comparison": "None.",
        "findings": "Clear.",
    }
