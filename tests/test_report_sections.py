"""FINDINGS of made-up reports in the shapes that real ones take."""

import time

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


def test_five_thousand_reports_a_second():
    texts = [text + " The lungs are clear.\n" * 30 for text in [*WITH.values(), *WITHOUT.values()]]
    assert sum(map(len, texts)) / len(texts) > 700  # characters, as real ones
    start = time.process_time()
    for _ in range(40):
        for text in texts:
            findings(text)
    assert 40 * len(texts) / (time.process_time() - start) > 5000
