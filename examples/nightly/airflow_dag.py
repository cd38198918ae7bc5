"""A night by Airflow 3, on a worker that has retrieval-cli."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG

# max_active_runs sees the runs of this DAG alone; the lock also sees a night that somebody
# started by hand. 99 is what BashOperator shows as skipped, not as failed.
LOCK = "flock --nonblock --conflict-exit-code 99 /srv/retrieval/nightly.lock"

with DAG(
    dag_id="retrieval_nightly",
    schedule="30 3 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    # A night brings the index up to the photos of now: missed ones need no run of their own.
    catchup=False,
    max_active_runs=1,
    default_args={
        # The same command again: a night goes on where the one before was killed. Where the
        # gate refused, it is refused once more, within minutes.
        "retries": 1,
        "retry_delay": timedelta(minutes=10),
    },
) as dag:
    reindex = BashOperator(
        task_id="reindex",
        bash_command=f"{LOCK} retrieval-cli reindex /srv/photos /srv/retrieval/index"
        " --model /srv/retrieval/model"
        " --queries /srv/retrieval/queries --rankings /srv/retrieval/rankings"
        " --probe /srv/retrieval/probe --min-top-1 0.9 --min-map 0.8 --min-overlap 0.7",
        # RAY_ADDRESS and the store's credentials come from the worker's own environment.
        append_env=True,
        execution_timeout=timedelta(hours=20),
    )
    vacuum = BashOperator(
        task_id="vacuum",
        bash_command=f"{LOCK} retrieval-cli vacuum /srv/retrieval/index --keep-days 30",
        append_env=True,
    )
    reindex >> vacuum
