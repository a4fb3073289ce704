"""The work that jobs.py has done by the workers of Celery and rq. The server is named by the variable BROKER."""

import os
import time

import celery
import redis

URL = os.environ["BROKER"]

app = celery.Celery("tasks", broker=URL, backend=URL)
app.conf.update(
    broker_connection_retry_on_startup=True,
    result_expires=600,
    worker_prefetch_multiplier=4,
    task_acks_late=True,
    broker_transport_options={"priority_steps": [0, 5, 9], "queue_order_strategy": "priority"},
)


def note(what):
    """Appends to the list of what was done, which outlives its worker."""
    return redis.Redis.from_url(URL).rpush("done", what)


@app.task
def add(a, b):
    return a + b


@app.task
def total(numbers):
    return sum(numbers)


@app.task(bind=True, max_retries=3)
def third_time(self):
    if self.request.retries < 2:
        raise self.retry(countdown=0.1)
    return self.request.retries


@app.task
def fails():
    raise ValueError("as it should")


@app.task
def stamp():
    return time.time()


@app.task
def named(name):
    note(name)
    return name


def square(n):
    return n * n


def flaky(name):
    if note(name) < 3:
        raise ValueError("not yet")
    return "at last"


def gather(name):
    return note(name)
