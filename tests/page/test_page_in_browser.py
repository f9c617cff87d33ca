"""The status page in a real browser: what it shows, what it asks for, and that nothing on it fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from browser import CHROMIUM, Browser
from feed import Camera, feed, record, show_frame, status

from edge_vad.device import PageSettings
from edge_vad.page import StatusPage

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs the program chromium")

TOKEN = "a-token-of-many-letters"
GATE = Camera("gate", 7, ((400, 6, 1.7), (180, 4, 2.6), (3, 8, 1.9)))
YARD = Camera("yard", 3, ((250, 5, 1.3),), view=1)
CAMERAS = [GATE, YARD]
SIZES = {"light": (1360, 900, False), "dark": (1360, 900, True), "phone": (390, 844, False)}
READY = """document.querySelectorAll('.camera').length === 2
    && [...document.querySelectorAll('.frame')].every(f => f.querySelector('img')?.naturalWidth > 0)
    && document.querySelectorAll('path.line').length === 4 && document.querySelectorAll('.event').length >= 4"""


class Unit:
    """Feeds a page as a unit does, five times a second."""

    def __init__(self, page: StatusPage) -> None:
        self.page = page
        self.status = status(CAMERAS)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while not self._ended.wait(0.2):
            number += 1
            for camera in CAMERAS:
                show_frame(self.page, camera, time.monotonic(), camera.shown + number % 6)
            self.page.status(self.status)

    def close(self) -> None:
        self._ended.set()
        self._thread.join()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data") / "media"


@pytest.fixture
def page(media: Path) -> Iterator[StatusPage]:
    page = StatusPage(PageSettings(enabled=True, port=0), "north-gate", media)
    feed(page, CAMERAS, media)
    yield page
    page.close()


@pytest.fixture
def unit(page: StatusPage) -> Iterator[Unit]:
    unit = Unit(page)
    yield unit
    unit.close()


@pytest.fixture
def shown(browser: Browser, page: StatusPage, unit: Unit) -> Browser:
    """The browser with the page loaded, on a desk by day."""
    browser.size(1360, 900)
    browser.errors.clear()
    browser.requests.clear()
    browser.open(page.url)
    browser.until(READY)
    return browser


@pytest.mark.parametrize("look", SIZES)
def test_it_shows_cameras_scores_events_and_health(
    look: str, browser: Browser, page: StatusPage, unit: Unit, tmp_path: Path
) -> None:
    width, height, dark = SIZES[look]
    browser.size(width, height, dark, phone=look == "phone")
    browser.errors.clear()
    browser.requests.clear()
    browser.open(page.url)
    browser.until(READY)
    text = browser.run("document.body.innerText")
    for expected in ("north-gate", "gate", "yard", "Alarm", "1.65", "2.60", "1.30", "61 °C", "1 d 3 h", "encoder", "6.2 ms"):
        assert expected in text, expected
    for expected in ("no route to host", "Under-voltage since boot", "Unit started", "Play clip"):
        assert expected in text, expected
    assert ("982,140" in text) == (look != "phone")  # there it is folded away
    assert browser.run("document.title") == "Alarm · north-gate"
    time.sleep(2.5)  # through the next round of questions
    assert browser.errors == []
    assert all(address.startswith(page.url) for address in browser.requests)
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run(SHIFT) < 0.02
    image = cv2.imread(str(browser.screenshot(tmp_path / f"{look}.png")))
    assert image is not None and image.shape[:2] == (height, width)
    background = np.median(image[-200:, :8].reshape(-1, 3), axis=0)
    assert (background < 60).all() if dark else (background > 200).all()


# How much what was seen already has moved; browsers remember it for whoever asks later.
SHIFT = """new Promise(resolve => {
    let sum = 0;
    new PerformanceObserver(list => list.getEntries().forEach(entry => sum += entry.value))
        .observe({type: 'layout-shift', buffered: true});
    setTimeout(() => resolve(sum), 300);
})"""


def test_pictures_stop_while_nobody_looks(shown: Browser) -> None:
    shown.run("Object.defineProperty(document, 'hidden', {get: () => window.away ?? true, configurable: true})")
    time.sleep(1.0)
    shown.run("1")
    before = len(shown.requests)
    time.sleep(2.5)
    shown.run("1")
    assert len(shown.requests) == before
    shown.run("window.away = false; document.dispatchEvent(new Event('visibilitychange'))")
    time.sleep(1.0)
    shown.run("1")
    assert len(shown.requests) > before + 2


def test_the_map_can_be_switched_off(shown: Browser) -> None:
    assert all("map=1" in address for address in shown.requests if "/live/" in address)
    shown.run("document.querySelector('.switch input').click()")
    shown.until("document.querySelector('.frame img').src.includes('map=0')")
    assert shown.run("[...document.querySelectorAll('.frame img')][1].src.includes('map=1')")


def test_the_chart_answers_pointer_and_keyboard(shown: Browser) -> None:
    place = shown.run("(r => [r.left, r.top, r.width, r.height])(document.querySelector('.chart').getBoundingClientRect())")
    left, top, width, height = place
    readout = "document.querySelector('.readout').textContent"
    assert shown.run(readout).startswith("highest 2.60 at ")
    shown.mouse(left + 30 + (width - 38) * 0.7, top + height / 2)  # three minutes ago
    shown.until("document.querySelector('.cursor') !== null")
    assert "highest" not in shown.run(readout) and " ago" in shown.run(readout)
    shown.mouse(5, 5)
    shown.until("document.querySelector('.cursor') === null")
    shown.run("document.querySelector('.chart').focus()")
    shown.key("ArrowLeft")
    shown.until("document.querySelector('.cursor') !== null")
    assert " at " in shown.run("document.querySelector('.chart').getAttribute('aria-valuetext')")


def test_a_clip_plays_and_ends_with_its_window(shown: Browser, page: StatusPage) -> None:
    shown.run("document.querySelector('button[aria-label^=\"Play clip\"]').click()")
    shown.until("document.getElementById('player').open && document.getElementById('player-picture').naturalWidth === 360")
    assert any("/clip/gate/gate-0002.avi" in address for address in shown.requests)
    assert shown.run("document.getElementById('download').getAttribute('href')") == "/media/gate/gate-0002.avi"
    assert shown.run("document.activeElement.id") == "close"
    shown.key("Escape")
    shown.until("!document.getElementById('player').open && !document.getElementById('player-picture').hasAttribute('src')")
    shown.run("document.querySelector('button.thumb').click()")
    shown.until(
        "document.getElementById('player-picture').src.includes('/media/') && document.getElementById('again').hidden"
    )
    assert shown.errors == []


def test_a_new_event_appears_and_is_announced(shown: Browser, page: StatusPage, unit: Unit) -> None:
    page.record(record(99, time.monotonic(), "yard", "anomaly", "start", {"id": 77, "start_s": 1.0, "peak_score": 3.21}))
    shown.until("document.getElementById('events').firstChild.innerText.includes('3.21')")
    shown.until("document.getElementById('said').textContent.includes('Alarm on yard')")
    assert shown.run("document.querySelectorAll('.camera.alarm').length") == 2
    before = shown.run("window.kept = document.getElementById('events').lastChild; 1")
    page.record(record(100, time.monotonic(), "yard", "anomaly", "end", {"id": 77, "start_s": 1.0, "end_s": 5.2}))
    shown.until("document.querySelectorAll('.camera.alarm').length === 1")
    assert before and shown.run("window.kept === document.getElementById('events').lastChild")  # not built again


def test_many_events_are_folded(shown: Browser, page: StatusPage) -> None:
    for number in range(30):
        data = {"id": 100 + number, "start_s": 1.0, "end_s": 2.0, "peak_score": 1.5}
        page.record(record(200 + number, time.monotonic(), "yard", "anomaly", "end", data))
    shown.until("document.getElementById('more').textContent.startsWith('Show 2')")
    assert shown.run("document.querySelectorAll('.event').length") == 6
    shown.run("document.getElementById('more').click()")
    assert shown.run("document.querySelectorAll('.event').length") == 34


def test_a_lost_camera_says_so(shown: Browser, unit: Unit) -> None:
    unit.status = status(CAMERAS, yard="lost")
    shown.until("document.getElementById('state').textContent === 'Camera lost'")
    shown.until("document.querySelectorAll('.frame')[1].innerText.includes('no frame for 5.0 s')")
    assert "1 of 2 work" in shown.run("document.getElementById('health').innerText")


def test_a_unit_that_goes_away_and_comes_back(shown: Browser, page: StatusPage, unit: Unit, media: Path) -> None:
    page.close()
    shown.until("!document.getElementById('banner').hidden")
    assert "does not answer" in shown.run("document.getElementById('banner').textContent")
    assert shown.run("document.querySelector('.frame img').naturalWidth") == 360  # the last picture stays
    port = int(page.url.rstrip("/").rpartition(":")[2])
    again = StatusPage(PageSettings(enabled=True, port=port), "north-gate", media)
    try:
        feed(again, CAMERAS, None)
        shown.until("document.getElementById('banner').hidden")
    finally:
        again.close()


def test_a_unit_that_hangs_is_told_from_one_that_runs(
    shown: Browser, unit: Unit, monkeypatch: pytest.MonkeyPatch, page: StatusPage
) -> None:
    unit.close()
    monkeypatch.setattr(page._state, "_status_s", time.monotonic() - 30)
    shown.until("document.getElementById('banner').textContent.includes('said nothing')")


UNNAMED = """[...document.querySelectorAll('img:not([alt]), button, a, input, [tabindex="0"]')].filter(element =>
    !(element.getAttribute('aria-label') || element.textContent.trim() || element.closest('label')?.textContent)
).map(element => element.outerHTML)"""


def test_everything_has_a_name_and_can_be_reached(shown: Browser) -> None:
    unnamed = shown.run(UNNAMED)
    assert unnamed == []
    assert shown.run("document.documentElement.lang") == "en"
    reached = []
    for _ in range(12):
        shown.key("Tab")
        reached.append(shown.run("document.activeElement.tagName + (document.activeElement.className || '')"))
    assert "DIVchart" in reached and "INPUT" in reached and "BUTTONthumb" in reached


def test_the_token_opens_the_page_and_leaves_the_address(browser: Browser) -> None:
    page = StatusPage(PageSettings(enabled=True, port=0, token=TOKEN), "north-gate", None)
    try:
        feed(page, CAMERAS, None)
        browser.size(800, 600)
        browser.open(page.url)
        browser.until("document.getElementById('token') !== null")
        browser.run("document.getElementById('token').value = 'something else'; document.forms[0].submit()")
        browser.until("document.body.innerText.includes('That is not the token')")
        browser.errors.clear()
        browser.run(f"document.getElementById('token').value = '{TOKEN}'; document.forms[0].submit()")
        browser.until("document.querySelectorAll('.camera').length === 2 && location.search === ''")
        assert browser.run("document.cookie") == ""  # not for scripts
        browser.open(page.url)
        browser.until("document.querySelectorAll('.camera').length === 2")
        assert browser.errors == []
    finally:
        page.close()
