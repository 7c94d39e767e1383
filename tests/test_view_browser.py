"""The report in a real browser, opened from disk: everything that people do with it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from browsing import browser, watched
from conftest import UNITS as GOLDEN
from viewed import HOSTILE, LAYERS, PER_LAYER, SCRIPT, lines

from nxtools.commands.score import main as nx_score
from nxtools.commands.view import main as nx_view
from nxtools.stream import dump

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

UNITS = LAYERS * PER_LAYER
UNITS_WITHOUT_SCORES = GOLDEN.read_bytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The units, scored by nx-score, and the report of them."""
    here = tmp_path_factory.mktemp("report")
    (here / "units.jsonl").write_bytes(b"".join(map(dump, lines())))
    store = ["-q", "--cache", str(here / "cache")]
    for command, arguments in (
        (nx_score, [str(here / "units.jsonl"), "-o", str(here / "scored.jsonl"), *store]),
        (nx_view, [str(here / "scored.jsonl"), "-o", str(here / "report.html"), *store]),
    ):
        with pytest.raises(SystemExit) as end:
            command.main(arguments)
        assert end.value.code in (0, 1)  # one unit is an error
    return here


@pytest.fixture(scope="module")
def scored(folder: Path) -> dict[str, dict[str, Any]]:
    records = [orjson.loads(line) for line in (folder / "scored.jsonl").read_bytes().splitlines()]
    return {f"{one['unit']['layer']}:{one['unit']['index']}": one for one in records}


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
    page.goto((folder / "report.html").as_uri())
    page.wait_for_selector(".units tbody tr")
    yield page
    assert seen == []
    assert page.evaluate("typeof pwned") == "undefined"
    context.close()


def units(page: Page) -> list[str]:
    return page.locator(".units tbody th").all_inner_texts()


def go(page: Page, address: str) -> None:
    page.evaluate("address => { location.hash = `#/unit/${address}`; }", address)
    page.wait_for_function(
        "address => document.querySelector('h1')?.textContent === `Unit ${address}`", arg=address
    )


def value(record: dict[str, Any], figure: str = "top_and_random") -> float | None:
    told = record.get("explanations") or []
    scores = told[0].get("scores") if told else None
    return scores[0].get(figure) if scores else None


# The start page


def test_it_says_what_was_run_and_how_well_it_did(page: Page, scored: dict[str, dict[str, Any]]) -> None:
    known = [found for one in scored.values() if (found := value(one)) is not None]
    tiles = page.locator(".tiles li").all_inner_texts()
    assert tiles[0].startswith(f"{sum(known) / len(known):.3f} ±") and f"n = {len(known)}" in tiles[0]
    assert page.locator(".charts svg[role=img]").count() == 2
    assert "person" in page.locator("#run").inner_text()
    table = page.locator("#scores table")
    series = ["person", "person #2", "token-table", "token-list", "null"]
    assert table.locator("tbody th").all_inner_texts() == series
    assert re.search(r"\d\.\d{3} ±\d\.\d{3}", table.locator("tbody tr").first.inner_text())
    page.get_by_role("combobox", name="Figure").select_option(label="random only")
    assert "random only" in (table.locator("caption").text_content() or "")


def test_lists_lead_to_the_best_and_the_most_improved(page: Page, scored: dict[str, dict[str, Any]]) -> None:
    best = max(
        (one for one in scored if value(scored[one]) is not None), key=lambda one: value(scored[one]) or 0
    )
    lists = page.locator("#first .units-list")
    assert lists.nth(0).locator(".number").first.inner_text() == f"{value(scored[best]):.2f}"
    assert lists.nth(2).locator("li").count() == 1
    lists.nth(2).locator("a").click()
    page.wait_for_selector("h1:text-is('Unit 1:7')")


def test_search_finds_explanations_tokens_and_names(page: Page) -> None:
    search = page.get_by_label("Search", exact=True)
    search.fill("RIVER")
    assert page.locator(".count").inner_text() == f"{len(units(page))} of {UNITS} units"
    assert 0 < len(units(page)) < UNITS
    assert all("river" in text for text in page.locator(".units tbody tr").all_inner_texts())
    search.fill("2:39")
    assert units(page) == ["2:39"]
    search.fill("no such thing")
    assert page.locator(".count").inner_text() == f"No unit is like this. 0 of {UNITS} units"
    page.get_by_role("button", name="Show all").click()
    assert page.locator(".count").inner_text() == f"{UNITS} of {UNITS} units"
    assert page.get_by_label("Search", exact=True).input_value() == ""


