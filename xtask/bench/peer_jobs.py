"""The peer of `cargo xtask bench jobs`: Procrastinate, with jobs that do nothing.

`peer_jobs.py URL JOBS` makes a database on the server at URL, measures what `jobs_load` measures
of our side, and prints the same JSON. The worker is a process of its own, as it would be in service.
"""

import asyncio
import json
import logging
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import procrastinate
import psycopg

AT_ONCE = 8
BULK = 100
LIGHT_PER_SECOND, LIGHT_SECONDS = 50, 10
IDLE_SECONDS = 20


def make_app(url: str) -> procrastinate.App:
    connector = procrastinate.PsycopgConnector(conninfo=url, min_size=AT_ONCE, max_size=AT_ONCE)
    return procrastinate.App(connector=connector)


async def work(url: str, report: str) -> None:
    """Does jobs until told to stop, and then tells when it began each."""
    app, begun = make_app(url), {}

    @app.task(name="nothing", queue="bench", pass_context=True)
    async def nothing(context: procrastinate.JobContext) -> None:
        begun[context.job.id] = time.time()

    async with app.open_async():
        await app.run_worker_async(queues=["bench"], concurrency=AT_ONCE)
    with open(report, "w") as file:
        json.dump(begun, file)


class Measured:
    def __init__(self, app: procrastinate.App, watcher: psycopg.Connection) -> None:
        self.deferrer = app.configure_task("nothing", queue="bench")
        self.watcher = watcher

    async def submit(self, jobs: int, at_once: int) -> None:
        async def client() -> None:
            for _ in range(jobs // AT_ONCE // at_once):
                if at_once == 1:
                    await self.deferrer.defer_async()
                else:
                    await self.deferrer.batch_defer_async(*[{}] * at_once)

        await asyncio.gather(*(client() for _ in range(AT_ONCE)))
        for _ in range(jobs - jobs // AT_ONCE // at_once * AT_ONCE * at_once):
            await self.deferrer.defer_async()

    async def all_are_done(self) -> None:
        sql = "SELECT EXISTS (SELECT FROM procrastinate_jobs WHERE status IN ('todo', 'doing'))"
        began = time.perf_counter()
        while self.ask(sql):
            if time.perf_counter() - began > 300:
                raise TimeoutError("five minutes are not enough")
            await asyncio.sleep(0.02)

    def queries(self) -> int:
        return self.ask(
            "SELECT sum(calls)::bigint FROM pg_stat_statements JOIN pg_database ON oid = dbid"
            " WHERE datname = current_database()"
        )

    def ask(self, sql: str):
        return self.watcher.execute(sql).fetchone()[0]


async def measure(server: str, jobs: int) -> dict[str, float]:
    name = f"bench_{os.getpid()}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    url = f"{server.rsplit('/', 1)[0]}/{name}"
    app, watcher = make_app(url), psycopg.connect(url, autocommit=True)
    watcher.execute("CREATE EXTENSION pg_stat_statements")
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        it, figures = Measured(app, watcher), {}

        began = time.perf_counter()
        await it.submit(jobs // 2, 1)
        figures["enqueued_per_second"] = jobs // 2 / (time.perf_counter() - began)
        began = time.perf_counter()
        await it.submit(jobs // 2, BULK)
        figures["enqueued_in_bulk_per_second"] = jobs // 2 / (time.perf_counter() - began)

        with tempfile.NamedTemporaryFile() as report:
            worker = subprocess.Popen([sys.executable, __file__, "work", url, report.name])
            try:
                # Its start does not count.
                begun = "SELECT EXISTS (SELECT FROM procrastinate_jobs WHERE status <> 'todo')"
                while not it.ask(begun):
                    await asyncio.sleep(0.005)
                began = time.perf_counter()
                await it.all_are_done()
                figures["completed_per_second"] = jobs / (time.perf_counter() - began)

                began = time.perf_counter()
                await it.submit(jobs, 1)
                await it.all_are_done()
                figures["per_second"] = jobs / (time.perf_counter() - began)

                await asyncio.sleep(1)
                committed, began = {}, time.perf_counter()
                while time.perf_counter() - began < LIGHT_SECONDS:
                    due = began + len(committed) / LIGHT_PER_SECOND
                    await asyncio.sleep(max(0.0, due - time.perf_counter()))
                    committed[await it.deferrer.defer_async()] = time.time()
                await it.all_are_done()

                await asyncio.sleep(2)
                before = it.queries()
                await asyncio.sleep(IDLE_SECONDS)
                # The first of the two looks counts.
                figures["idle_queries_per_second"] = (it.queries() - before - 1) / IDLE_SECONDS
            finally:
                worker.send_signal(signal.SIGTERM)
                worker.wait(30)
            begun = json.load(report)
        waits = sorted(max(0.0, begun[str(job)] - at) * 1e3 for job, at in committed.items())
        figures["pick_up_p50_ms"] = statistics.median(waits)
        figures["pick_up_p99_ms"] = waits[min(len(waits) * 99 // 100, len(waits) - 1)]
    return figures


if __name__ == "__main__":
    # That the app is made in the main module matters to its own command line only.
    logging.getLogger("procrastinate").setLevel(logging.ERROR)
    if sys.argv[1] == "work":
        asyncio.run(work(sys.argv[2], sys.argv[3]))
    else:
        print(json.dumps(asyncio.run(measure(sys.argv[1], int(sys.argv[2])))))
