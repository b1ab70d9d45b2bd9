"""QEMU's control socket: one command at a time, as JSON."""

import json
import os
import socket
import time

from words import LabError


class Qmp:
    def __init__(self, path, patience=10):
        self.socket = socket.socket(socket.AF_UNIX)
        folder = os.open(os.path.dirname(path), os.O_PATH)  # a socket's name must be short
        try:
            self.connect(f"/proc/self/fd/{folder}/{os.path.basename(path)}", patience)
        finally:
            os.close(folder)
        self.socket.settimeout(patience)
        self.lines = self.socket.makefile("rw")
        self.lines.readline()
        self.call("qmp_capabilities")

    def connect(self, path, patience):
        until = time.monotonic() + patience
        while True:
            try:
                self.socket.connect(path)
                return
            except OSError as error:
                if time.monotonic() > until:
                    raise LabError(f"QEMU does not answer on {path}: {error}") from error
                time.sleep(0.05)

    def call(self, command, **arguments):
        self.lines.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.lines.flush()
        while True:
            answer = json.loads(self.lines.readline() or '{"error": {"desc": "QEMU is gone"}}')
            if "error" in answer:
                raise LabError(f"QEMU refuses {command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]

    def close(self):
        self.lines.close()
        self.socket.close()
