"""The page of runs in a real browser: its curves, what it does as a run grows, and both colours.

Screenshots in light and dark, of a phone and of a desk, stay in pytest's folder of the run.
"""

import json
import math
import re

import pytest
from browser import Browser, chromium
from live_runs import append, make_run, record, speed
from live_server import serving
from PIL import Image
from real_commands import made_once, output_of

from sam_jax.live.curves import CHARTS
from sam_jax.live.page import page
from sam_jax.live.watch import everything

pytestmark = pytest.mark.commands

PHONE, DESK = 390, 1280
HOSTILE = "<script>alert(1)<img src=x onerror=alert(2)>"
SMOKE = "--config=configs/digits.py:smoke"
FIELDS = [chart.field for chart in CHARTS]


@pytest.fixture(scope="module")
def browser():
    chromium()
    browser = Browser()
    yield browser
    browser.close()


@pytest.fixture
def study(tmp_path):
    """Three seeds of two arms, an old run, and one with a hostile name and a loss that is NaN."""
    for arm, offset in (("sgd", 0.2), ("sam_rho0.05", 0.0)):
        for seed in range(3):
            folder = tmp_path / "models" / arm / f"seed_{seed}"
            make_run(folder, 40, 20 * (seed > 0) + 20, seed, offset + 0.03 * seed)
    make_run(tmp_path / "old", 10, 7, old=True)
    append(make_run(tmp_path / HOSTILE, 10, 5) / "metrics.jsonl", record(6, batch_loss=math.nan))
    return tmp_path


