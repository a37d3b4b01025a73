"""`fettle up` and the commands that use it, as processes: what a person at a terminal gets."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from app.client import FettleClient, FettleProblem
from tests.integration.commands import Service, end, sphere, start


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with one worker."""
    folder = tmp_path_factory.mktemp("up")
    running = start(folder / "data", folder / "log")
    yield running
    end(running)


def test_submit_and_watch_show_a_study_to_its_end(service: Service) -> None:
    ran = service.run("submit", "-", "--watch", stdin=json.dumps(sphere("watched")))
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("Study watched has the id ")
    assert re.search(r"Study watched is COMPLETED.*Best trial \d: value ", ran.stdout.splitlines()[-1])


def test_a_trial_is_asked_for(service: Service) -> None:
    waiting = sphere("asked") | {"execution": {"worker_labels": {"nobody": "here"}}}
    assert service.run("submit", "-", stdin=json.dumps(waiting)).returncode == 0
    asked = service.run("enqueue", "asked", "x0=0.25")
    assert (asked.returncode, asked.stdout) == (0, "Trial 0 waits.\n")
    trial = json.loads(service.run("enqueue", "asked", "--json").stdout)
    assert (trial["number"], trial["state"]) == (1, "WAITING")
    (first, _) = json.loads(service.run("trials", "asked", "--json").stdout)["items"]
    assert first["hyperparameters"]["x0"] == 0.25
    outside = service.run("enqueue", "asked", "x0=1e9")
    assert outside.returncode == 4
    assert "Expected a number from" in outside.stderr
    assert service.run("cancel", "asked").returncode == 0


def test_the_lists_tell_what_happened(service: Service) -> None:
    study = json.loads(service.run("submit", "-", "--json", stdin=json.dumps(sphere("listed"))).stdout)
    lines = service.run("watch", "listed", "--json").stdout.splitlines()
    events = [json.loads(line) for line in lines]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["type"] == "study.finished"

    trials = json.loads(service.run("trials", study["id"], "--json").stdout)["items"]
    assert [trial["number"] for trial in trials] == [0, 1, 2, 3, 4]
    best = json.loads(service.run("best", "listed", "--json").stdout)["items"][0]
    assert best["values"]["value"] == min(trial["values"]["value"] for trial in trials)

    shown = service.run("trials", "listed").stdout.splitlines()
    assert len(shown) == 6
    assert shown[0].split() == ["TRIAL", "STATE", "VALUES", "SECONDS", "HYPERPARAMETERS"]
    assert any(
        line.split()[:3] == ["listed", "COMPLETED", "5/5"] for line in service.run("studies").stdout.splitlines()
    )
    assert f"Trial {best['number']}: value " in service.run("best", "listed").stdout


def test_a_study_is_exported_as_csv_and_json(service: Service, tmp_path: Path) -> None:
    created = service.run("submit", "-", "--watch", "--json", stdin=json.dumps(sphere("exported", trials=3)))
    assert created.returncode == 0, created.stderr
    table = service.run("export", "exported").stdout.splitlines()
    assert len(table) == 4
    assert {"number", "state"} <= set(table[0].split(","))
    written = tmp_path / "trials.json"
    assert service.run("export", "exported", "--format", "json", "--output", str(written)).returncode == 0
    content = json.loads(written.read_text())
    assert [t["number"] for t in (content["items"] if isinstance(content, dict) else content)] == [0, 1, 2]
    refused = service.run("export", "exported", "--format", "xml")
    assert refused.returncode == 4
    assert "csv" in refused.stderr


def test_a_study_is_paused_resumed_and_cancelled_by_name(service: Service) -> None:
    service.run("submit", "-", stdin=json.dumps(sphere("steered", trials=1000, delay_s=0.2)))
    for command, state in (
        ("pause", "PAUSED"),
        ("resume", "RUNNING"),
        ("cancel", "CANCELLED"),
        ("cancel", "CANCELLED"),
    ):
        ran = service.run(command, "steered")
        assert ran.returncode == 0, ran.stderr
        assert f"Study steered is {state}." in ran.stdout
    assert service.run("watch", "steered").returncode == 1, "a cancelled study is a bad end"
    assert service.run("resume", "steered").returncode == 4


def test_a_refusal_names_the_place_and_ends_with_4(service: Service) -> None:
    wrong = sphere("wrong")
    wrong["hyperparameters"]["no_such_thing"] = 1
    for command in ("validate", "submit"):
        ran = service.run(command, "-", stdin=json.dumps(wrong))
        assert ran.returncode == 4
        assert "no_such_thing" in ran.stderr
        assert "Traceback" not in ran.stderr
    missing = service.run("watch", "no-such-study")
    assert missing.returncode == 4
    assert "STUDY_NOT_FOUND" in missing.stderr


