"""Rating in the report, in a real browser: blind, by mouse and keyboard; what is downloaded is read back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from browsing import browser, watched
from conftest import Run
from viewed import SCRIPT, unit

from nxtools.commands.score import main as nx_score
from nxtools.commands.view import main as nx_view
from nxtools.score.ratings import check_rating, text_digest
from nxtools.stream import dump

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WORDS = (" not", " the") * 3  # that the units fire on
UNITS = len(WORDS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few units with two explanations each and a null, scored, and the report of them."""
    here = tmp_path_factory.mktemp("rating")
    lines = []
    for index, word in enumerate(WORDS):
        line = unit(0, index, word)
        other = {"id": "o", "text": f'" boat" ({9 - index})', "by": {"explainer": "person"}, "scale": 3.0}
        lines.append(line | {"explanations": [*line["explanations"], other]})
    lines[1]["explanations"][1] = {"id": "h", "text": f"words {SCRIPT}", "by": {"explainer": "x"}}
    lines.append(unit(0, UNITS, " the") | {"dead": True, "explanations": []})
    (here / "units.jsonl").write_bytes(b"".join(map(dump, lines)))
    store = ["-q", "--cache", str(here / "cache"), "--allow-errors", "9"]
    for command, source, made in ((nx_score, "units", "scored.jsonl"), (nx_view, "scored", "report.html")):
        with pytest.raises(SystemExit) as end:
            command.main([str(here / f"{source}.jsonl"), "-o", str(here / made), *store])
        assert end.value.code == 0
    return here


@pytest.fixture(scope="module")
def opened() -> Iterator[Browser]:
    with browser() as one:
        yield one


@pytest.fixture
def page(opened: Browser, folder: Path) -> Iterator[Page]:
    """A page that must end without an error, a message or a request."""
    context = opened.new_context(viewport={"width": 1280, "height": 900}, offline=True)
    context.set_default_timeout(5000)
    page = context.new_page()
    seen = watched(page)
    page.goto(f"{(folder / 'report.html').as_uri()}#/rate")
    page.wait_for_selector("h1:text-is('Rate explanations')")
    yield page
    assert seen == []
    assert page.evaluate("typeof pwned") == "undefined"
    context.close()


def go(page: Page, index: int) -> None:
    page.evaluate("index => { location.hash = `#/rate/0:${index}`; }", index)
    page.wait_for_selector(f"h1:text-is('Rate unit 0:{index}')")


def downloaded(page: Page, path: Path) -> list[dict[str, Any]]:
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    assert download.value.suggested_filename.endswith(".jsonl")
    download.value.save_as(path)
    lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    for line in lines:
        check_rating(line)
    return lines


def texts(page: Page) -> list[str]:
    return page.locator(".to-rate blockquote").all_inner_texts()


def test_neither_scores_nor_authors_are_shown_and_the_order_is_random(page: Page) -> None:
    orders = set()
    for index in (2, 3, 4, 5):
        go(page, index)
        shown = page.locator(".rating").inner_text()
        assert "person" not in shown and "correlation" not in shown and "null" not in shown
        assert len(texts(page)) == 3  # the null, which is another unit's, among them
        assert page.locator(".tokens.overlaid").count() == 0 and page.locator(".tokens").count() > 3
        orders.add(tuple("boat" in text for text in texts(page)))
        before = texts(page)
        page.evaluate("location.hash = '#/rate'")
        page.wait_for_selector("h1:text-is('Rate explanations')")
        go(page, index)
        assert texts(page) == before  # but stays while the page is open
    for _ in range(20):
        page.reload()
        page.wait_for_selector("h1:text-is('Rate unit 0:5')")
        orders.add(tuple("boat" in text for text in texts(page)))
        if len(orders) > 1:
            return
    raise AssertionError("always the same order")


