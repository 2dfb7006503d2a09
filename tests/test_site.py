"""The site that `make docs` built, from disk, in a real browser: pictures, links, formulas, search.

Needs Chromium and its driver (Debian: `apt-get install chromium chromium-driver`). Screenshots lie
in docs/_build/screenshots.
"""

import shutil
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

webdriver = pytest.importorskip("selenium.webdriver")

ROOT = Path(__file__).parents[1]
SITE = ROOT / "docs" / "_build" / "html"
SCREENSHOTS = SITE.parent / "screenshots"
BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

pytestmark = [
    pytest.mark.skipif(BROWSER is None or DRIVER is None, reason="needs Chromium and its driver"),
    pytest.mark.skipif(not (SITE / "index.html").exists(), reason="needs the site: make docs"),
]

TYPESET = """
const done = arguments[arguments.length - 1];
window.MathJax ? MathJax.startup.promise.then(() => done()) : done();
"""
# What a page shows, as the browser has it after scripts ran.
SHOWN = """
return {
  broken: [...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.src),
  formulas: document.querySelectorAll('.math').length,
  unrendered: [...document.querySelectorAll('.math')].filter(
    m => !m.querySelector('mjx-container') || m.querySelector('mjx-merror')
  ).map(m => m.textContent),
  links: [...document.querySelectorAll('a[href]')].map(a => a.href),
  targets: [...document.querySelectorAll('[id]')].map(e => e.id),
  fetched: performance.getEntriesByType('resource').map(e => e.name),
};
"""


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--window-size=1300,1400"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def open_page(browser, page):
    browser.get(page.as_uri())
    browser.execute_async_script(TYPESET)


def test_every_page(browser):
    """No broken picture, link or formula, and nothing that a page takes from a network."""
    SCREENSHOTS.mkdir(exist_ok=True)
    # Pages of source code are many, and all alike.
    pages = [p for p in SITE.rglob("*.html") if "_modules" not in p.parts]
    shown = {}
    for page in pages:
        open_page(browser, page)
        shown[page] = browser.execute_script(SHOWN)
        name = "-".join(page.relative_to(SITE).with_suffix(".png").parts)
        browser.save_screenshot(SCREENSHOTS / name)
    faults = []
    for page, found in shown.items():
        faults += [(page.name, "picture", source) for source in found["broken"]]
        faults += [(page.name, "formula", text) for text in found["unrendered"]]
        faults += [(page.name, "fetched", n) for n in found["fetched"] if not n.startswith("file:")]
        for link in found["links"]:
            parts = urlparse(link)
            if parts.scheme != "file":
                continue
            target = Path(unquote(parts.path))
            known = shown.get(target, {}).get("targets", [])
            if not target.exists() or (parts.fragment and known and parts.fragment not in known):
                faults.append((page.name, "link", link))
    assert faults == []
    assert len(pages) > 50
    assert sum(found["formulas"] for found in shown.values()) > 100


def test_search(browser):
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get((SITE / "search.html").as_uri() + "?q=temperature")
    found = WebDriverWait(browser, 60).until(
        lambda driver: driver.find_elements("css selector", "#search-results li a")
    )
    assert len(found) > 3


def test_the_landing_page(browser):
    open_page(browser, SITE / "index.html")
    entries = browser.find_elements("css selector", ".bd-header .navbar-nav .nav-item a.nav-link")
    assert 1 <= len({entry.get_attribute("href") for entry in entries}) <= 6
    assert len(browser.find_elements("css selector", ".sd-card")) == 3
