"""The page for people, in a real browser."""

from __future__ import annotations

import json

import pytest
from aiohttp import web
from tests.coordinator.browser import PROGRAM, browsing

from collective_coordinator.board import Board
from collective_coordinator.config import parse_config
from collective_coordinator.http import application
from collective_coordinator.metrics import Metrics
from collective_coordinator.page import render
from collective_web.open_port import listening

needs_a_browser = pytest.mark.skipif(PROGRAM is None, reason="needs Chromium (Debian: apt-get install chromium)")
HOSTILE = "<img src=x onerror='window.hacked = 1'><script>window.hacked = 1</script>"
NO_OVERFLOW = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
DRAWN = "document.querySelectorAll('#seconds rect').length / 3"
"""How many rounds are drawn: each has three phases."""


@needs_a_browser
async def test_it_shows_a_task_as_it_goes(plain, coordinated, tmp_path):
    learners = plain(*[{"extensions": True, "train_s": 0.3}] * 3)
    task = coordinated(learners, rounds=500)
    process = task.start()
    address = f"http://127.0.0.1:{task.port()}/"
    async with browsing(address, tmp_path / "browser") as page:
        drawn = await page.until(f"{DRAWN} >= 2 ? {DRAWN} : 0")
        assert await page.evaluate("document.title") == "default/plain"
        assert await page.evaluate("document.getElementById('phase').textContent") == "Running"
        assert (await page.evaluate("document.getElementById('round').textContent")).endswith("/ 500")
        rows = await page.evaluate(
            "[...document.querySelectorAll('#learners tr td:first-child')].map(c => c.textContent)"
        )
        assert rows == ["learner-0", "learner-1", "learner-2"]
        assert await page.evaluate("document.querySelectorAll('#scores path.each').length") == 3
        assert await page.evaluate("document.querySelectorAll('#votes rect.for').length") > 0
        later = await page.until(f"{DRAWN} > {drawn} ? {DRAWN} : 0")
        assert later <= len(task.records()), "a round stands twice"
        await page.resize(390, 844, phone=True)
        await page.until(f"document.querySelector('#scores svg').clientWidth < 390 && {NO_OVERFLOW}")
        # What is open stays readable when the coordinator has gone.
        process.terminate()
        process.wait(60)
        await page.until("document.getElementById('message').textContent.includes('has not answered since')")
        assert await page.evaluate(DRAWN) >= later
    assert {asked.removeprefix(address) for asked in page.asked if not asked.startswith("data:")} == {
        "",
        "status",
        "rounds.jsonl",
    }
    gone = "net::ERR_"
    assert [complaint for complaint in page.complaints if gone not in complaint] == []