def points(browser, field):
    """Scroll to a chart, and return how many points are drawn in it, by trace."""
    figure = f"document.getElementById('chart-{field}')"
    browser.wait(f"{figure}")
    browser.run(f"{figure}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
    browser.wait(f"{figure}.dataset.points && !{figure}.stale")
    return browser.run(
        f"{figure}.querySelector('.plot').data.map((t) => t.x.filter((x) => x !== null).length)"
    )


def rows(browser):
    return browser.run(
        "[...document.querySelector('#runs').tBodies[0].rows]"
        ".map((row) => [...row.cells].map((cell) => cell.textContent))"
    )


def test_a_page_shows_runs_and_their_growth(browser, study):
    with serving(study) as (_, address):
        browser.open(address, width=DESK)
        browser.wait("document.querySelectorAll('#runs tbody tr').length === 8")
        shown = rows(browser)
        assert [row[0] for row in shown] == [HOSTILE, *["sam_rho0.05"] * 3, *["sgd"] * 3, "old"]
        assert shown[1][1:4] == ["0", "stopped", "20 of 40"]
        assert shown[2][1:4] == ["1", "finished", "40 of 40"]
        assert shown[0][-1] == "batch_loss is not finite at epoch 6"
        # One curve of NaN, two arms with a mean at the epochs of all seeds, and an old run.
        assert points(browser, "batch_loss") == [6, 20 + 40 + 40, 20, 20 + 40 + 40, 20, 7]
        assert points(browser, "sharpness")[:4] == [2, 1, 2 * (4 + 8 + 8), 4 + 8 + 8]  # bands first
        for field in FIELDS:
            assert sum(points(browser, field)) > 0

        grown = study / "models/sam_rho0.05/seed_0"
        append(grown / "metrics.jsonl", record(21), record(22))
        append(grown / "speed.jsonl", speed(21), speed(22))
        browser.wait(
            "document.querySelectorAll('#runs tbody tr')[1].cells[3].textContent[1] === '2'"
        )
        assert rows(browser)[1][3] == "22 of 40"
        assert points(browser, "batch_loss")[1:3] == [22 + 40 + 40, 22]
        make_run(study / "models/sgd/seed_3", 40, 1, 3)
        browser.wait("document.querySelectorAll('#runs tbody tr').length === 9")
        assert rows(browser)[7][:4] == ["sgd", "3", "stopped", "1 of 40"]
        assert browser.errors() == []
        assert all(request.startswith(address) for request in browser.requests())
        assert browser.run("document.images.length") == 0


def test_arms_hide_and_tables_sort(browser, study, tmp_path):
    file = tmp_path / "page.html"
    file.write_bytes(page("runs", everything(study)))
    browser.open(file.as_uri(), width=DESK)
    before = points(browser, "test_loss")
    assert len(before) == 6
    arm = "[...document.querySelectorAll('#arms button')].find((b) => b.textContent === 'sgd (3)')"
    browser.run(f"{arm}.click()")
    browser.wait(f"{arm}.getAttribute('aria-pressed') === 'false'")
    assert browser.run("document.querySelectorAll('#runs tr.off').length") == 3
    count = "document.querySelector('#chart-test_loss .plot').data.length"
    browser.wait(f"{count} === 4")
    browser.run("document.getElementById('means').click()")
    browser.wait(f"{count} === 3")
    browser.run("[...document.querySelectorAll('#arms button')].at(-1).click()")  # show all
    browser.wait(f"{count} === 4")
    browser.run("document.getElementById('logarithmic').click()")
    browser.wait("document.querySelector('#chart-test_loss .plot').layout.yaxis.type === 'log'")
    browser.run("document.querySelectorAll('#runs th button')[4].click()")
    losses = [float(row[4]) for row in rows(browser)]
    assert losses == sorted(losses) and len(set(losses)) > 3
    assert browser.errors() == [] and browser.requests() == [file.as_uri()]


def test_paper_has_every_chart_in_black_on_white(browser, study, tmp_path):
    file = tmp_path / "page.html"
    file.write_bytes(page("runs", everything(study)))
    browser.open(file.as_uri(), width=DESK, dark=True)
    drawn = "document.querySelectorAll('#charts figure[data-points]').length"
    ink = "document.querySelector('#charts .plot').layout.font.color"
    browser.wait(f"{drawn} > 0")
    assert browser.run(drawn) < len(FIELDS)  # those that nobody has scrolled to are not drawn
    browser.run("window.inks = []")
    browser.run(
        "document.querySelector('#charts .plot').on('plotly_afterplot',"
        f" () => window.inks.push({ink}))"
    )
    browser.printed(tmp_path / "page.pdf")
    browser.wait(f"{drawn} === {len(FIELDS)}")
    browser.wait("window.inks.length >= 2")
    inks = browser.run("window.inks")
    assert inks[0] == "#000" and inks[-1] not in ("#000", "rgb(0, 0, 0)")
    assert browser.errors() == []


def test_arms_keep_their_colours_where_one_is_added(browser, study, tmp_path):
    """An arm that begins later comes last, wherever its name stands."""
    file = tmp_path / "page.html"
    colours = (
        "Object.fromEntries([...document.querySelectorAll('#arms [aria-pressed]')].map((button) =>"
        " [button.textContent, button.querySelector('line').getAttribute('stroke')]))"
    )
    shown = []
    for is_added in (False, True):
        if is_added:
            later = make_run(study / "models/adam/seed_0", 40, 3)
            lines = (later / "speed.jsonl").read_text().splitlines()
            late = [json.loads(line) for line in lines]
            late = [json.dumps(each | {"time": each["time"] + 1e6}) for each in late]
            (later / "speed.jsonl").write_text("\n".join(late) + "\n")
        file.write_bytes(page("runs", everything(study)))
        browser.open(file.as_uri(), width=DESK)
        browser.wait("document.querySelectorAll('#arms button').length")
        shown.append(browser.run(colours))
    before, after = shown
    began = [arm for arm in before if arm != "old"]
    assert len(began) == 3 and {arm: after[arm] for arm in began} == {a: before[a] for a in began}
    assert after["adam"] not in [after[arm] for arm in began]


@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_fits_the_window_and_its_colours(browser, study, tmp_path, width, dark):
    file = tmp_path / "page.html"
    file.write_bytes(page("runs", everything(study)))
    browser.open(file.as_uri(), width, 844, dark, mobile=width == PHONE)
    assert browser.run("document.documentElement.scrollWidth") <= width
    back, ink = browser.run(
        "((s) => [s.backgroundColor, s.color])(getComputedStyle(document.body))"
        ".map((text) => text.match(/\\d+/g).map(Number))"
    )
    assert (sum(back) < sum(ink)) == dark
    for field in FIELDS:
        points(browser, field)
    for place in ("h1", "#charts", "#chart-sharpness"):
        browser.run(f"document.querySelector('{place}').scrollIntoView({{behavior: 'instant'}})")
        shot = browser.screenshot(tmp_path / f"{width}_{place.strip('#')}.png")
        with Image.open(shot) as image:
            assert image.width == width and len(image.convert("RGB").getcolors(2**24)) > 20
    assert browser.errors() == []


def test_a_real_training(browser, tmp_path_factory, tmp_path):
    """Runs of the real command, whose curves are the numbers in their logs."""
    folder, _ = made_once(
        tmp_path_factory,
        "trained",
        lambda folder: output_of("sam_jax.train", SMOKE, f"--workdir={folder}"),
    )
    file = tmp_path / "page.html"
    file.write_bytes(page("runs", everything(folder)))
    browser.open(file.as_uri(), width=DESK)
    assert points(browser, "batch_loss") == [2]
    drawn = browser.run("document.querySelector('#chart-batch_loss .plot').data[0].y")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    wanted = [json.loads(line)["batch_loss"] for line in lines]
    assert [y for y in drawn if y is not None] == pytest.approx(wanted, rel=1e-5)
    (row,) = rows(browser)
    assert row[2:4] == ["finished", "2 of 2"]
    assert browser.errors() == []


def test_the_policy_of_the_page_refuses_the_network(browser, tmp_path):
    """The negative control: a page that asks for something else is seen to, and is refused."""
    text = page("runs", everything(tmp_path)).decode()
    asking = tmp_path / "asking.html"
    asking.write_text(text.replace("</main>", '<img src="http://127.0.0.1:9/x.png"></main>'))
    browser.open(asking.as_uri())
    browser.wait("document.images.length > 0")
    assert browser.errors() != []
    assert re.search(r"There is no run yet", browser.run("document.body.innerText"))
