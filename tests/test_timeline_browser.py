"""The timeline's page in a real browser: it draws, shows, zooms, and says no word of an error.

Needs Playwright's Python package (the extra ``browser``) and a Chromium of the system:
`make browser`.
"""

from __future__ import annotations

import random
import shutil
import time

import pytest

from parallax import ThreadPoolExecutor, parallel_map
from parallax._core.plans import Plan
from parallax._reporting.recording import Recording
from parallax._reporting.reports import Report

api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

# No sandbox: tests often run as root in a container. And no word to any other machine.
QUIET = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-domain-reliability",
    "--disable-sync",
    "--no-first-run",
    "--no-pings",
]

pytestmark = [
    pytest.mark.full,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
    # Playwright's own loop, of which a failed test leaves some.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

HOSTILE = '</script><img src=x onerror="window.hit=1"><b>&amp;'


def made(workers, items, seconds=0.004):
    """A report on so many items of random times."""
    work, rng = Recording(0.0, keep=True), random.Random(1)
    for worker in range(workers):
        work.meet(worker, f"worker process {4000 + worker}", "processes", 0.01 * worker)
    free = [0.05] * workers
    for index in range(items):
        worker = index % workers
        wall = rng.expovariate(1 / seconds)
        times = free[worker], wall, wall * rng.random()
        work.add(worker, index, 1, times, free[worker] + wall + 0.0003, 100, 20)
        free[worker] += wall + rng.expovariate(1 / 0.0002)
    report = Report(callable=HOSTILE, items=items, work=work, route="processes", workers=workers)
    report.seconds = max(free)
    report.choose(Plan("processes", workers, HOSTILE), 0.02, change=True)
    return report


@pytest.fixture(autouse=True)
def _nothing_left_behind():
    """The browser lives from test to test: whether anything is left is seen after the last."""


@pytest.fixture(scope="module")
def browser():
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield running
        running.close()


@pytest.fixture
def open_page(browser, tmp_path):
    """Opens the page of a report; the test fails for any error, and for any other file loaded."""
    contexts, said = [], []

    def open_report(report, **context):
        path = tmp_path / "page.html"
        report.to_html(path)
        contexts.append(
            browser.new_context(**{"viewport": {"width": 1100, "height": 700}, **context})
        )
        page = contexts[-1].new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on(
            "request",
            lambda request: said.append(request.url) if request.url[:4] == "http" else None,
        )
        page.goto(path.as_uri())
        page.wait_for_function("cores.length > 0")
        return page

    yield open_report
    for each in contexts:
        each.close()
    assert said == []


def drawn(page):
    """The share of each lane that is not empty."""
    return page.evaluate(
        """() => {
            const r = devicePixelRatio, wide = Math.floor(plotWidth() * r);
            // All at once: the console warns of canvases that are read often.
            const d = ctx.getImageData(margin.left * r, 0, wide, canvas.height).data;
            return lanes.map(lane => {
                let full = 0, row = Math.round((laneTop(lane.at) + laneHeight / 2) * r);
                for (let i = 0; i < wide; i++) full += d[4 * (row * wide + i) + 3] > 60;
                return full / wide;
            });
        }"""
    )


def hovered(page, worker, moment):
    """Move the pointer to a moment of a worker's lane; what is shown then."""
    at = page.evaluate(f"[x({moment}), laneTop({worker}) + laneHeight / 2]")
    box = page.locator("#view").bounding_box()
    page.mouse.move(box["x"] + at[0], box["y"] + at[1])
    return page.locator("#tip").inner_text() if page.locator("#tip").is_visible() else ""


def test_a_real_run(open_page):
    """Each worker has a lane with bars; hovering tells the item, its time and its place."""
    results = parallel_map(time.sleep, [0.03] * 20, backend="threads", max_workers=3, record=True)
    page = open_page(results.report)
    shares = drawn(page)
    assert len(shares) == 3
    assert all(share > 0.3 for share in shares)
    text = hovered(page, 0, page.evaluate("C.begin[lanes[0].from] + C.wall[lanes[0].from] / 2"))
    assert text.startswith("item ")
    assert "ms" in text
    assert "thread parallax-" in text


def test_an_executor(open_page):
    """Its bars are calls; one that ran inside of another is found where it is."""
    with ThreadPoolExecutor(1) as executor:
        view = executor.options(record=True)

        def outer():
            time.sleep(0.02)
            view.submit(time.sleep, 0.02).result()
            time.sleep(0.02)

        view.submit(outer).result()
        page = open_page(executor.report())
    assert page.title() == "2 calls by 1 worker of an executor"
    inner = page.evaluate("C.first.indexOf(0)")
    assert (
        hovered(page, 0, page.evaluate(f"C.begin[{inner}] + C.wall[{inner}] / 2"))[:6] == "call 0"
    )
    assert hovered(page, 0, page.evaluate(f"C.begin[{1 - inner}] + 5e3"))[:6] == "call 1"


def test_hostile_names(open_page):
    page = open_page(made(2, 10))
    assert page.evaluate("window.hit") is None
    assert page.locator("img").count() == 0
    assert page.title() == page.locator("h1").inner_text()
    assert HOSTILE in page.title()
    box = page.locator("#view").bounding_box()
    page.mouse.move(box["x"] + page.evaluate("x(data.changes[0].at * 1e6)"), box["y"] + 13)
    assert HOSTILE in page.locator("#tip").inner_text()


def test_deaths_of_workers(open_page):
    """A cross on the lane tells what was lost, by pointer, finger and key; text stays text."""
    report = made(2, 40)
    work = report.work
    work.meet(2, "worker process 4002", "processes", 0.0)
    work.lose(2, 40, 1, 1, HOSTILE, 0.05)
    work.lose(0, 41, 3, 0, "ended by SIGKILL", 0.07)
    work.lose(1, -1, 2, 0, "ended by SIGKILL", 0.06)
    page = open_page(report, has_touch=True)
    assert "worker died" in page.locator(".bar").inner_text()
    lane = page.evaluate("lanes.find(lane => lane.name.endsWith(4002)).at")
    text = hovered(page, lane, 0.05e6)
    assert text.split("\n") == [
        "worker process 4002 died", "item 40 was lost", "at 50 ms", HOSTILE,
    ]  # fmt: skip
    assert page.locator("img").count() == 0
    box = page.locator("#view").bounding_box()
    page.mouse.move(box["x"], box["y"])
    page.locator("#view").focus()
    page.keyboard.press("x")
    assert "item 40 was lost" in page.locator("#said").text_content()
    page.keyboard.press("x")
    assert "items 41 to 43 were run again" in page.locator("#tip").inner_text()
    at = page.evaluate("deathAt(data.deaths[2])")
    page.touchscreen.tap(box["x"] + at[0], box["y"] + at[1])
    assert "2 items were run again" in page.locator("#tip").inner_text()
    # All pixels at once, as in `drawn`: where each cross is, and where there is none.
    colours = page.evaluate(
        """() => {
            const r = devicePixelRatio;
            const d = ctx.getImageData(0, 0, canvas.width, canvas.height).data;
            return [...data.deaths, {worker: 0, at: 0.02}].map(each => {
                const [px, py] = deathAt(each).map(at => Math.round(at * r));
                return [...d.slice(4 * (py * canvas.width + px)).slice(0, 3)];
            });
        }"""
    )
    assert [red > 150 and green < 130 and blue < 140 for red, green, blue in colours] == [
        *[True] * 3,
        False,
    ]


@pytest.mark.parametrize("items", [0, 1])
def test_few_items(open_page, items):
    page = open_page(made(1, items) if items else Report(work=Recording(0.0, keep=True)))
    assert page.locator("#note").is_visible() == (items == 0)
    page.locator("#view").focus()
    for key in ("ArrowRight", "ArrowDown", "End", "+", "-", ".", "0", "Escape"):
        page.keyboard.press(key)


def test_keyboard(open_page):
    """The arrows go from bar to bar and from worker to worker, and tell what is there."""
    page = open_page(made(3, 60))
    page.locator("#view").focus()
    page.keyboard.press("Home")
    assert page.locator("#said").text_content().startswith("item 0.")
    page.keyboard.press("ArrowRight")
    assert page.locator("#said").text_content().startswith("item 3.")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("C.worker[shown]") == 1
    page.keyboard.press("End")
    assert page.locator("#said").text_content().startswith("item 58.")
    assert page.locator("#tip").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#tip").is_visible()
    for _ in range(5):
        page.keyboard.press("+")
    assert page.evaluate("(to - from) / end") < 0.2
    left = page.evaluate("from")
    page.keyboard.press(".")
    assert page.evaluate("from") > left
    page.keyboard.press("0")
    assert page.evaluate("[from, to - end]") == [0, 0]


def test_zoom_by_wheel_buttons_and_drag(open_page):
    """What is under the pointer stays there."""
    page = open_page(made(2, 400))
    box = page.locator("#view").bounding_box()
    page.mouse.move(box["x"] + 700, box["y"] + 40)
    before = page.evaluate("us(700)")
    for _ in range(4):
        page.mouse.wheel(0, -200)
    page.wait_for_function("to - from < end / 4")
    assert page.evaluate("us(700)") == pytest.approx(before, rel=1e-6)
    page.mouse.down()
    page.mouse.move(box["x"] + 500, box["y"] + 40, steps=4)
    page.mouse.up()
    assert page.evaluate("us(500)") == pytest.approx(before, rel=1e-3)
    page.mouse.wheel(300, 0)
    page.wait_for_function(f"us(500) > {before} * 1.001")
    page.locator("#all").click()
    assert page.evaluate("to - from") == page.evaluate("end")
    page.locator("#in").click()
    assert page.evaluate("to - from") == pytest.approx(page.evaluate("end / 2"))
    page.mouse.dblclick(box["x"] + 600, box["y"] + 40)
    assert page.evaluate("to - from") < page.evaluate("end / 4")


def test_touch(open_page):
    """A tap shows a bar, two fingers zoom."""
    page = open_page(made(2, 40), has_touch=True, viewport={"width": 400, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    box = page.locator("#view").bounding_box()
    at = page.evaluate("[x(C.begin[5] + C.wall[5] / 2), laneTop(0) + laneHeight / 2]")
    page.touchscreen.tap(box["x"] + at[0], box["y"] + at[1])
    assert page.locator("#tip").is_visible()
    page.evaluate(
        """() => {
            const box = canvas.getBoundingClientRect();
            const fire = (type, id, px) => canvas.dispatchEvent(new PointerEvent(type, {
                pointerId: id, pointerType: "touch", bubbles: true,
                clientX: box.left + px, clientY: box.top + 40}));
            canvas.setPointerCapture = () => {};
            fire("pointerdown", 1, 180);
            fire("pointerdown", 2, 220);
            for (let d = 0; d <= 80; d += 20) {
                fire("pointermove", 1, 180 - d);
                fire("pointermove", 2, 220 + d);
            }
            fire("pointerup", 1, 100);
            fire("pointerup", 2, 300);
        }"""
    )
    assert page.evaluate("(to - from) / end") == pytest.approx(0.2, abs=0.02)


def test_dark_and_light(open_page):
    report = made(2, 40)
    light = open_page(report, color_scheme="light")
    dark = open_page(report, color_scheme="dark")
    page_colour = "getComputedStyle(document.body).backgroundColor"
    assert light.evaluate(page_colour) != dark.evaluate(page_colour)
    assert light.evaluate("colors.ink") != dark.evaluate("colors.ink")
    dark.emulate_media(color_scheme="light")
    dark.wait_for_function(f"colors.ink === '{light.evaluate('colors.ink')}'")


def test_cores_busy(open_page):
    """The curve is the CPU time of all workers per second of the clock."""
    page = open_page(made(4, 400))
    total = page.evaluate("C.cpu.reduce((a, b) => a + b, 0)")
    drawn = page.evaluate("cores.reduce((a, b) => a + b, 0) * (to - from) / cores.length")
    assert drawn == pytest.approx(total, rel=0.02)


def milliseconds(page, times, work):
    """How long a piece of the page's code takes, run so many times."""
    timed = "(() => { const t = performance.now(); for (let i = 0; i < %d; i++) { %s; } %s })()"
    return page.evaluate(timed % (times, work, "return performance.now() - t;"))


def test_a_hundred_thousand_items(open_page):
    """Drawing the whole, and any part of it, is done before one sees a delay."""
    page = open_page(made(8, 100_000))
    assert milliseconds(page, 10, "draw()") / 10 < 120
    page.evaluate("set(end * .4, end * .4 + 1e5)")
    assert milliseconds(page, 10, "draw()") / 10 < 30
    text = hovered(page, 3, page.evaluate("from + 5e4"))
    shown = page.evaluate("shown")
    assert shown < 0 or text.startswith(f"item {page.evaluate('C.first[shown]')}\n")
    # Hovering looks at few bars only.
    assert milliseconds(page, 1000, "chunkAt(300 + i % 500, laneTop(2) + 5)") < 200


def test_workers_that_are_replaced_share_lanes(open_page):
    """With a worker per item, two at a time, there are two lanes; a bar tells whose it is."""
    work = Recording(0.0, keep=True)
    for worker in range(600):
        begin = worker // 2 * 0.02 + worker % 2 * 0.005
        work.meet(worker, f"worker process {4000 + worker}", "processes", begin)
        work.add(worker, worker, 1, (begin, 0.015, 0.01), begin + 0.016)
    page = open_page(Report(callable="f", items=600, seconds=6.0, work=work))
    assert page.evaluate("lanes.length") == 2
    assert page.evaluate("lanes.map(lane => lane.to - lane.from)") == [300, 300]
    place = page.evaluate("C.first.indexOf(477)")
    lane, moment = page.evaluate(f"[C.worker[{place}], C.begin[{place}] + 1e3]")
    page.evaluate(f"set({moment} - 1e5, {moment} + 1e5)")
    text = hovered(page, lane, moment)
    assert text.startswith("item 477\n")
    assert "worker process 4477" in text


def test_many_workers(open_page):
    page = open_page(made(200, 2000), viewport={"width": 1100, "height": 1600})
    assert page.evaluate("lanes.length") == 200  # all at the same time
    assert page.locator("#view").bounding_box()["height"] < 1400
    assert hovered(
        page, 150, page.evaluate("C.begin[lanes[150].from] + C.wall[lanes[150].from] / 2")
    ).startswith("item ")
