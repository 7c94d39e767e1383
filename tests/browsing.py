"""A browser for tests of pages: the system's Chromium or Chrome, or the one that Playwright installed.

Run as a program it installs one where there is none, and says how where it cannot.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run", "--disable-quic",
)  # fmt: skip


def executable() -> str | None:
    """The first browser on the PATH; None leaves it to Playwright to find its own."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextmanager
def browser() -> Iterator[Browser]:
    """Fails, and does not skip, where there is none: `make test` installs one."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=executable(), args=list(QUIET))
        yield opened
        opened.close()


def watched(page: Page) -> list[str]:
    """What a page should not do: errors, messages on its console, requests for anything but itself."""
    seen: list[str] = []
    page.on("console", lambda message: seen.append(f"console {message.type}: {message.text}"))
    page.on("pageerror", lambda error: seen.append(f"error: {error}"))
    page.on(
        "request",
        lambda request: None if request.is_navigation_request() else seen.append(f"request: {request.url}"),
    )
    return seen


def install() -> None:
    """Debian's Chromium where packages may be installed, else Playwright's. SystemExit when none runs."""
    if executable() is None:
        _from_debian()
    if executable() is None:
        subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], check=False)
    try:
        with browser():
            pass
    except Exception as error:
        sys.exit(
            f"The tests need a browser, and none can be run here: {str(error).splitlines()[0]}\n"
            "Install Chromium or Chrome, or: .venv/bin/playwright install --with-deps chromium"
        )


def _from_debian() -> None:
    apt = ["apt-get", "-q"]
    if os.geteuid() != 0:
        apt = ["sudo", "-n", *apt]
    if not all(map(shutil.which, {apt[0], "apt-get"})):
        return
    # The lists that are there may do when they cannot be renewed.
    for action in (["update"], ["install", "-y", "--no-install-recommends", "chromium"]):
        subprocess.run([*apt, *action], check=False, stdin=subprocess.DEVNULL)


if __name__ == "__main__":
    install()
