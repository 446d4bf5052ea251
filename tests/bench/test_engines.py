"""The order of jobs, what they share, and how their failures are read."""

from pathlib import Path

import pytest

from stillroom import DataSettings, MedAlmighty, Settings, StudentSettings, TeacherSettings, UsageError
from stillroom.bench.engines import Job, made_by, make_place, reason_of, run_jobs


def job(name, *makes, root=Path("/nowhere")):
    return Job(root / f"{name}.yaml", root / name, root / f"{name}.log", frozenset(makes))


class Script:
    """A place where every job takes a number of looks, and its student trains from a certain look on."""

    def __init__(self, slots, looks):
        self.slots, self.threads, self.looks = slots, 1, looks
        self.running, self.most, self.events, self.stopped = {}, 0, [], None

    def start(self, job):
        self.running[job] = self.looks
        self.most = max(self.most, len(self.running))
        self.events.append(("start", job.folder.name))
        return job

    def ended(self, handle):
        self.running[handle] -= 1
        if self.running[handle] > 0:
            return None
        del self.running[handle]
        self.events.append(("end", handle.folder.name))
        return 0

    def stop(self, handles):
        self.stopped = [handle.folder.name for handle in handles]


def test_as_many_at_a_time_as_there_are_slots():
    place = Script(2, looks=3)
    ended = [job.folder.name for job, _ in run_jobs([job(name) for name in "abcde"], place)]
    assert sorted(ended) == list("abcde")
    assert place.most == 2
    assert place.stopped == []


def test_what_two_jobs_need_is_built_by_the_first_alone_and_others_overtake():
    jobs = [job("a1", "bank a"), job("a2", "bank a"), job("b", "bank b"), job("a3", "bank a")]
    place = Script(2, looks=3)
    list(run_jobs(jobs, place))
    started = [name for what, name in place.events if what == "start"]
    assert started == ["a1", "b", "a2", "a3"]
    assert place.events.index(("end", "a1")) < place.events.index(("start", "a2"))
    # Once built, nobody waits for it any more: a2 and a3 run side by side.
    assert place.events.index(("start", "a3")) < place.events.index(("end", "a2"))


def test_nobody_waits_once_the_student_trains(tmp_path):
    first, second = job("a1", "bank", root=tmp_path), job("a2", "bank", root=tmp_path)
    first.folder.mkdir()
    (first.folder / "history.jsonl").write_text('{"role": "teacher", "epoch": 1}\n')
    assert not first.is_training
    (first.folder / "history.jsonl").write_text('{"role": "student", "epoch": 1}\n')
    place = Script(2, looks=5)
    list(run_jobs([first, second], place))
    assert place.events[:2] == [("start", "a1"), ("start", "a2")]


def test_leaving_early_stops_what_runs():
    place = Script(2, looks=2)
    ended = run_jobs([job(name) for name in "abcd"], place)
    next(ended)
    ended.close()
    assert place.stopped


def settings(seed=0, source="phantoms:60", **changes):
    return Settings(
        source,
        recipe=MedAlmighty(),
        data=DataSettings(size=32),
        teacher=TeacherSettings("test_vit", **changes),
        student=StudentSettings("test_resnet"),
        seed=seed,
    )


def test_equal_work_has_equal_names():
    assert made_by(settings()) == made_by(settings())
    assert not made_by(settings()) & made_by(settings(seed=1))  # other phantoms
    breast = made_by(settings(source="breastmnist"))
    assert len(breast & made_by(settings(source="breastmnist", seed=1))) == 2  # the images, and the plain answers
    assert len(breast & made_by(settings(source="breastmnist", features="mean"))) == 1  # the images


def test_threads_share_the_cores(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    shares = {workers: make_place("processes", workers) for workers in (None, 1, 3, 8)}
    assert {w: (place.slots, place.threads) for w, place in shares.items()} == {
        None: (4, 2),
        1: (1, 8),
        3: (3, 2),
        8: (8, 1),
    }
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert make_place("processes", 2).threads == 1
    for wrong in (0, 9):
        with pytest.raises(UsageError, match=f"between 1 and the number of cores here, 8; got {wrong}"):
            make_place("processes", wrong)


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(UsageError, match=r"pip install 'stillroom\[sweep\]'"):
        make_place("ray", 1)


def test_the_reason_is_the_last_attempts_error(tmp_path):
    log = tmp_path / "log"
    log.write_text(
        "$ stillroom distill a\nerror: old\n$ stillroom distill --resume a\nteacher: 10 %\nerror: new one.\n"
    )
    assert reason_of(1, log) == "new one."
    log.write_text("$ stillroom distill a\nTraceback\n  deep\nZeroDivisionError: division by zero\n")
    assert reason_of(1, log) == "ZeroDivisionError: division by zero"
    assert reason_of(-9, log).startswith("killed by signal 9 (the memory")
    assert reason_of(3, tmp_path / "none") == "exit code 3."