@needs_a_browser
async def test_what_learners_say_stays_text_and_addresses_hold_behind_a_proxy(tmp_path):
    config = {
        "version": 1,
        "task": {"namespace": "default", "name": "hostile", "uid": "1"},
        "model": {"name": "M", "parameters": {}},
        "dataLoader": {"name": "D", "parameters": {}},
        "rounds": 3,
        "seed": 0,
        "strategy": {"type": "Vote"},
        "learners": [{"name": "learner-0", "address": "127.0.0.1:9", "location": "0"}],
        "policy": {"minLearners": 1},
    }
    board = Board(parse_config(json.dumps(config)))
    board.waiting(HOSTILE)
    rounds = tmp_path / "rounds.jsonl"
    line = {
        "round": 1,
        "strategy": HOSTILE,
        "proposer": HOSTILE,
        "accepted": True,
        "votes": {HOSTILE: True},
        "testScores": {HOSTILE: 0.5},
        "voteScores": {HOSTILE: 0.5},
        "leftOut": {HOSTILE: HOSTILE},
        "seconds": {"propose": 0.1, "test": 0.1, "accept": None},
    }
    rounds.write_text(json.dumps(line) + "\n" + '{"round": 2, "half')
    outer = web.Application()
    outer.add_subapp("/api/v1/namespaces/default/pods/one/proxy", application(board, Metrics(), rounds=rounds))
    runner = web.AppRunner(outer)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        address = f"http://127.0.0.1:{runner.addresses[0][1]}/api/v1/namespaces/default/pods/one/proxy/"
        async with browsing(address, tmp_path / "browser") as page:
            await page.until(f"{DRAWN} === 1")
            alone = "document.querySelectorAll('#scores circle.each').length"
            assert await page.evaluate(alone) == 1, "a score that no line leads to is a dot"
            assert HOSTILE in await page.evaluate("document.getElementById('message').textContent")
            assert await page.evaluate("document.querySelector('img') === null && window.hacked === undefined")
            # Even a script that got in would not run.
            await page.evaluate(
                "document.body.insertAdjacentHTML('beforeend', `<img src=x onerror='window.hacked=1'>`)"
            )
            await page.until("document.querySelector('img') !== null")
            assert await page.evaluate("window.hacked === undefined")
            rounds.write_text("".join(json.dumps({**line, "round": number}) + "\n" for number in (1, 2)))
            await page.until(f"{DRAWN} === 2")
            assert await page.evaluate(alone) == 0
            # A volume that was restored from an older snapshot has fewer rounds.
            rounds.write_text(json.dumps({**line, "round": 7}) + "\n")
            await page.until(f"{DRAWN} === 1 && rounds[0].round === 7")
            assert any("Content Security Policy" in complaint for complaint in page.complaints)
    finally:
        await runner.cleanup()


@needs_a_browser
async def test_long_names_and_odd_numbers_stay_readable_on_a_phone_at_night(tmp_path):
    names = [f"hospital-of-a-city-that-is-somewhere-very-far-away-in-the-north-{site}" for site in ("a1", "b2", "c3")]
    config = {
        "version": 1,
        "task": {"namespace": "n" * 63, "name": "t" * 45, "uid": "1"},
        "model": {"name": "M"},
        "dataLoader": {"name": "D"},
        "rounds": 20,
        "learners": [{"name": name, "address": f"{name}:9"} for name in names],
        "policy": {"minLearners": 1},
    }
    board = Board(parse_config(json.dumps(config)))
    board.waiting(", ".join(names * 5))
    records = [
        {
            "round": number,
            "strategy": "Vote",
            "proposer": names[0],
            "accepted": True,
            "votes": dict.fromkeys(names, True),
            "testScores": dict.fromkeys(names, score),
            "voteScores": {},
            "leftOut": {},
            "seconds": {"propose": 4000.0, "test": 0.001, "accept": None},
        }
        for number, score in enumerate([1e-13, 0.25, -1e-12, 1.0], start=1)
    ]
    rounds = tmp_path / "rounds.jsonl"
    rounds.write_text("".join(json.dumps(record) + "\n" for record in records))
    async with (
        listening(application(board, Metrics(), rounds=rounds), host="127.0.0.1", port=0) as port,
        browsing(f"http://127.0.0.1:{port}/", tmp_path / "browser") as page,
    ):
        await page.resize(360, 780, phone=True)
        await page.tell("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
        await page.until(f"{DRAWN} === 4 && {NO_OVERFLOW}")
        texts = "[...document.querySelectorAll('{} svg > text')].map(found => found.firstChild.data)"
        labels = await page.evaluate(texts.format("#votes"))
        assert labels[:3] == ["hospi…rth-a1", "hospi…rth-b2", "hospi…rth-c3"]
        assert (await page.evaluate(texts.format("#scores")))[:5] == ["0.00", "0.25", "0.50", "0.75", "1.00"]
        assert (await page.evaluate(texts.format("#seconds")))[:2] == ["0", "4000"]
        # A browser's own bar is white at night, and looks full when nothing is done.
        bar = "getComputedStyle(document.getElementById('progress')).backgroundColor"
        assert await page.evaluate(bar) == "rgb(31, 31, 31)"


def test_a_name_is_no_markup():
    assert "&lt;b&gt;/&quot;x" in render(namespace="<b>", name='"x')
    assert "{{" not in render(namespace="default", name="task")
