"""The report's page in a real browser: no error, no request, tables that sort, surfaces that turn.

Screenshots in light and dark, of a phone and of a desk, stay in pytest's folder of the run.
"""

import numpy as np
import pytest
from browser import Browser, chromium
from PIL import Image

from experiments.study import pages, provenance
from experiments.study.figures import ReportFigure
from experiments.study.grid import Grid, Marked
from experiments.study.surfaces import Path, Surfaces
from sam_jax import plotting
from sam_jax.metrics.landscape.grids import LossPlane

pytestmark = pytest.mark.commands

COLUMN = ["0.5 ± 0.1", "−2.0 ± 0.3", "not measured", "1.2e-03", "∞", "10.0 (0.9–1.1)", "< 0.001"]
SORTED = ["−2.0 ± 0.3", "< 0.001", "1.2e-03", "0.5 ± 0.1", "10.0 (0.9–1.1)", "∞"]
PHONE, DESK = 390, 1280


@pytest.fixture(scope="module")
def browser():
    chromium()
    browser = Browser()
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page with everything that a page can have."""
    folder = tmp_path_factory.mktemp("study") / "report"
    words = "“SAM has a lower loss” holds: SAM − SGD −0.50 (−0.70 to −0.30, 3 seeds)."
    rows = [[f"arm {i}", text, Marked("holds", "holds")] for i, text in enumerate(COLUMN)]
    grid = Grid(["Arm", "loss", "Verdict"], rows, ["", "Test", "Test"], caption="Losses")
    wide = Grid(
        ["Arm", *map(str, range(40))], [[f"row {i}", *["0.123 ± 0.004"] * 40] for i in range(60)]
    )
    tables = [pages.write_table(folder, name, "", g) for name, g in (("a", grid), ("b", wide))]
    drawn, (axes,) = plotting.small_multiples(1, 1)
    axes.plot([0, 1], [1, 0])
    figure = ReportFigure("Figure 1", "line", "A line that falls.", drawn)
    x = np.linspace(-1, 1, 9)
    bowl = 1e-3 + x[:, None] ** 2 + x**2
    bowl[0, 0] = np.nan
    planes = {"bowl": LossPlane(bowl, x, x), "steep <b>": LossPlane(10 * bowl, x, x)}
    path = Path(np.array([[-0.5, 0.0], [0.5, 0.5]]), {"start": (-0.5, 0.0)})
    turned = Surfaces("Figure 2", "planes", "Two bowls.", planes, paths={"steep <b>": path})
    change = provenance.Change("training.method.rho", "0.05", "0.1")
    many = provenance.Change("methods", str(tuple(range(500))), "(0,)")
    made_by = provenance.Provenance(
        "python -m experiments.toy --config=configs/toy.py:smoke --workdir=out",
        [provenance.Comparison("configs/digits.py", [change, many])],
        [provenance.Records("SAM", [("seed 0", "../models/sam/seed_0/records.jsonl")])],
    )
    sections = [
        pages.Section("Tables", ["Below are tables."], tables),
        pages.Section("Figures", [], [], [figure], [turned]),
        pages.Section("With γ ~ 1/t, “SAM's” 100% <b>", ["A heading of all kinds of letters."]),
        *(pages.Section(f"Section {i}", ["More words. " * 60] * 5) for i in range(6)),
    ]
    settings = {"seeds": [0, 1], provenance.KEY: made_by}
    opening = pages.Opening([words] * 5, tables[:1])
    return pages.write_report(folder, "A study", ["About."], sections, settings, opening=opening)


def column(browser, number):
    rows = "[...document.querySelectorAll('table.sortable')[0].tBodies[0].rows]"
    return browser.run(f"{rows}.map((row) => row.cells[{number}].textContent.trim())")


def middle(browser, selector):
    """Scroll to an element and return the middle of it in the window."""
    return browser.run(f"""(() => {{
      const element = document.querySelector({selector!r});
      element.scrollIntoView({{ block: "center", behavior: "instant" }});
      const box = element.getBoundingClientRect();
      return [box.x + box.width / 2, box.y + box.height / 2];
    }})()""")


EYE = "(({x, y, z}) => [x, y, z])(document.querySelector('.plot')._fullLayout.scene.camera.eye)"


def choose(browser, number):
    """Choose the second entry of a list above a surface."""
    browser.run(f"""((list) => {{ list.value = 1; list.dispatchEvent(new Event("change")); }})(
      document.querySelectorAll(".controls select")[{number}])""")


def drawn(browser, name):
    browser.wait(f"document.querySelector('figure.surface').dataset.drawn === {name!r}")


def test_a_trial_says_so_and_a_long_value_opens(browser, page):
    browser.open(page.as_uri(), width=PHONE)
    assert "numbers mean nothing" in browser.run("document.querySelector('.lost').textContent")
    value = "document.querySelector('del details')"
    assert "… (2,390 characters)" in browser.run(f"{value}.querySelector('summary').textContent")
    height = browser.run(f"{value}.closest('tr').offsetHeight")
    browser.run(f"{value}.open = true")
    assert browser.run(f"{value}.closest('tr').offsetHeight") > 5 * height
    assert browser.run("document.documentElement.scrollWidth") <= PHONE


def test_tables_sort_figures_open_and_surfaces_turn(browser, page):
    browser.open(page.as_uri(), width=DESK)
    assert column(browser, 1) == COLUMN
    head = "document.querySelectorAll('table.sortable thead tr:last-child th')[1]"
    browser.run(f"{head}.querySelector('button').click()")
    assert column(browser, 1) == [*SORTED, "not measured"]
    assert browser.run(f"{head}.ariaSort") == "ascending"
    browser.run(f"{head}.querySelector('button').click()")
    assert column(browser, 1) == [*SORTED[::-1], "not measured"]
    assert sorted(column(browser, 0)) == [f"arm {i}" for i in range(len(COLUMN))]

    x, y = middle(browser, "figure img")
    browser.mouse("mousePressed", x, y)
    browser.mouse("mouseReleased", x, y)
    assert browser.run("document.querySelector('dialog').open")
    assert browser.run("document.querySelector('dialog img').alt") == "Figure 1: A line that falls."
    browser.run("document.querySelector('dialog button').click()")
    assert not browser.run("document.querySelector('dialog').open")

    x, y = middle(browser, ".plot")
    drawn(browser, "bowl")
    before = browser.run(EYE)
    browser.mouse("mousePressed", x, y)
    for step in range(1, 6):
        browser.mouse("mouseMoved", x + 20 * step, y)
    browser.mouse("mouseReleased", x + 100, y)
    browser.wait(f"String({before}) !== String({EYE})")
    after = browser.run(EYE)
    assert np.linalg.norm(np.subtract(after, before)) > 0.1
    browser.run("[...document.querySelectorAll('.controls button')][0].click()")
    browser.wait(f"String({after}) !== String({EYE})")
    turned = browser.run(EYE)
    # By a twelfth of pi about the vertical.
    angles = [np.arctan2(y, x) for x, y, _ in (after, turned)]
    assert (angles[1] - angles[0]) % (2 * np.pi) == pytest.approx(np.pi / 12)

    choose(browser, 0)
    drawn(browser, "steep <b>")
    traces = "document.querySelector('.plot').data.map((trace) => trace.type)"
    assert browser.run(traces) == ["surface", "scatter3d", "scatter3d"]
    choose(browser, 1)
    browser.wait(f"({traces})[0] === 'contour'")
    assert browser.errors() == [] and browser.requests() == [page.as_uri()]


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_fits_the_window_and_its_colours(browser, page, tmp_path, width, dark):
    browser.open(page.as_uri(), width, 844, dark, mobile=width == PHONE)
    assert (
        browser.run("document.documentElement.scrollWidth") <= width
    )  # tables scroll on their own
    back, ink = browser.run(
        "((s) => [s.backgroundColor, s.color])(getComputedStyle(document.body))"
        ".map((text) => text.match(/\\d+/g).map(Number))"
    )
    assert (sum(back) < sum(ink)) == dark
    browser.run("document.querySelector('#section-3').scrollIntoView({behavior: 'instant'})")
    browser.wait("document.querySelector('.contents [aria-current]')?.hash === '#section-3'")
    top = "document.querySelector('.contents').getBoundingClientRect().top"
    assert browser.run(top) == 0  # in view
    # The head of a long table stays while its rows scroll.
    middle(browser, ".scroll:has(td:nth-child(30))")
    head = browser.run("""((box) => { box.scrollTop = 300; box.scrollLeft = 200;
      const rect = (e) => e.getBoundingClientRect();
      const [head, cell] = [box.querySelector("thead"), box.querySelectorAll("td")[0]];
      return [rect(head).top - rect(box).top, rect(cell).left - rect(box).left]; })(
      document.querySelector(".scroll:has(td:nth-child(30))"))""")
    assert head == pytest.approx([0, 0], abs=1.5)
    for name, selector in (("top", "h1"), ("surface", "figure.surface")):
        middle(browser, selector)
        if name == "surface":
            drawn(browser, "bowl")
        shot = browser.screenshot(tmp_path / f"{width}_{name}.png")
        with Image.open(shot) as image:
            colours = image.convert("RGB").getcolors(2**24)
            assert image.width == width and len(colours) > 20  # something is drawn
    assert browser.errors() == []


def test_it_prints(browser, page, tmp_path):
    browser.open(page.as_uri())
    pdf = browser.printed(tmp_path / "page.pdf").read_bytes()
    assert pdf.startswith(b"%PDF") and len(pdf) > 20_000


def test_the_policy_of_a_page_refuses_the_network(browser, page, tmp_path):
    """The negative control: a page that would ask for something is seen to, and is refused."""
    text = page.read_text()
    asking = tmp_path / "asking.html"
    asking.write_text(text.replace("</main>", '<img src="http://127.0.0.1:9/x.png"></main>'))
    browser.open(asking.as_uri())
    browser.wait("document.images.length > 1")
    assert browser.errors() != []
    text = text.replace("Content-Security-Policy", "nothing")
    asking.write_text(text.replace("</main>", '<img src="http://127.0.0.1:9/x.png"></main>'))
    browser.open(asking.as_uri())
    assert "http://127.0.0.1:9/x.png" in browser.requests()
