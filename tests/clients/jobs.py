"""Celery and rq on redis-py: their queues, results, delays and retries, with workers in processes of their own.

    python tests/clients/jobs.py

    KEYSTEAD_SERVER   the server (the release binary unless given)
"""

import os
import signal
import subprocess
import sys
import time
from datetime import timedelta

from rig import Checks, Rig, wait_until

HERE = os.path.dirname(os.path.abspath(__file__))
rig = Rig()
PORT = rig.node()
os.environ["BROKER"] = f"redis://127.0.0.1:{PORT}/0"

import celery  # noqa: E402
import redis  # noqa: E402
import rq  # noqa: E402
from celery import chain, chord, group  # noqa: E402

import job_tasks as tasks  # noqa: E402

r = redis.Redis(port=PORT, decode_responses=True)


class Worker:
    """A worker's process, with its log."""

    def __init__(self, name, *module_and_args):
        self.log = os.path.join(rig.folder, f"{name}.log")
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([sys.executable, "-m", *module_and_args], cwd=HERE, stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, start_new_session=True)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if kind:
            with open(self.log) as log:
                print("".join(log.readlines()[-40:]))


def celery_worker(name="celery", at_once=4):
    return Worker(name, "celery", "-A", "job_tasks", "worker", "--pool", "threads", "--concurrency", str(at_once),
                  "--loglevel", "info", "--without-mingle", "--hostname", f"{name}@here")


def celery_results():
    results = [tasks.add.delay(i, i) for i in range(200)]
    assert [result.get(timeout=30) for result in results] == [2 * i for i in range(200)]
    try:
        tasks.fails.delay().get(timeout=30)
        raise AssertionError("an error is a result, too")
    except ValueError as e:
        assert str(e) == "as it should"
    assert tasks.third_time.delay().get(timeout=30) == 2


def celery_canvas():
    assert chain(tasks.add.s(1, 2), tasks.add.s(10), tasks.add.s(100))().get(timeout=30) == 113
    assert group(tasks.add.s(i, 1) for i in range(20))().get(timeout=30) == list(range(1, 21))
    # The last of the group, whichever it is, starts the rest: a counter in Redis tells.
    assert chord((tasks.add.s(i, i) for i in range(20)), tasks.total.s())().get(timeout=30) == 380


def celery_delays():
    sent = time.time()
    late, soon = tasks.stamp.apply_async(countdown=2), tasks.stamp.apply_async(countdown=0.5)
    assert soon.get(timeout=30) - sent >= 0.5
    assert late.get(timeout=30) - sent >= 2
    revoked = tasks.named.apply_async(args=["revoked"], countdown=1.5)
    # By pub/sub, to all workers.
    revoked.revoke()
    try:
        revoked.get(timeout=30)
        raise AssertionError("it was revoked")
    except celery.exceptions.TaskRevokedError:
        pass
    replies = tasks.app.control.ping(timeout=2)
    assert len(replies) == 1 and list(replies[0].values())[0] == {"ok": "pong"}, replies


def celery_priorities():
    """Without a worker jobs wait in one list a priority; a worker takes them by BRPOP over the lists.

    The worker runs one job at a time: several threads may end them in any order.
    """
    r.delete("done")
    jobs = [tasks.named.apply_async(args=[f"{p}"], priority=p) for p in (9, 5, 0)]
    with celery_worker("second", at_once=1):
        for job in jobs:
            job.get(timeout=30)
    assert r.lrange("done", 0, -1) == ["0", "5", "9"]


def rq_worker(name, *args):
    return Worker(name, "rq.cli", "worker", "--url", os.environ["BROKER"], "--worker-class", "rq.worker.SimpleWorker",
                  *args)


def finished(jobs):
    return all(job.get_status(refresh=True) == rq.job.JobStatus.FINISHED for job in jobs)


def rq_jobs(connection):
    queue = rq.Queue("jobs", connection=connection)
    with queue.connection.pipeline() as pipe:
        jobs = queue.enqueue_many([rq.Queue.prepare_data(tasks.square, (i,)) for i in range(100)], pipeline=pipe)
        pipe.execute()
    with rq_worker("rq-1", "jobs"), rq_worker("rq-2", "jobs"):
        wait_until("all are done", lambda: finished(jobs))
    assert [job.return_value(refresh=True) for job in jobs] == [i * i for i in range(100)]
    assert queue.count == 0 and queue.finished_job_registry.count == 100


def rq_dependencies(connection):
    r.delete("done")
    queue = rq.Queue("chained", connection=connection)
    first = queue.enqueue(tasks.gather, "first")
    both = [queue.enqueue(tasks.gather, f"second-{i}", depends_on=first) for i in range(2)]
    last = queue.enqueue(tasks.gather, "last", depends_on=both)
    with rq_worker("rq-3", "chained"):
        wait_until("the last is done", lambda: finished([last]))
    done = r.lrange("done", 0, -1)
    assert done[0] == "first" and done[-1] == "last" and len(done) == 4, done


def rq_retries_and_schedules(connection):
    r.delete("done")
    queue = rq.Queue("later", connection=connection)
    flaky = queue.enqueue(tasks.flaky, "flaky", retry=rq.Retry(max=3))
    with rq_worker("rq-4", "later", "--with-scheduler"):
        wait_until("it succeeds", lambda: finished([flaky]))
        began = time.monotonic()
        # Due times are whole seconds.
        job = queue.enqueue_in(timedelta(seconds=2), tasks.square, 7)
        assert job.get_status() == rq.job.JobStatus.SCHEDULED
        wait_until("it is done when it is due", lambda: finished([job]))
        assert time.monotonic() - began >= 1
    assert flaky.return_value(refresh=True) == "at last" and job.return_value(refresh=True) == 49
    cancelled = queue.enqueue(tasks.square, 1)
    cancelled.cancel()
    assert queue.count == 0 and cancelled.get_status(refresh=True) == rq.job.JobStatus.CANCELED


def rq_limits(connection):
    """No more than two of a kind at a time: a script moves who may go on."""
    queue = rq.Queue("limited", connection=connection)
    jobs = [queue.enqueue(tasks.square, i, rate_limit=rq.RateLimit("squares", 2)) for i in range(8)]
    assert queue.count == 2
    with rq_worker("rq-5", "limited"):
        wait_until("all are done", lambda: finished(jobs))


def main():
    checks = Checks("jobs")
    print(f"Celery {celery.__version__}, rq {rq.VERSION}, redis-py {redis.__version__}", flush=True)
    connection = redis.Redis(port=PORT)
    try:
        with celery_worker():
            for check in (celery_results, celery_canvas, celery_delays):
                checks.run(check.__name__.replace("_", " "), check)
        checks.run("celery priorities", celery_priorities)
        for check in (rq_jobs, rq_dependencies, rq_retries_and_schedules, rq_limits):
            checks.run(check.__name__.replace("_", " "), check, connection)
    finally:
        rig.close(keep=checks.failed > 0)
    sys.exit(0 if checks.end() else 1)


if __name__ == "__main__":
    main()
