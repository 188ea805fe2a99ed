"""The pages of the built book in a browser, as a reader meets them.

Every page is opened over a loopback server and from disk; no other host can be reached. Each check
is a function that lists problems, and `test_checks_find_planted_faults` shows that it finds them.
Pages of another edition: ``CXRBOOK_HTML=_build/student/html``.
"""

import contextlib
import functools
import os
import re
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urldefrag, urlsplit

import pytest
from bs4 import BeautifulSoup
from playwright.sync_api import TimeoutError as PlaywrightTimeout
from playwright.sync_api import sync_playwright

from cxrlib.book import pdf

ROOT = Path(__file__).resolve().parents[1]
HTML = ROOT / os.environ.get("CXRBOOK_HTML", "_build/html")
PAGES = sorted(
    path.relative_to(HTML).as_posix()
    for path in HTML.rglob("*.html")
    if "_static" not in path.relative_to(HTML).parts
) or ["index.html"]
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
MB = 2**20
# From disk, Chromium refuses the fonts that the theme wants beforehand; no page needs them.
FONT = re.compile(
    r"^Access to font at 'file://|"
    r"^(failed:|Failed to load resource: net::ERR_FAILED) file://\S+/fontawesome/\S+\.woff2$"
)


# --- the browser -------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def book():
    if not (HTML / "index.html").is_file():
        pytest.fail(f"no book in {HTML.relative_to(ROOT)}: run make book", pytrace=False)


@pytest.fixture(scope="module")
def browser():
    options = ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--disable-gpu"]
    root = hasattr(os, "getuid") and os.getuid() == 0  # for whom Chromium has no sandbox
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=pdf.browser(), args=options, chromium_sandbox=not root
        )
        yield browser
        browser.close()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@contextlib.contextmanager
