"""The real command: it tells its address, shows a run that grows, hands out no file, and ends."""

import json
import math
import re
import signal
import socket
import time

import pytest
from live_runs import append, make_run, record
from live_server import ask, runs, serving
from real_commands import run, run_here

from sam_jax.live.page import page
from sam_jax.live.server import Server
from sam_jax.live.watch import Watch, everything

HOSTILE = "<script>alert(1)<b>\"'& {{ 7 * 7 }}"


@pytest.mark.commands
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_grows_and_a_signal_ends_the_server(tmp_path, number):
    folder = make_run(tmp_path / "models/sam/seed_0", epochs=5, done=2)
    with serving(tmp_path) as (process, address):
        assert address.startswith("http://127.0.0.1:")
        first = runs(address)
        (shown,) = first["runs"]
        assert (shown["arm"], shown["epoch"], shown["state"]) == ("sam", 2, "stopped")
        assert runs(address, first["version"])["runs"] == []
        append(folder / "metrics.jsonl", record(3, batch_loss=math.nan))
        make_run(tmp_path / "models/sam/seed_1", epochs=5, done=5, seed=1)
        second = runs(address, first["version"])
        assert [(r["seed"], r["epoch"], r["state"]) for r in second["runs"]] == [
            (0, 3, "stopped"),
            (1, 5, "finished"),
        ]
        assert second["runs"][0]["curves"]["batch_loss"]["y"][-1] is None
        process.send_signal(number)
        output, errors = process.communicate(timeout=20)
    assert process.returncode == 128 + number and output == ""
    assert errors == f"Ended by {number.name}.\n"


@pytest.mark.commands
def test_it_hands_out_its_page_and_nothing_else(tmp_path):
    folder = make_run(tmp_path / "runs" / "one")
    (folder / "secret.txt").write_text("secret")
    with serving(tmp_path / "runs") as (_, address):
        status, headers, text = ask(address)
        assert status == 200 and "secret" not in text and headers["X-Frame-Options"] == "DENY"
        assert len(headers["Server"].split()) == 1  # and not which Python it is
        paths = ("one/secret.txt", "secret.txt", "one/config.json", "..", "../runs", "%2e%2e/runs")
        for path in (*paths, "//etc/passwd", "etc/passwd", "favicon.ico", "runs.json/x"):
            status, _, text = ask(address, f"/{path}")
            assert status == 404 and "secret" not in text and "epochs" not in text
        for method in ("POST", "PUT", "DELETE"):
            assert ask(address, "/", method=method)[0] == 501
        # A name that another page lets lead here is refused.
        assert ask(address, "/runs.json", host="example.org:6007")[0] == 403
        for host in ("localhost:6007", "127.0.0.1", "[::1]:9"):
            assert ask(address, "/runs.json", host=host)[0] == 200
        port = int(address.rsplit(":", 1)[1].strip("/"))
        with pytest.raises(OSError):  # at no other address of this machine
            socket.create_connection(("127.0.0.2", port), timeout=5).close()
        for after in ("x", "-1", "", "9" * 30, "%00", "1&after=2"):
            assert len(json.loads(ask(address, f"/runs.json?after={after}")[2])["runs"]) == 1


@pytest.mark.commands
def test_a_page_written_once(tmp_path):
    make_run(tmp_path / "runs" / HOSTILE.replace("/", ""))
    file = tmp_path / "page.html"
    result = run("sam_jax.dashboard", tmp_path / "runs", f"--once={file}")
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"The page of 1 run below {tmp_path / 'runs'} is in {file}\n"
    (data,) = re.findall(r'id="data">(.*?)</script>', file.read_text())
    assert json.loads(data)["runs"][0]["arm"] == HOSTILE
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "page.html"}


def test_names_are_shown_as_text(tmp_path):
    make_run(tmp_path / HOSTILE)
    shown = page(HOSTILE, everything(tmp_path)).decode()
    assert "<script>alert" not in shown and "<b>" not in shown
    assert "&lt;script&gt;alert(1)&lt;b&gt;&#34;&#39;&amp; {{ 7 * 7 }}" in shown
    # The negative control: as it is, the name would stand in the page.
    assert "<script>alert" in json.dumps(everything(tmp_path))
    assert page("\udcff").decode()  # a name that is no text


def test_a_page_asks_nobody_or_its_server_alone():
    served = re.findall(r"connect-src (.*?)\"", page("x").decode())
    assert served == ["'self'"]
    once = page("x", {"runs": [], "names": [], "version": 0, "now": 0.0}).decode()
    assert re.findall(r"connect-src (.*?)\"", once) == ["'none'"]


def test_a_port_that_is_in_use(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result = run_here("sam_jax.dashboard", tmp_path, f"--port={port}")
    assert result.returncode == 2 and not result.stdout
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"Port {port} of 127.0.0.1 is in use") and "--port=0" in line


def test_every_address_is_bound_where_it_is_asked_for(tmp_path):
    with Server(tmp_path, "0.0.0.0", 0) as server:
        assert server.is_for_us("node3.example.org:6007")  # who opens it to all names it freely
    with Server(tmp_path, "localhost", 0) as server:
        assert server.address == f"http://localhost:{server.server_port}/"
        assert not server.is_for_us("node3.example.org")


def test_help():
    result = run_here("sam_jax.dashboard", "--help")
    assert result.returncode == 0 and not result.stderr
    assert "    python -m sam_jax.dashboard runs --port=6007" in result.stdout
    for words in ("--port: ", "--host: ", "--once: ", "Exit codes:", "128 + N"):
        assert words in result.stdout


@pytest.mark.e2e
def test_many_runs_are_read_in_seconds_and_looked_at_in_less(tmp_path):
    """300 runs of 200 epochs: 1.9 s of a processor, then 0.02 s; a slower one may take thrice."""
    for i in range(300):
        make_run(tmp_path / f"models/arm_{i // 5}/seed_{i % 5}", 200, 199, i % 5, 0.01 * i)
    watch, begun = Watch(tmp_path), time.process_time()
    first = watch.answer()
    whole = time.process_time() - begun
    version = json.loads(first)["version"]
    begun = time.process_time()
    assert json.loads(watch.answer(version))["runs"] == []
    idle = time.process_time() - begun
    print(f"300 runs: {whole:.2f} s, {len(first) / 1e6:.1f} MB; again {idle:.3f} s")
    assert whole < 6 and idle < 0.3