def test_filters(page: Page, scored: dict[str, dict[str, Any]]) -> None:
    page.get_by_role("combobox", name="Layer").select_option("2")
    assert units(page) == [f"2:{index}" for index in range(PER_LAYER)]
    page.get_by_label("Score at least").fill("0.9")
    assert set(units(page)) == {one for one in scored if one[0] == "2" and (value(scored[one]) or 0) >= 0.9}
    page.get_by_role("button", name="Show all").click()
    page.get_by_label("Density in % at most").fill("1.25")
    assert {int(one.split(":")[1]) for one in units(page)} == {0, 1, 2}
    page.get_by_role("button", name="Show all").click()
    for state, expected in {"dead": ["0:1"], "failed": ["0:2"]}.items():
        page.get_by_role("combobox", name="Units").select_option(state)
        assert units(page) == expected
    page.get_by_role("combobox", name="Units").select_option("unscored")
    assert set(units(page)) == {one for one in scored if value(scored[one]) is None}


def test_sorting_by_keyboard_and_pages(page: Page, scored: dict[str, dict[str, Any]]) -> None:
    heading = page.locator("[data-key=score]")
    heading.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    order = sorted(
        (one for one in scored if value(scored[one]) is not None), key=lambda one: -(value(scored[one]) or 0)
    )
    assert units(page) == order[:50]
    page.keyboard.press("Enter")  # the focus stayed where it was
    assert heading.get_attribute("aria-sort") == "ascending"
    assert [value(scored[one]) for one in units(page)] == sorted(value(scored[one]) for one in order)[:50]
    page.get_by_role("button", name="Next").click()
    assert page.locator(".pager span").inner_text() == f"51–100 of {UNITS}"
    page.get_by_role("button", name="Next").click()
    assert units(page)[-1] not in order  # what has no score comes last
    assert page.get_by_role("button", name="Next").is_disabled()


def test_a_unit_and_back_to_the_same_table(page: Page) -> None:
    page.get_by_role("combobox", name="Layer").select_option("1")
    page.get_by_label("Search", exact=True).fill("boat")
    before = units(page)
    page.locator(".units tbody a").nth(1).scroll_into_view_if_needed()
    down = page.evaluate("scrollY")
    page.locator(".units tbody a").nth(1).click()
    page.wait_for_selector(f"h1:text-is('Unit {before[1]}')")
    assert page.url.endswith(f"#/unit/{before[1]}")
    assert page.title().startswith(f"Unit {before[1]}")
    assert page.evaluate("[scrollY, document.activeElement.id]") == [0, "main"]
    page.get_by_role("link", name="Next").click()
    page.wait_for_selector(f"h1:text-is('Unit {before[2]}')")
    page.go_back()
    page.go_back()
    page.wait_for_selector(".units tbody tr")
    assert units(page) == before
    assert page.get_by_label("Search", exact=True).input_value() == "boat"
    page.wait_for_function("down => Math.abs(scrollY - down) < 2", arg=down)
    assert down > 300


def test_going_to_a_unit_by_name_by_chance_and_by_address(page: Page, folder: Path) -> None:
    field = page.get_by_label("Go to a unit, such as 2:41")
    field.fill("9:9")
    field.press("Enter")
    page.wait_for_selector("[role=status]:text-is('There is no unit 9:9.')", state="attached")
    field.fill("2:3")
    field.press("Enter")
    page.wait_for_selector("h1:text-is('Unit 2:3')")
    page.get_by_role("button", name="Random unit").click()
    page.wait_for_function("() => !document.querySelector('h1').textContent.endsWith(' 2:3')")
    page.goto("about:blank")
    page.goto(f"{(folder / 'report.html').as_uri()}#/unit/1:7")
    page.wait_for_selector("h1:text-is('Unit 1:7')")
    page.goto(f"{(folder / 'report.html').as_uri()}#/unit/7:7")
    page.wait_for_selector("h1:text-is('Nothing here')")


# A unit