def serving(folder):
    handler = functools.partial(Quiet, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def server():
    with serving(HTML) as url:
        yield url


# Remembers what listens to clicks and what is copied, before any script of the page runs.
LISTENERS = """
window.clickable = [];
const listen = EventTarget.prototype.addEventListener;
EventTarget.prototype.addEventListener = function (type, ...rest) {
  if (type === "click" && this instanceof Element) window.clickable.push(this);
  return listen.call(this, type, ...rest);
};
window.copies = 0;
addEventListener("copy", (event) => {
  window.copies += 1;
  window.copied = event.target.value;
});
"""


@contextlib.contextmanager
def window(browser, **options):
    """A page with nothing in it yet, and what goes wrong on it: `page` and `problems`."""
    context = browser.new_context(**{"viewport": DESKTOP, "reduced_motion": "reduce"} | options)
    context.add_init_script(LISTENERS)
    page, problems = context.new_page(), []
    page.on("request", lambda r: foreign(r.url) and problems.append(f"request to {r.url}"))
    page.on("response", lambda r: r.status >= 400 and problems.append(f"{r.status}: {r.url}"))
    page.on("requestfailed", lambda r: lost(r) and problems.append(f"failed: {r.url}"))
    page.on("pageerror", lambda error: problems.append(f"script error: {error}"))
    page.on("console", lambda said: said.type == "error" and problems.append(in_console(said)))
    yield SimpleNamespace(page=page, problems=problems)
    context.close()


def go(page, url):
    page.goto(url, wait_until="load")
    page.add_style_tag(content="* { animation: none !important; transition: none !important; }")
    page.evaluate("() => window.MathJax?.startup?.promise")


@contextlib.contextmanager
def opened(browser, url, **options):
    """A page that was opened in a window of its own."""
    with window(browser, **options) as seen:
        go(seen.page, url)
        yield seen


def foreign(url):
    parts = urlsplit(url)
    return parts.scheme not in ("file", "data", "blob") and parts.hostname != "127.0.0.1"


def lost(request):
    """Whether a file could not be had; one that was left with its page could."""
    return request.failure != "net::ERR_ABORTED"


def in_console(said):
    return f"{said.text} {said.location['url']}"


@pytest.fixture(scope="module")
def reader(browser):
    """One window for page after page: with a window for each, opening takes three times as long."""
    with window(browser) as seen:
        yield seen


def turn(reader, url):
    """The next page in that window, which is as it was at first."""
    reader.page.goto("about:blank")  # what is still under way belongs to the page before
    reader.page.set_viewport_size(DESKTOP)
    reader.page.emulate_media(color_scheme="light", reduced_motion="reduce")
    reader.problems.clear()
    go(reader.page, url)


@pytest.fixture(scope="module", params=PAGES)
def visit(request, reader, server):
    """A page over the loopback server, open for all tests that look at it."""
    turn(reader, f"{server}/{request.param}")
    return reader


# --- what is checked ---------------------------------------------------------------------------


def headings(page):
    """The visible headings: one of level 1, and no level left out on the way down."""
    found = page.evaluate("""() => [...document.querySelectorAll("main :is(h1,h2,h3,h4,h5,h6)")]
        .filter((e) => e.checkVisibility())
        .map((e) => [Number(e.tagName[1]), e.textContent.trim()])""")
    levels = [level for level, _ in found]
    problems = [] if levels.count(1) == 1 else [f"{levels.count(1)} headings of level 1"]
    for (above, _), (level, text) in zip([(0, ""), *found], found, strict=False):
        if level > above + 1:
            problems.append(f"level {above} is followed by level {level}: {text!r}")
    return problems + [f"empty heading of level {n}" for n, text in found if not text.strip("#")]


def images(page):
    """Every image is there, and says in words what it shows."""
    # those further down load when they are scrolled to
    page.evaluate("""() => Promise.all([...document.images].map((e) => {
        e.loading = "eager"; return e.decode().catch(() => {}); }))""")
    found = page.evaluate("""() => [...document.images].map((e) =>
        ({src: e.getAttribute("src"), alt: e.alt, width: e.naturalWidth}))""")
    problems = [f"not loaded: {one['src']}" for one in found if not one["width"]]
    for one in found:
        path = Path(one["src"]).stem in one["alt"] or re.search(r"\.(png|svg|jpe?g)\b", one["alt"])
        if path or len(one["alt"].split()) < 4:
            problems.append(f"no words for {one['src'][:60]}: {one['alt']!r}")
    return problems


def mathematics(page):
    """Every formula is set, and none is left as it was typed."""
    problems = page.evaluate("""() => [...document.querySelectorAll("article .math")]
        .filter((e) => !e.querySelector("mjx-container"))
        .map((e) => "not set: " + e.textContent.trim())""")
    problems += page.evaluate("""() =>
        [...document.querySelectorAll("mjx-merror, [data-mjx-error]")]
        .map((e) => "error in math: " + e.textContent)""")
    text = page.evaluate("""() => {
        const main = document.querySelector("main"), texts = [];
        const walk = document.createTreeWalker(main, NodeFilter.SHOW_TEXT);
        while (walk.nextNode()) {
          const inside = walk.currentNode.parentElement;
          if (!inside.closest("pre, code, script, style, .math")) {
            texts.push(walk.currentNode.data); }}
        return texts.join("\\n"); }""")
    raw = re.findall(r"\$[^$\s][^$\n]*\$|\\[(\[].*", text)
    return problems + [f"left as typed: {found}" for found in raw]


def too_wide(page):
    """What makes a page scroll sideways on a phone."""
    page.set_viewport_size(PHONE)
    return page.evaluate("""() => {
        const root = document.documentElement;
        if (root.scrollWidth <= root.clientWidth) return [];
        const clipped = (e) => e && e !== document.body &&
          (getComputedStyle(e).overflowX !== "visible" || clipped(e.parentElement));
        const range = document.createRange(), problems = [`${root.scrollWidth} pixels wide`];
        for (const e of document.querySelectorAll("main *")) {
          range.selectNodeContents(e);  // long words stand out of their element
          const right = Math.max(...[e, range].map((x) => x.getBoundingClientRect().right));
          if (right > root.clientWidth && !clipped(e)) problems.push(e.outerHTML.slice(0, 120));
        }
        return problems; }""")


AXE = (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")


def accessibility(page, scheme):
    """Serious and critical findings of axe-core, contrast of text among them; all is unfolded."""
    page.set_viewport_size(DESKTOP)
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.wait_for_function("theme => document.documentElement.dataset.theme === theme", arg=scheme)
    page.evaluate("""() => {
        for (const e of document.querySelectorAll("article details")) e.open = true;
        for (const e of document.querySelectorAll("article .toggle-hidden .toggle-button"))
          e.click(); }""")
    # Of the thousands of coloured words in code and cells of tables, a few of a kind tell enough.
    page.evaluate("""() => {
        const seen = new Set();
        for (const e of document.querySelectorAll("article .highlight span"))
          if (seen.has(e.className)) e.replaceWith(...e.childNodes); else seen.add(e.className);
        for (const e of document.querySelectorAll("article pre")) e.normalize();
        for (const e of document.querySelectorAll("article tbody tr:nth-child(n+4)"))
          e.remove(); }""")
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(AXE)
    options = {"resultTypes": ["violations"], "preload": False}
    if scheme == "dark":  # all but colours is as in light
        options["runOnly"] = ["color-contrast"]
    found = page.evaluate("options => axe.run(document, options)", options)
    return [
        f"{one['impact']}: {one['id']}: {node['target']}: {node['html'][:150]}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"][:5]
    ]


# What can be operated in an article, and the state that it changes.
STATES = {
    "summary": "e => e.parentElement.open",
    "button.copybtn": "() => window.copies",
    "button.cxr-again": "() => window.copies",
    "button.toggle-button": "e => e.closest('.toggle').classList.contains('toggle-hidden')",
    **dict.fromkeys(
        ["form select", "form [type=range]", "form [type=search]", "form [type=checkbox]"],
        "e => e.form.querySelector('[role=status]').textContent",
    ),
}
OPERABLE = "summary, button, select, input, textarea, [role=button], [onclick], [contenteditable]"


def operable(page):
    """Every element that can be operated answers to a click and to a key."""
    problems = page.evaluate(
        """(known) => [...document.querySelectorAll(known.all.split(", ")
          .map((s) => "article " + s).join(", "))]
          .filter((e) => e.checkVisibility() && !e.matches(known.known))
          .map((e) => "of no known kind: " + e.outerHTML.slice(0, 120))""",
        {"all": OPERABLE, "known": ", ".join(STATES)},
    )
    problems += page.evaluate("""() => [...new Set(window.clickable)]
        .filter((e) => e.isConnected && e.closest("article") && e.checkVisibility() &&
          !e.matches("a[href], button, summary, select, input, form, [tabindex='0']") &&
          !e.querySelector("button"))
        .map((e) => "a click without a key: " + e.outerHTML.slice(0, 120))""")
    for kind, state in STATES.items():
        found = page.query_selector_all(f"article {kind}")
        # one stands at each cell, figure or table, all alike: the first and the last tell enough
        for element in found[:1] + found[1:][-1:] if kind.startswith("button") else found:
            if element.is_visible():
                problems += answers(page, element, kind, state)
    return problems


def answers(page, element, kind, state):
    problems = []
    for act in (by_click, by_key):
        before = element.evaluate(state)
        act(page, element, kind)
        for _ in range(40):
            if element.evaluate(state) != before:
                break
            page.wait_for_timeout(50)
        else:
            what = element.evaluate("e => e.outerHTML.slice(0, 120)")
            problems.append(f"no answer to {act.__name__[3:]}: {what}")
    return problems


def by_click(page, element, kind):
    if kind == "form select":  # what opens is drawn by the system
        options = element.evaluate("e => [...e.options].map((o) => o.value)")
        element.select_option(options[(options.index(element.input_value()) + 1) % len(options)])
    elif kind == "form [type=range]":
        element.scroll_into_view_if_needed()
        box = element.bounding_box()
        page.mouse.click(box["x"] + 0.9 * box["width"], box["y"] + box["height"] / 2)
    else:
        element.click(force=True)  # without waiting: whether it was hit shows in its state
        if kind == "form [type=search]":
            page.keyboard.type("zz")


def by_key(page, element, kind):
    element.focus()
    if kind == "form select":
        last = element.evaluate("e => e.selectedIndex === e.options.length - 1")
        page.keyboard.press("ArrowUp" if last else "ArrowDown")
    elif kind == "form [type=range]":
        page.keyboard.press("End" if element.evaluate("e => e.value === e.min") else "Home")
    elif kind == "form [type=search]":
        page.keyboard.press("Control+A")
        page.keyboard.press("Delete")
    elif kind == "form [type=checkbox]":
        page.keyboard.press("Space")
    else:
        page.keyboard.press("Enter")


def irreproducible(page):
    """Every numbered figure and table offers the command of the page, and it is what is copied."""
    command = page.evaluate("() => document.querySelector('article .cxr-command')?.textContent")
    if not command:
        return []  # no chapter
    numbers = "article :is(figcaption .caption-number, .cxr-caption .cxr-number)"
    wanted = page.eval_on_selector_all(numbers, "all => all.map((e) => e.textContent.trim())")
    buttons = page.query_selector_all("article button.cxr-again")
    said = [button.get_attribute("aria-label") for button in buttons]
    problems = [] if len(said) == len(set(said)) else [f"offered twice: {said}"]
    problems += [
        f"not offered: {n}" for n in wanted if f"Reproduce {n}: copy the command" not in said
    ]
    for button in [b for b in buttons if b.is_visible()][:1]:
        page.evaluate("() => { window.copied = null; }")
        button.press("Enter")
        shown = button.evaluate("e => e.nextElementSibling.textContent")
        copied = page.evaluate("() => window.copied")
        stays = button.evaluate("e => e === document.activeElement")
        if (copied, shown, stays) != (command, f"copied: {command}", True):
            problems.append(f"copied {copied!r}, shown {shown!r}, keyboard stays: {stays}")
    return problems


@functools.cache
def parsed(path):
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


@functools.cache
def anchors(path):
    return {tag["id"] for tag in parsed(path).select("[id]")}


def broken_links(folder, path):
    """Links of a page into the book that lead nowhere, and links without a target."""
    page, problems = parsed(folder / path), []
    wanted = [(tag, tag.get("href")) for tag in page.select("a, link[href]")]
    wanted += [(tag, tag["src"]) for tag in page.select("[src]")]
    for tag, target in wanted:
        if not target:
            problems.append(f"no target: {tag}")
        elif not urlsplit(target).scheme and not urlsplit(target).netloc:
            where, anchor = urldefrag(target)
            file = folder / path
            if where:
                file = (file.parent / unquote(urlsplit(where).path)).resolve()
            if not file.is_file():
                problems.append(f"no file: {target}")
            elif anchor and unquote(anchor) not in anchors(file):
                problems.append(f"no anchor: {target}")
    return problems


def size(folder, path):
    """Bytes of a page with its own pictures."""
    pictures = {tag["src"] for tag in parsed(folder / path).select("img[src]")}
    separate = (src for src in pictures if not src.startswith("data:"))
    files = [folder / path, *((folder / path).parent / src for src in separate)]
    return sum(file.stat().st_size for file in files)


# --- the pages ---------------------------------------------------------------------------------


def test_opens_without_a_request_to_another_host_or_an_error(visit):
    assert visit.problems == []


def test_headings(visit):
    assert headings(visit.page) == []


def test_images(visit):
    assert images(visit.page) == []


def test_math(visit):
    assert mathematics(visit.page) == []


def test_no_sideways_scrolling_on_a_phone(visit):
    assert too_wide(visit.page) == []


def test_operable_by_click_and_key(visit):
    visit.page.set_viewport_size(DESKTOP)
    assert operable(visit.page) == []
    assert visit.problems == []


def test_figures_and_tables_offer_their_command(visit):
    assert irreproducible(visit.page) == []


def test_accessible(visit):
    assert accessibility(visit.page, "light") == []


def of_each_colour():
    """Pages that together have every kind of element: colours come by class, and dark ones only
    change colours.
    """
    found = []
    if (HTML / PAGES[0]).is_file():
        kind = re.compile(r'<(\w+)[^>]*? class="([^"]*)"')
        kinds = {p: set(kind.findall((HTML / p).read_text(encoding="utf-8"))) for p in PAGES}
        seen = set()
        for path in sorted(PAGES, key=lambda p: -len(kinds[p])):
            if not kinds[path] <= seen:
                found.append(path)
                seen |= kinds[path]
    return found


@pytest.mark.parametrize("path", of_each_colour())
def test_accessible_in_the_dark(path, reader, server):
    turn(reader, f"{server}/{path}")
    assert accessibility(reader.page, "dark") == []


def of_each_kind():
    """A page for each set of scripts and styles, with and without math and pictures, and one for
    each kind of what moves. A disk gives these otherwise than a server, to all pages of a kind
    alike; that the files of every page are there tells `test_links`.
    """
    found = {}
    for path in PAGES if (HTML / PAGES[0]).is_file() else ():
        text = (HTML / path).read_text(encoding="utf-8")
        files = re.findall(r'(?:src|href)="[^"#?]*?([\w.-]+\.(?:js|css))[?"]', text)
        parts = re.findall(r'class="math|<img|data-kind="\w+"|class="cxr-films"', text)
        found.setdefault((frozenset(files), frozenset(parts)), path)
    return sorted(found.values())


@pytest.mark.parametrize("path", of_each_kind())
def test_from_disk(path, reader):
    turn(reader, (HTML / path).as_uri())
    assert images(reader.page) == []
    assert mathematics(reader.page) == []
    assert irreproducible(reader.page) == []
    assert [problem for problem in reader.problems if not FONT.search(problem)] == []


@pytest.mark.parametrize("path", PAGES)
def test_links(path):
    assert broken_links(HTML, path) == []


def test_size():
    sizes = {path: size(HTML, path) / MB for path in PAGES}
    assert {path: mb for path, mb in sizes.items() if mb >= 3} == {}
    assert sum(p.stat().st_size for p in HTML.rglob("*") if p.is_file()) / MB < 25


# --- what all pages share ----------------------------------------------------------------------


@pytest.mark.parametrize("way", ["http", "file"])
def test_search(way, browser, server):
    base = server if way == "http" else HTML.as_uri()
    with opened(browser, f"{base}/index.html") as seen:
        page = seen.page
        page.keyboard.press("Control+k")
        page.keyboard.type("pneumothorax")
        page.keyboard.press("Enter")
        page.wait_for_selector("ul.search li a")
        page.wait_for_function(
            "() => document.querySelector('.search-summary').textContent.includes('finished')"
        )
        found = page.query_selector_all("ul.search li a")
        assert len(found) > 2
        found[0].click()
        page.wait_for_selector("article")
        assert "pneumothorax" in page.inner_text("article").lower()
        page.goto(f"{base}/search.html?q=zzzz")
        page.wait_for_function(
            "() => document.querySelector('.search-summary')?.textContent.includes('did not match')"
        )
        assert [problem for problem in seen.problems if not FONT.search(problem)] == []


# Controls of the theme, and the state that each changes.
LEFT = "() => document.querySelector('.bd-sidebar-{}').getBoundingClientRect().left"
CONTROLS = {
    "button.theme-switch-button": "() => document.documentElement.dataset.mode",
    "button.search-button": "() => document.activeElement.id === 'search-input'",
    "button.btn-fullscreen-button": "() => document.fullscreenElement !== null",
    ".dropdown-download-buttons > button": "() => !!document.querySelector('.dropdown-menu.show')",
    "button.primary-toggle": LEFT.format("primary"),
    "button.secondary-toggle": LEFT.format("secondary"),
}


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("act", ["click", "key"])
def test_controls_of_the_theme(size, act, browser, server):
    problems, tried = [], 0
    with opened(browser, f"{server}/index.html", viewport=size) as seen:
        for control, state in CONTROLS.items():
            if tried:  # as it was before the control above
                seen.page.reload()
            buttons = [b for b in seen.page.query_selector_all(control) if b.is_visible()]
            for button in buttons[:1]:
                tried += 1
                before = seen.page.evaluate(state)
                if act == "click":
                    button.click()
                else:
                    button.press("Enter")
                try:
                    seen.page.wait_for_function(
                        f"before => ({state})() !== before", arg=before, timeout=3000
                    )
                except PlaywrightTimeout:
                    problems.append(f"no answer: {control}")
    assert problems == []
    assert tried >= 4


def test_paper_is_light_and_unfolded_and_the_page_as_before_again(browser, server):
    url = f"{server}/chapters/04_subgroup_fairness.html"
    state = """() => [document.documentElement.dataset.theme,
        document.querySelectorAll("details:not([open])").length]"""
    with opened(browser, url, color_scheme="dark") as seen:
        before = theme, folded = seen.page.evaluate(state)
        assert theme == "dark" and folded
        seen.page.evaluate("() => dispatchEvent(new Event('beforeprint'))")
        assert seen.page.evaluate(state) == ["light", 0]
        seen.page.evaluate("() => dispatchEvent(new Event('afterprint'))")
        assert seen.page.evaluate(state) == before


def test_first_stop_of_the_keyboard_skips_to_the_text(browser, server):
    with opened(browser, f"{server}/index.html") as seen:
        seen.page.keyboard.press("Tab")
        seen.page.keyboard.press("Enter")
        assert seen.page.evaluate("() => location.hash") == "#main-content"


# --- the checks themselves ---------------------------------------------------------------------

FAULTY = r"""<!doctype html><html lang="en" data-theme="light"><head><title>Faults</title>
<style>.pale { color: #aaa; background: #fff }</style></head><body><main><article>
<h1>One</h1><h3>Three</h3><h2></h2><h1>Another</h1>
<img src="gone.png" alt="gone.png"><img src="there.svg" alt="a figure">
<p>It costs $x^2$ and \(y\).</p><span class="math">z</span>
<p style="width: 900px">wide</p><p class="pale">pale</p>
<p class="cxr-caption"><span class="cxr-number">Table 9</span>
<code class="cxr-command">run</code></p>
<div onclick="1">only a click</div><p id="listens">listens</p><button class="copybtn">dead</button>
<input type="text"><a href="there.svg#nowhere">lost</a><a href="missing.html">lost</a><a>lost</a>
</article></main>
<script>document.getElementById("listens").addEventListener("click", () => {});</script>
<script src="http://faults.example/script.js"></script><script>nothing();</script>
</body></html>"""


def test_checks_find_planted_faults(browser, tmp_path):
    (tmp_path / "page.html").write_text(FAULTY)
    (tmp_path / "there.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9"/>')
    with serving(tmp_path) as url, opened(browser, f"{url}/page.html") as seen:
        page, told = seen.page, "\n".join(seen.problems)
        assert "request to http://faults.example/script.js" in told
        assert "404: " in told and "nothing is not defined" in told
        told = "\n".join(headings(page))
        assert "2 headings of level 1" in told and "level 1 is followed by level 3" in told
        assert "empty heading of level 2" in told
        told = "\n".join(images(page))
        assert "not loaded: gone.png" in told and "no words for gone.png" in told
        assert "no words for there.svg: 'a figure'" in told
        told = "\n".join(mathematics(page))
        assert "not set: z" in told and "$x^2$" in told and r"\(y" in told
        told = "\n".join(too_wide(page))
        assert "pixels wide" in told and "900px" in told
        page.set_viewport_size(DESKTOP)
        told = "\n".join(operable(page))
        assert "of no known kind: <div onclick" in told and "of no known kind: <input" in told
        assert 'a click without a key: <p id="listens"' in told
        assert "no answer to click: <button" in told and "no answer to key: <button" in told
        assert irreproducible(page) == ["not offered: Table 9"]
        told = "\n".join(accessibility(page, "light"))
        assert "color-contrast" in told and "label: " in told
    told = "\n".join(broken_links(tmp_path, "page.html"))
    assert "no file: gone.png" in told and "no file: missing.html" in told
    assert "no anchor: there.svg#nowhere" in told and "no target: <a>lost</a>" in told