def test_validate_stores_nothing(service: Service) -> None:
    ran = service.run("validate", "-", "--json", stdin=json.dumps(sphere("unstored")))
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["definition"]["execution"]["max_attempts"] == 3
    with FettleClient(service.url) as client:
        assert not [study for study in client.studies() if study.name == "unstored"]


def test_a_table_is_uploaded_shown_and_deleted(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "people.csv"
    path.write_text("age,city,left\n" + "".join(f"{i},{'ab'[i % 2]},{'ny'[i % 2]}\n" for i in range(20)))
    ran = service.run("datasets", "upload", str(path), "--target", "left", "--column", "age=category")
    assert ran.returncode == 0, ran.stderr
    assert "Data set people has the id ds_" in ran.stdout
    assert re.search(r"^age +category +feature +0 +0, 1, 2, 3, 4, 5, …$", ran.stdout, re.MULTILINE)
    listed = json.loads(service.run("datasets", "--json").stdout)["items"]
    assert [d["name"] for d in listed if d["origin"] == "upload"] == ["people"]
    assert re.search(
        r"^people +upload +classification +vector +2 +20 +2 +ds_", service.run("datasets").stdout, re.MULTILINE
    )
    shown = json.loads(service.run("datasets", "show", "people", "--json").stdout)
    assert shown == listed[-1]
    ran = service.run("datasets", "upload", str(path), "--target", "gone")
    assert (ran.returncode, "target: Expected one of the columns age, city, left" in ran.stderr) == (4, True)
    for arguments in (("upload", str(tmp_path / "none.csv")), ("upload", str(path), "--column", "age")):
        assert service.run("datasets", *arguments).returncode == 2
    assert service.run("datasets", "delete", "people").returncode == 0
    assert service.run("datasets", "show", "people").returncode == 4


def test_the_client_does_the_rounds(service: Service) -> None:
    with FettleClient(service.url) as client:
        study = client.create_study(sphere("client", trials=3, delay_s=0.05), idempotency_key="once")
        assert client.create_study(sphere("client", trials=3, delay_s=0.05), idempotency_key="once").id == study.id
        with pytest.raises(FettleProblem) as taken:
            client.create_study(sphere("client"))
        assert taken.value.status == 409
        kinds = [event.type for event in client.events(study.id)]
        assert kinds[-1] == "study.finished"
        assert kinds.count("trial.finished") == 3
        assert [point.epoch for point in client.metrics(study.id, 0)] == [0, 1]
        assert client.trial(study.id, 0).state == "COMPLETE"
        assert client.study(study.id).progress.complete == 3
        # A place beyond the log's end is of another life of it: the client is told, and reads from the beginning.
        first, *again = client.events(study.id, after=10**6, follow=False)
        assert (first.type, [event.type for event in again]) == ("reset", kinds)
        assert {"mlp", "function"} <= {family.name for family in client.families()}
        assert {"tpe", "random"} <= {sampler.name for sampler in client.samplers()}
        assert "median" in {pruner.name for pruner in client.pruners()}
        assert len(client.workers()) >= 1
        client.delete(study.id)
        with pytest.raises(FettleProblem) as gone:
            client.study(study.id)
        assert (gone.value.status, gone.value.code) == (404, "STUDY_NOT_FOUND")


class CuttingProxy:
    """A TCP proxy that cuts every connection after `limit` bytes of answer."""

    def __init__(self, target: tuple[str, int], limit: int) -> None:
        self._target, self._limit = target, limit
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                downstream, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(downstream,), daemon=True).start()

    def _carry(self, downstream: socket.socket) -> None:
        with closing(downstream), closing(socket.create_connection(self._target)) as upstream:
            upstream.sendall(downstream.recv(65536))
            sent = 0
            while (data := upstream.recv(4096)) and sent < self._limit:
                downstream.sendall(data[: self._limit - sent])
                sent += len(data)
            self.cuts += sent >= self._limit


def test_a_stream_that_is_cut_again_and_again_loses_and_repeats_nothing(service: Service) -> None:
    host, port = service.url.removeprefix("http://").split(":")
    with FettleClient(service.url) as direct:
        study = direct.create_study(sphere("cut", trials=40))
        whole = [event.seq for event in direct.events(study.id)]
    proxy = CuttingProxy((host, int(port)), limit=4000)
    with closing(proxy), FettleClient(f"http://127.0.0.1:{proxy.port}") as client:
        assert [event.seq for event in client.events(study.id)] == whole
    assert whole == list(range(1, len(whole) + 1))
    assert proxy.cuts > 3
