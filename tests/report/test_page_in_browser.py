"""The page of `dstack report --html` in a real headless browser: what it shows, filters and asks for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from reconciler.report.html.page import render_page
from reconciler.report.html.page_data import page_data
from tests.doubles.browser.chromium import chromium
from tests.report.test_page import HOSTILE, LEDGER, WIDE, of_run, state, used


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@contextmanager
def opened(browser: Any, folder: Path, text: str, **options: Any) -> Iterator[Any]:
    """The page in a tab of its own, when it has drawn itself. Fails where its script or its policy complains."""
    path = folder / "report.html"
    path.write_text(text)
    tab = browser.new_page(**options)
    complaints: list[str] = []
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("dialog", lambda dialog: complaints.append(dialog.message))
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(path.as_uri())
    tab.wait_for_selector("html[data-ready=yes]")
    yield tab
    assert complaints == []
    assert asked == [path.as_uri()]
    tab.close()


def page(*more: Any) -> str:
    return render_page(page_data([*LEDGER, *more], state(), period=WIDE))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_it_is_accessible(browser: Any, tmp_path: Path, scheme: str, width: int) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="the test extra is not installed")
    options = {"color_scheme": scheme, "viewport": {"width": width, "height": 800}}
    with opened(browser, tmp_path, page(), **options) as tab:
        tab.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        found = axe.Axe().run(tab).response
        assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]] == []
        assert len(found["passes"]) > 20


def test_every_section_has_its_picture_and_its_table(browser: Any, tmp_path: Path) -> None:
    with opened(browser, tmp_path, page()) as tab:
        for place in ("overview", "bars", "days", "by-pool", "by-user", "by-run", "runs"):
            assert tab.locator(f"#{place} svg[role=img][aria-label]").count() == 1, place
            assert tab.locator(f"#{place} svg [data-tip]").count() > 0, place
            assert tab.locator(f"#{place}-table tbody tr").count() > 0, place
        # 50h at $2, 10h at $0.3333, 2h at $1, 5h at $1.5; 1h of no known price
        assert "$112.83 + $? for 1h00m" in tab.inner_text("#summary")


def test_filters_leave_what_was_asked_for(browser: Any, tmp_path: Path) -> None:
    with opened(browser, tmp_path, page()) as tab:
        assert tab.inner_text("#filtered").startswith("Nothing is filtered. 5 instances, 4 runs, $112.83")
        tab.select_option("#pool", "cpu")
        assert tab.inner_text("#filtered") == "Shown: pool cpu. 1 instance, 0 runs, $0.00 + $? for 1h00m."
        tab.click("button[type=reset]")
        tab.select_option("#user", "bob")
        # 10 of 20 hours shared with one of one block, as two blocks: 10h x 2/3 + 10h, at $2
        assert tab.inner_text("#filtered") == "Shown: user bob. 1 instance, 1 run, $33.33."
        tab.click("button[type=reset]")
        tab.fill("#run", "x-name")
        tab.locator("#filtered", has_text="Shown: run x-name. 1 instance").wait_for()
        assert tab.locator("#runs-table tbody tr").count() == 1
        assert "exit 3" in tab.text_content("#runs-table")
        tab.fill("#run", "no such run")
        tab.locator("#filtered", has_text="0 instances, 0 runs, $0.00").wait_for()


def test_tables_have_pages_and_bars_have_tips(browser: Any, tmp_path: Path) -> None:
    many = [of_run("submitted", f"r{number}", number) for number in range(120)]
    with opened(browser, tmp_path, page(*many)) as tab:
        tab.focus("#events-table button[aria-label^=Next]")
        tab.keyboard.press("Enter")
        assert tab.inner_text("#events-table [role=status]") == "51 to 100 of 130"
        tab.hover("#bars svg [data-tip] >> nth=0")
        assert "gpu-9" in tab.inner_text("#tip")


def test_a_print_has_every_table_and_no_controls(browser: Any, tmp_path: Path) -> None:
    with opened(browser, tmp_path, page()) as tab:
        tab.emulate_media(media="print")
        tab.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert tab.is_visible("#days-table table")
        assert not tab.is_visible("#filters")
        tab.evaluate("dispatchEvent(new Event('afterprint'))")
        assert not tab.is_visible("#days-table table")
        assert tab.pdf()[:5] == b"%PDF-"


def test_colours_can_be_chosen(browser: Any, tmp_path: Path) -> None:
    back = "getComputedStyle(document.body).backgroundColor"
    with opened(browser, tmp_path, page(), color_scheme="light") as tab:
        light = tab.evaluate(back)
        tab.select_option("#theme", "dark")
        assert tab.evaluate(back) != light


def test_a_hostile_name_stays_text(browser: Any, tmp_path: Path) -> None:
    with opened(browser, tmp_path, page(of_run("submitted", "h", 9, name=HOSTILE), used("h", 9, 99, on="a"))) as tab:
        assert tab.title() == "dstack report: demo"
        assert tab.locator("img").count() == 0
        assert "onerror=alert(1)" in tab.text_content("#events-table")


def test_the_policy_stops_a_request(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(page())
    tab = browser.new_page()
    tab.goto(path.as_uri())
    refused = (
        "new Promise((yes) => addEventListener('securitypolicyviolation', (event) => yes(event.effectiveDirective)))"
    )
    asks = "document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/pixel'}))"
    assert tab.evaluate(f"() => {{ const told = {refused}; {asks}; return told; }}") == "img-src"
    tab.close()


def test_a_project_without_instances_has_a_page(browser: Any, tmp_path: Path) -> None:
    with opened(browser, tmp_path, render_page(page_data([], None, period=WIDE))) as tab:
        assert tab.inner_text("#filtered") == "Nothing is filtered. 0 instances, 0 runs, $0.00."
        assert tab.inner_text("#pending-table [role=status]") == "None"
