"""The page of a run that goes on."""

import http.client
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from urllib.parse import urlsplit

import click
import pytest

from edgesparse.cli import page_server as live_module
from edgesparse.cli.page_server import live_page
from edgesparse.graph import events
from edgesparse.report.page import write_page
from edgesparse.report.units import ms_text, size_text
from edgesparse.spec.errors import EdgesparseError
from tests.report.page.sample_run import HOSTILE, run
from tests.tools.browser import chromium
from tests.tools.sshd import ssh_server

ROUND = events.RoundMeasured("pi", "ai-edge-litert", 1, "sparse-f32", 1, 5, 1.25)


def get(url, method="GET", host=None, path=None):
    """A request's status and body."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    headers = {"Host": host} if host else {}
    connection.request(method, parts.path if path is None else path, headers=headers)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, text


def until_ended(url):
    """What a live page has shown, the run's page last."""
    pause, texts = threading.Event(), [get(url)[1]]
    while "Reproduce" not in texts[-1]:
        assert len(texts) < 1000
        pause.wait(0.2)
        texts.append(get(url)[1])
    return texts


def test_rows_arrive_and_only_this_page_is_served(tmp_path):
    with live_page("p", serve=True, port=None) as live:
        live(events.StageStarted("train", 1, 2))
        live(events.StageProgress("train", 0.5, HOSTILE))
        status, text = get(live.url)
        assert status == 200
        assert "<strong>train</strong> 50%, &lt;script&gt;" in text
        assert text.count("<script>") == 1
        live(events.StageDone("train", 1, 2))
        live(events.RowsReady(run()))
        live(events.BenchmarkStarted(tuple(run().rows)))
        live(ROUND)
        text = get(live.url)[1]
        assert ">1.250<" in text
        assert "1 of 5 rounds" in text
        assert "provisional" in text
        measured = run().rows[1]
        live(events.BenchmarkDone((measured,)))
        text = get(live.url)[1]
        assert "of 5 rounds" not in text
        assert f">{ms_text(measured.latency_ms.p50)}<" in text
        assert ">measured<" in text
        broken = measured.model_copy(update={"status": "failed", "error": "it stopped"})
        live(events.BenchmarkDone((broken,)))
        text = get(live.url)[1]
        assert "failed: it stopped" in text
        assert "instruction count" not in text
        live(events.BenchmarkStarted((measured.model_copy(update={"clock": "instructions"}),)))
        assert "time = instruction count (simulated)" in get(live.url)[1]
        assert "failed: pi: its process crashed" in text
        assert "train: done" in text
        port = urlsplit(live.url).port
        assert urlsplit(live.url).hostname == "127.0.0.1"
        assert get(live.url, host=f"localhost:{port}")[0] == 200
        assert get(live.url, host=f"evil.example:{port}")[0] == 421
        assert get(live.url, path="/")[0] == 404
        assert get(live.url, path="/etc/passwd")[0] == 404
        assert get(live.url, "POST")[0] == 501
        assert get(live.url, "HEAD") == (200, "")
        page = write_page(run(), tmp_path / "page.html")
        ending = threading.Thread(target=live.finish, args=(page,))
        ending.start()  # It waits for this client, which has asked before.
        assert "ship sparse-int8" in until_ended(live.url)[-1]
        ending.join()
    with pytest.raises(OSError, match="refused"):
        get(live.url)


def test_an_interrupt_does_not_wait_for_a_browser(tmp_path, monkeypatch):
    page = write_page(run(), tmp_path / "page.html")
    with live_page("p", serve=True, port=None) as live:
        get(live.url)
        sent = live._server.final_sent

        def interrupt(_):
            raise KeyboardInterrupt

        monkeypatch.setattr(sent, "wait", interrupt)
        live.finish(page)
        parts = urlsplit(live.url)
        assert "Reproduce" in get(live.url, path=f"{parts.path}?rows")[1]
        assert not sent.is_set()
        monkeypatch.undo()
        get(live.url, path=f"{parts.path}?final")
        assert sent.wait(10)  # Set behind the last byte, which the client may read before.


def test_rows_are_not_part_of_an_events_text():
    rows = tuple(run().rows)
    for event in (
        events.RowsReady(run()),
        events.BenchmarkStarted(rows),
        events.BenchmarkDone(rows),
    ):
        assert len(repr(event)) < 40


def test_a_port_is_free_or_an_error(monkeypatch):
    with live_page("p", serve=False, port=None) as live:
        assert live is None
    with (
        pytest.raises(click.UsageError, match="--port needs --serve"),
        live_page("p", serve=False, port=8080),
    ):
        pass
    with live_page("p", serve=True, port=None) as live:
        port = urlsplit(live.url).port
        taken = pytest.raises(EdgesparseError, match=f"port {port}: .*; choose another --port")
        with taken, live_page("p", serve=True, port=port):
            pass
    monkeypatch.setattr(live_module, "LOOPBACK", "192.0.2.1")  # No interface has it.
    refused = pytest.raises(EdgesparseError, match=r"serve the page on 192\.0\.2\.1: [^;]*$")
    with refused, live_page("p", serve=True, port=None):
        pass


@pytest.mark.slow
def test_a_browser_follows_a_run_to_its_end_without_reloading(tmp_path):
    final = write_page(run(), tmp_path / "page.html")
    with live_page("p", serve=True, port=None) as live, chromium(400) as driver:
        driver.get(live.url)
        driver.execute_script("window.before = 1")
        live(ROUND)
        wait = "return document.querySelector('main').textContent.includes('1 of 5 rounds')"
        until(driver, wait)
        assert driver.execute_script("return window.before") == 1
        assert driver.execute_script("return document.documentElement.scrollWidth") <= 400
        live.finish(final)
        until(driver, "return document.title.startsWith('p: 2026')")
        assert driver.get_log("browser") == []
    with live_page("p", serve=True, port=None) as live, chromium() as driver:
        driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
        driver.get(live.url)
        refresh = driver.find_element("css selector", "head meta[http-equiv=refresh]")
        assert refresh.get_attribute("content") == "5"


def until(driver, script):
    from selenium.webdriver.support.wait import WebDriverWait

    WebDriverWait(driver, 30, 0.1).until(lambda browser: browser.execute_script(script))


@pytest.mark.slow
def test_a_real_run_on_a_board_is_served_until_it_ends(tmp_path, tflite_files):
    """From a machine that is itself reached over SSH."""
    words = ["bench", str(tflite_files["dense"]), "--quick", "--serve", "--device", "board"]
    (tmp_path / "devices").mkdir()
    with ExitStack() as stack:
        board = stack.enter_context(ssh_server(tmp_path / "board"))
        (tmp_path / "devices" / "board.yaml").write_text(board.device_yaml())
        process = subprocess.Popen(
            [sys.executable, "-m", "edgesparse", *words],
            cwd=tmp_path,
            env={**os.environ, "SSH_CONNECTION": "192.0.2.1 50000 192.0.2.2 22"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        stack.enter_context(process)
        line = process.stderr.readline()
        assert line.startswith("live page: http://127.0.0.1:")
        port = urlsplit(line.split()[-1]).port
        assert process.stderr.readline() == (
            f"from another machine: ssh -L {port}:127.0.0.1:{port} THIS-MACHINE\n"
        )
        with ThreadPoolExecutor(1) as pool:
            shown = pool.submit(until_ended, line.split()[-1])
            process.stderr.read()
        *texts, page = shown.result()
    assert process.returncode == 0
    size = size_text(tflite_files["dense"].stat().st_size)
    assert any("2 rounds so far" in text and size in text for text in texts)
    assert "dense" in page
