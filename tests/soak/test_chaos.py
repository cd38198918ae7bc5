"""Nights on several hosts, each with something that breaks in the middle.

A night is submitted as a job; meanwhile a process, a node, a cable or the driver is lost, by a
seeded draw. The job finishes, or the same command again does, and the index then holds just what
the gallery holds. RETRIEVAL_SEED draws other nights, RETRIEVAL_NIGHTS more of them;
RETRIEVAL_FAULTS are options of `tests.faulty_store`.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import time

import pytest

from tests.conftest import photo_bytes
from tests.hosts import why_not
from tests.ray_hosts import BUCKET, RayHosts, report_of

pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(7200),
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]

SEED = int(os.environ.get("RETRIEVAL_SEED", "1"))
PHOTOS, INDEX = f"{BUCKET}/photos", f"{BUCKET}/index"
RANKING, NUM_QUERIES = f"{BUCKET}/ranking", 6
NIGHT = ["reindex", PHOTOS, INDEX, "--backbone", "tests.fakes:slow", "--weights", "none"]
NIGHT += ["--labels", "none", "--batch-size", "4", "--top-k", "5"]
NIGHT += ["--queries", f"{BUCKET}/queries", "--rankings", RANKING]
FAULTS = os.environ.get("RETRIEVAL_FAULTS", f"--seed {SEED} --rate 0.02")
DECODER, ACTOR, DRIVER = "ray::MapBatches(Decode", "ray::MapWorker", "tests.small_parts"


class Chaos:
    """What can be lost. Each method but one breaks something; the actors are at work then."""

    def __init__(self, hosts, rng):
        self.hosts, self.rng = hosts, rng

    def is_at_work(self):
        """Whether each host has an actor."""
        return all(host.processes(ACTOR) for host in self.hosts.workers)

    def a_decoding_process(self):
        self.rng.choice(self.hosts.workers).kill(DECODER)

    def an_actor(self):
        self.rng.choice(self.hosts.workers).kill(ACTOR)

    def every_process_that_works(self):
        for host in self.hosts.workers:
            host.kill("ray::Map", at_most=99)

    def a_node(self):
        host = self.rng.choice(self.hosts.workers)
        host.power_off()
        time.sleep(self.rng.uniform(0, 10))
        self.hosts.power_on(host)

    def a_link_for_10_s(self):
        self._cut(10)

    def a_link_for_120_s(self):
        host = self._cut(120)
        host.power_off()  # its Ray has been declared dead, and ends
        self.hosts.power_on(host)

    def the_driver(self):
        self.hosts.head.kill(DRIVER, at_most=9)

    def _cut(self, seconds):
        host = self.rng.choice(self.hosts.workers)
        self.hosts.plug(host, is_in=False)
        time.sleep(seconds)
        self.hosts.plug(host, is_in=True)
        return host


LOST = [name for name in vars(Chaos) if not name.startswith(("_", "is_"))]
BREAKPOINTS = ["embedded", "before commit", "after commit", "published"]
KINDS = [*LOST, *BREAKPOINTS]
NUM_NIGHTS = int(os.environ.get("RETRIEVAL_NIGHTS", len(KINDS)))


class Gallery:
    """Photos in a folder that is copied to the store; the model of what the index must hold."""

    def __init__(self, folder, rng):
        self.folder, self.rng = folder, rng
        folder.mkdir()
        self.num_drawn = 0

    def add(self, count):
        for _ in range(count):
            self.num_drawn += 1
            colour = [self.rng.randrange(256) for _ in range(3)]
            content = photo_bytes(colour, size=(40, 30 + self.num_drawn % 7))
            (self.folder / f"{self.num_drawn:04d}.jpg").write_bytes(content)

    def change(self):
        """A day: photos come, go, are edited and renamed, and one of them cannot be read."""
        files = self.rng.sample(sorted(self.folder.iterdir()), 12)
        for file in files[:4]:
            file.unlink()
        for file in files[4:8]:
            file.rename(file.with_name(f"moved-{self.rng.randrange(10**9)}.jpg"))
        for file in files[8:11]:
            file.write_bytes(photo_bytes([self.rng.randrange(256) for _ in range(3)]))
        files[11].write_bytes(b"no photo any more")
        self.add(self.rng.randrange(32, 48))

    def contents(self):
        """Id → hash of the content; None of what is no photo."""
        found = {}
        for file in self.folder.iterdir():
            content = file.read_bytes()
            is_photo = content.startswith(b"\xff\xd8")
            found[file.name] = hashlib.sha256(content).hexdigest() if is_photo else None
        return found


class Nights:
    """Nights of one gallery, and what is known of their versions."""

    def __init__(self, hosts, gallery):
        self.hosts, self.gallery = hosts, gallery
        self.versions, self.embeddings = {}, {}
        self.num_runs = 0

    def submit(self, **variables):
        self.num_runs += 1
        return self.hosts.small_job(*NIGHT, id=f"night-{self.num_runs}", **variables)

    def finish(self, process):
        """Wait; the same command again until it succeeds. Says how many runs it took."""
        for count in range(1, 6):
            out, err = process.communicate(timeout=900)
            if process.returncode == 0:
                return count, report_of(out)
            print(f"    run {count} ended by {process.returncode}: {last_line(out)}", flush=True)
            process = self.submit()
        raise AssertionError(f"the night does not end\n{out}\n{err}")

    def check(self):
        """The index holds what the gallery holds, each content by the bits that it always had."""
        known = [str(version) for version in self.versions]
        found = json.loads(self.hosts.look("tests.soak.look", INDEX, *known))
        assert found["faults"] == []
        contents = self.gallery.contents()
        assert found["contents"] == {name: sha for name, sha in contents.items() if sha}
        assert found["rows"].keys() == found["contents"].keys()
        assert found["num_rejected"] == sum(sha is None for sha in contents.values())
        for name, bits in found["rows"].items():
            assert self.embeddings.setdefault(contents[name], bits) == bits
        assert found["versions"] == {str(key): value for key, value in self.versions.items()}
        newest = sorted(found["rows"].items())
        digest = hashlib.sha256(repr(newest).encode()).hexdigest()
        assert self.versions.setdefault(found["version"], digest) == digest
        verified = self.hosts.look("pipelines.cli", "verify", RANKING)
        assert json.loads(verified)["num_queries"] == NUM_QUERIES


def last_line(log):
    lines = [line for line in log.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def test_nights_in_which_something_breaks(tmp_path):
    rng = random.Random(SEED)
    gallery, queries = (Gallery(tmp_path / name, rng) for name in ("photos", "queries"))
    gallery.add(48)
    queries.add(NUM_QUERIES)
    print(f"\nseed {SEED}, {NUM_NIGHTS} nights; faults of the store: {FAULTS}")
    (tmp_path / "logs").mkdir()
    with RayHosts(tmp_path / "logs", faults=FAULTS) as hosts:
        nights, chaos = Nights(hosts, gallery), Chaos(hosts, rng)
        hosts.upload(queries.folder, "queries")
        for number in range(NUM_NIGHTS):
            hosts.upload(gallery.folder, "photos")
            kind = KINDS[number % len(KINDS)]
            begun = time.monotonic()
            if kind in BREAKPOINTS:
                process = nights.submit(RETRIEVAL_BREAKPOINT=kind)
            else:
                process = nights.submit()
                hosts.wait_for(chaos.is_at_work, process)
                time.sleep(rng.uniform(0, 3))
                getattr(chaos, kind)()
            count, report = nights.finish(process)
            nights.check()
            seconds = time.monotonic() - begun
            print(
                f"  night {number + 1}, lost: {kind}: {count} run(s), version "
                f"{report['version_after']}, {report['num_embedded']} embedded, "
                f"{report['num_resumed']} resumed, {seconds:.0f} s",
                flush=True,
            )
            gallery.change()
        print(f"  faults of the store: {hosts.faults()}")