def test_by_mouse_and_what_is_downloaded_is_read_by_nx_score(page: Page, folder: Path, run: Run) -> None:
    page.get_by_label("Your name").fill("ada <b>")
    page.get_by_label("Your name").press("Tab")
    for index, word in enumerate(WORDS):
        go(page, index)
        for one in page.locator(".to-rate").all():
            good = f'"{word}"' in one.locator("blockquote").inner_text()
            one.get_by_role("radio", name="5," if good else "2,").check()
    assert "Judgements" not in page.locator(".done").inner_text()
    lines = downloaded(page, folder / "ratings.jsonl")
    assert {line["rater"] for line in lines} == {"ada <b>"}
    assert text_digest('" not" (10)') in {line["explanation"] for line in lines if line["rating"] == 5}
    done = run(
        "nx-score",
        "--ratings",
        folder / "ratings.jsonl",
        "--cache",
        folder / "cache",
        *OK,
        folder / "scored.jsonl",
    )
    assert done.returncode == 0, done.stderr
    told = done.stderr.decode()
    assert f"1 rater, {len(lines)} judgements of {UNITS} units" in told
    assert "on no line" not in told and "did not come in" not in told
    (preferred,) = [line for line in told.splitlines() if "preferred one of two is higher" in line]
    assert " 1.00 [" in preferred


OK = ("--allow-errors", "9")


def test_by_keyboard_ranked_and_written(page: Page, folder: Path, run: Run) -> None:
    go(page, 2)
    first, second, third = texts(page)
    for key in "514":
        page.keyboard.press(key)
    assert page.locator(".to-rate :checked").count() == 3
    focused = page.evaluate("document.activeElement.textContent")
    assert focused == "Next unit →"
    page.get_by_role("button", name="C is better").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Keep this order").press("Enter")
    page.get_by_label("Your own explanation").fill('" not" (8)')
    page.keyboard.press("5")  # types, and rates nothing
    page.get_by_label("Your own explanation").fill('" not" (8)')
    page.get_by_role("button", name="Keep it").press("Enter")
    lines = downloaded(page, folder / "keyboard.jsonl")
    rated = {line["explanation"]: line["rating"] for line in lines if "rating" in line}
    assert rated == {
        text_digest(text): grade for text, grade in zip((first, second, third), (5, 1, 4), strict=True)
    }
    (ranked,) = [line["ranked"] for line in lines if "ranked" in line]
    assert ranked == [text_digest(text) for text in (third, first, second)]
    (written,) = [line["written"] for line in lines if "written" in line]
    assert written == '" not" (8)'
    assert lines[0]["rater"].startswith("anonymous-")
    name = f"human:{folder / 'keyboard.jsonl'}"
    pipe = f"nx-explain --explainer {name} {folder}/scored.jsonl | nx-score --allow-errors 9"
    done = run(pipe, env={"NXTOOLS_CACHE": str(folder / "cache")})
    assert done.returncode == 0, done.stderr
    human = orjson.loads(done.stdout.splitlines()[2])["explanations"][-1]
    assert human["by"]["explainer"] == "human" and human["scores"][0]["top_and_random"] > 0.5
    page.keyboard.press("n")
    page.wait_for_function("document.querySelector('h1').textContent !== 'Rate unit 0:2'")
    assert page.locator("h1").inner_text() != f"Rate unit 0:{UNITS}"  # dead


def test_what_was_said_is_there_after_a_reload_and_can_be_forgotten(page: Page) -> None:
    go(page, 1)
    assert any(SCRIPT in text for text in texts(page))
    page.locator(".to-rate").nth(1).get_by_role("radio", name="3,").check()
    said = texts(page)[1]
    page.reload()
    page.wait_for_selector("h1:text-is('Rate unit 0:1')")
    kept = {
        text: one.locator(":checked").count()
        for text, one in zip(texts(page), page.locator(".to-rate").all(), strict=True)
    }
    assert kept == {text: int(text == said) for text in kept}
    page.evaluate("location.hash = '#/rate'")
    page.get_by_role("button", name="Forget my judgements").click()
    page.get_by_role("button", name="Really forget everything?").click()
    page.wait_for_function("document.querySelector('.done').textContent.startsWith('0 judgements')")
    assert page.get_by_role("button", name="Download").is_disabled()
