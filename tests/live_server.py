"""A dashboard in a process of its own, and what it answers."""

import contextlib
import http.client
import json
import re
import subprocess
from urllib.parse import urlsplit

from real_commands import ROOT, environment, python


@contextlib.contextmanager
def serving(folder, *arguments):
    """Serve the runs below a folder at a free port; yield the process and the address it tells."""
    command = python("sam_jax.dashboard", folder, "--port=0", *arguments)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, cwd=ROOT, env=environment(), **pipes)
    try:
        line = process.stdout.readline()
        found = re.search(r"at (http://\S+/) until Ctrl-C\.$", line)
        assert found, line or process.stderr.read()
        yield process, found[1]
    finally:
        process.kill()
        process.communicate()


def ask(address, path="/", host=None, method="GET"):
    """Return the status, the headers and the text of an answer."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    connection.request(method, path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, answer.headers, text


def runs(address, after=0):
    """Return what is new."""
    status, headers, text = ask(address, f"/runs.json?after={after}")
    assert status == 200 and headers["Content-Type"] == "application/json"
    return json.loads(text)
