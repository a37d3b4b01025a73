"""How `fettle up` and the demo end: by signals, with all that they started; and a worker that dies is replaced."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from app.client import FettleClient
from tests.integration.commands import ROOT, clean_environment, end, sphere, start, until


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_signal_ends_the_service_and_all_it_started(tmp_path: Path, number: signal.Signals) -> None:
    service = start(tmp_path / "data", tmp_path / "log", "--workers", "2")
    try:
        with FettleClient(service.url) as client:
            client.wait_ready()
            study = client.create_study(sphere("running", trials=1000, delay_s=0.1))
            until(lambda: client.study(study.id).progress.complete, "a finished trial")
            tree = until(lambda: (found := service.tree()) and len(found) >= 3 and found, "two workers")
            events = client.events(study.id)
            next(events)  # an open stream keeps nothing from stopping
            service.process.send_signal(number)
            assert service.process.wait(60) == 0, service.log.read_text()
            events.close()
        assert psutil.wait_procs(tree, timeout=5)[1] == []
        assert "Traceback" not in service.log.read_text(errors="replace")
    finally:
        end(service)


def test_a_request_that_a_stop_does_not_wait_for_is_told_to_come_again(tmp_path: Path) -> None:
    service = start(tmp_path / "data", tmp_path / "log", "--workers", "0")
    try:
        with FettleClient(service.url) as client:
            client.wait_ready()
        host, port = service.url.removeprefix("http://").split(":")
        head = b"POST /v1/studies HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n"
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(head + b"Expect: 100-continue\r\n\r\n")
            assert connection.recv(1_000).startswith(b"HTTP/1.1 100")  # it is served now, and its body never comes
            service.process.send_signal(signal.SIGTERM)
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            problem = json.loads(answer.read())
        assert service.process.wait(60) == 0
        assert (answer.status, answer.getheader("Content-Type")) == (503, "application/problem+json")
        assert (problem["status"], problem["code"]) == (503, "UNREADY")
        assert answer.getheader("Retry-After")
        assert "Traceback" not in service.log.read_text(errors="replace")
    finally:
        end(service)


def test_a_service_whose_output_nobody_reads_any_more_ends_at_the_first_signal(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "app", "up", "--port", "0", "--workers", "0", "--data-dir", str(tmp_path / "data")]
    with subprocess.Popen(
        command, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as service:
        try:
            assert service.stdout is not None
            until(lambda: "http://" in service.stdout.readline(), "an address")  # type: ignore[union-attr]
            service.stdout.close()
            service.send_signal(signal.SIGTERM)
            assert service.wait(30) == 0
        finally:
            service.kill()


def test_without_workers_the_api_serves_and_says_what_is_missing(tmp_path: Path) -> None:
    service = start(tmp_path / "data", tmp_path / "log", "--workers", "0")
    try:
        with FettleClient(service.url) as client:
            client.wait_ready()
            study = client.create_study(sphere("lonely"))
            assert client.study(study.id).pending_reason
            assert len(service.tree()) == 1
    finally:
        end(service)
    assert service.process.returncode == 0


def test_a_worker_that_is_killed_is_replaced_and_the_study_goes_on(tmp_path: Path) -> None:
    service = start(tmp_path / "data", tmp_path / "log")
    try:
        with FettleClient(service.url) as client:
            study = client.create_study(sphere("survivor", trials=1000, delay_s=0.02))
            until(lambda: client.study(study.id).progress.complete, "a finished trial")
            worker = psutil.Process(service.process.pid).children()[0]
            worker.kill()
            before = client.study(study.id).progress.complete
            until(lambda: client.study(study.id).progress.complete > before + 5, "trials of the new worker")
            assert worker.pid not in {child.pid for child in psutil.Process(service.process.pid).children()}
    finally:
        end(service)


def test_the_demo_runs_from_start_to_end_and_leaves_nothing_running(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "app.demo", str(ROOT / "examples" / "sphere.json")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=clean_environment(),
        timeout=170,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert re.search(r"Best of 20 trials is trial \d+: value ", ran.stdout)
    assert "make serve" in ran.stdout
    (data,) = tmp_path.glob("fettle-data-demo-*")
    assert (data / "fettle.db").is_file()
    url = re.search(r"runs at (http://\S+);", ran.stdout)
    assert url
    with FettleClient(url[1]) as client:
        assert not client.ready()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_interrupted_stops_its_service(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "long.json").write_text(json.dumps(sphere("long", trials=1000, delay_s=0.5)))
    with (tmp_path / "out").open("wb") as out:
        demo = subprocess.Popen(
            [sys.executable, "-m", "app.demo", "long.json"],
            cwd=tmp_path,
            stdout=out,
            stderr=out,
            env=clean_environment(),
        )
    tree: list[psutil.Process] = []
    try:
        until(lambda: b"Submitted long.json" in (tmp_path / "out").read_bytes(), "a submitted study")
        tree = psutil.Process(demo.pid).children(recursive=True)
        assert len(tree) >= 1
        demo.send_signal(number)
        assert demo.wait(60) == 130
        assert psutil.wait_procs(tree, timeout=5)[1] == []
    finally:
        demo.kill()
        demo.wait()
        for left in psutil.wait_procs(tree, timeout=0)[1]:
            left.kill()