def test_exact_values_on_hover_and_by_keyboard(page: Page, scored: dict[str, dict[str, Any]]) -> None:
    go(page, "1:9")
    excerpt = scored["1:9"]["excerpts"][0]
    tokens = page.locator("[role=listbox]").first.locator("[role=option]")
    tip = page.locator(".tip")
    tokens.nth(5).hover()
    assert f"activation {excerpt['activations'][5]:g}".replace("-", "−") in tip.inner_text()
    assert re.search(r"simulated \d", tip.inner_text())
    tokens.nth(0).focus()
    assert "left out" in tip.inner_text()
    for place in (1, 2):
        page.keyboard.press("ArrowRight")
        assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith(
            tokens.nth(place).inner_text()
        )
        assert f"{excerpt['activations'][place]:g}".replace("-", "−") in tip.inner_text()
    page.keyboard.press("End")
    assert f"token {len(excerpt['tokens'])}," in tip.inner_text()
    assert page.locator("[role=listbox]").first.locator("[tabindex='0']").count() == 1
    page.keyboard.press("Escape")
    assert tip.is_hidden()


def test_true_and_simulated_stacked_or_overlaid(page: Page) -> None:
    go(page, "1:9")
    strips = page.locator("#excerpts [role=listbox]")
    alone = strips.count()
    assert page.locator("#excerpts .overlaid").count() == alone > 0
    page.get_by_role("radio", name="stacked").check()
    assert (strips.count(), page.locator("#excerpts .overlaid").count()) == (2 * alone, 0)
    assert page.locator(".line-name").first.inner_text() == "true"
    go(page, "1:10")  # the choice holds
    assert page.locator(".line-name").count() == strips.count()
    page.get_by_role("combobox", name="Set").select_option("held-out")
    assert set(page.locator("#excerpts h4").all_inner_texts()) == {"held-out 4 excerpts"}


def test_all_excerpts_are_on_one_scale(page: Page, scored: dict[str, dict[str, Any]]) -> None:
    """Equal activations have equal colours wherever they stand, and what is below zero has its own."""
    go(page, "1:7")
    page.get_by_role("radio", name="true only").check()
    found = page.evaluate(
        """() => [...document.querySelectorAll('#excerpts [role=option]')].map((item) => [
            item.told.truth, item.style.getPropertyValue('--v'), item.classList.contains('v-negative')])"""
    )
    scale = max(abs(v) for e in scored["1:7"]["excerpts"] for v in e["activations"] if v is not None)
    assert len(found) > 300
    for truth, share, negative in found:
        if truth is not None:
            assert float(share.rstrip("%")) == pytest.approx(100 * abs(truth) / scale, abs=0.06)
            assert negative == (truth < 0)


def test_a_unit_with_everything(page: Page) -> None:
    go(page, "1:7")
    text = page.locator("main").inner_text()
    for told in (
        "validation rose from 0.75 to 0.8.",
        "top and random 0.750 before, 0.875 after",
        "Said to fire, and did not 1",
        "The unit fires 1\nHe did not.\nhighest 3.25 · round 1, for the reviser",
        "It does not 1\nA boat on the river.",
        "Tokens it promotes",
        "Upstream, inhibiting it",
        "there is no layer behind it",
        "With its mean in its place 0.1",
        "0.25 [0.2, 0.3]",
        "Logits that rise",
        "Lowest",
        "Spread over all strengths",
        "drawn with probability 0.25",
    ):
        assert told in text, told
    assert page.locator("#scatter circle").count() > 80
    assert page.locator("#statistics svg rect").count() == 4
    page.locator("#connections a", has_text="0:3").click()
    page.wait_for_selector("h1:text-is('Unit 0:3')")
    assert "Nothing is known of what the weights connect it to" in page.locator("#connections").inner_text()


def test_nobody_who_writes_is_shown_held_out_excerpts(page: Page, scored: dict[str, dict[str, Any]]) -> None:
    page.evaluate("location.hash = '#/rate/1:9'")
    shown = page.locator("#rate-excerpts [role=listbox]")
    shown.first.wait_for()
    expected = [e for e in scored["1:9"]["excerpts"] if e["set"] == "validation"]
    texts = {"".join(e["tokens"]).replace("\n", "↵") for e in expected}
    assert shown.count() == len(expected)
    assert {"".join(strip.locator("[role=option]").all_inner_texts()) for strip in shown.all()} == texts


def test_dead_and_failed_units_say_so(page: Page) -> None:
    for address, told in {"0:1": "dead: it never fires", "0:2": "failed: explain: nothing fires"}.items():
        go(page, address)
        assert told in page.locator(".head").inner_text()
    go(page, "0:4")
    assert "Nothing has explained this unit yet" in page.locator("#explanation").inner_text()


def test_hostile_strings_are_shown_and_do_nothing(page: Page) -> None:
    """What they would do is looked at when the page closes."""
    assert page.locator("img").count() == 0
    go(page, "0:0")
    assert page.locator("img, b[onmouseover]").count() == 0
    text = page.locator("main").inner_text()
    assert SCRIPT in text
    assert "⟨U+202E⟩ reversed" in text and "⟨U+2028⟩" in text and "∅" in text
    assert not set("\u202e\u2028") & set(page.content().partition("<main")[2])
    shown = page.locator("#excerpts [role=option]").all_inner_texts()
    assert HOSTILE[3] in shown and HOSTILE[4] in shown and "\ufffd" in shown
    for place in range(len(HOSTILE)):
        page.locator("#excerpts [role=option]").nth(place).hover()


@pytest.mark.parametrize("given", [b"", UNITS_WITHOUT_SCORES], ids=["no units", "units without scores"])
def test_a_report_of_little_says_so(opened: Browser, tmp_path: Path, given: bytes) -> None:
    (tmp_path / "units.jsonl").write_bytes(given)
    with pytest.raises(SystemExit):
        nx_view.main([str(tmp_path / "units.jsonl"), "-q", "-o", str(tmp_path / "report.html")])
    page = opened.new_page()
    seen = watched(page)
    page.goto((tmp_path / "report.html").as_uri())
    page.wait_for_selector(".count:has-text('of')")
    assert "No unit has a score yet" in page.locator("#scores").inner_text()
    page.get_by_role("button", name="Random unit").click()
    if given:
        page.wait_for_selector("h1:has-text('Unit 0:')")
        assert "Nothing has explained this unit yet" in page.locator("#explanation").inner_text()
    assert seen == []
    page.close()


# Colours

CONTRASTS = """(selector) => {
  const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
  const rgb = (colour) => {
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (colour) => {
    const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = rgb(colour).map((c) => linear(c / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (item) => {
    for (let at = item; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (!/, 0\\)|\\/ 0\\)|transparent/.test(colour)) return colour;
    }
    return 'white';
  };
  return [...document.querySelectorAll(selector)].filter((item) => item.textContent.trim()).map((item) => {
    const [a, b] = [light(getComputedStyle(item).color), light(ground(item))].sort((x, y) => y - x);
    return [(a + 0.05) / (b + 0.05), item.textContent.slice(0, 40)];
  });
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_can_be_read_on_every_ground(page: Page, theme: str) -> None:
    """WCAG AA: a contrast of 4.5, at every strength of a heat map too, in the system's colours."""
    page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
    words = (
        ":is(main, .banner) :is(p, td, th, dt, dd, h1, h2, h3, h4, a, small, figcaption, summary, code, span)"
    )
    for contrast, text in page.evaluate(CONTRASTS, words):
        assert contrast >= 4.5, text
    go(page, "1:7")
    page.get_by_role("radio", name="true only").check()
    heat = page.evaluate(CONTRASTS, "#excerpts [role=option]")
    assert len(heat) > 300
    for contrast, text in [*heat, *page.evaluate(CONTRASTS, words)]:
        assert contrast >= 4.5, text


def test_the_theme_can_be_chosen_and_is_remembered(page: Page) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_role("button", name="Show in dark colours").click()
    dark = page.evaluate(ground)
    assert light != dark
    page.reload()
    page.wait_for_selector(".units tbody tr")
    assert page.evaluate(ground) == dark
    page.get_by_role("button", name="Show in light colours").click()
    assert page.evaluate(ground) == light


# Without a mouse


def test_every_control_has_a_name_and_headings_do_not_jump(page: Page) -> None:
    unnamed = """() => [...document.querySelectorAll('button, a, input, select, [role=option], [role=img]')]
        .filter((item) => !(item.ariaLabel || item.textContent.trim() || item.labels?.length))
        .map((item) => item.outerHTML)"""
    levels = "() => [...document.querySelectorAll('h1, h2, h3, h4')].map((item) => Number(item.tagName[1]))"
    for address in ("", "1:7"):
        if address:
            go(page, address)
        assert page.evaluate(unnamed) == []
        found = page.evaluate(levels)
        assert found.count(1) == 1 and found[0] == 1
        assert all(b - a <= 1 for a, b in pairwise(found))
        assert page.locator("main").count() == page.locator("header.banner").count() == 1


def test_the_first_stop_skips_to_the_page(page: Page) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the page"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    assert page.locator("h1").count() == 1
