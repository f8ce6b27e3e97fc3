"""The peer of `cargo xtask bench serve`: chapkit with a model that costs next to nothing.

`xtask/examples/bench_service.rs` is the same model on our side. Training takes the mean of the
known disease cases; predicting adds it to the future frame. So what is measured is the service.

Run by uvicorn with one worker: `uvicorn peer_service:app --port PORT`, with DATABASE_URL set.
"""

import os
from typing import Any

from chapkit import BaseConfig
from chapkit.api import MLServiceBuilder, MLServiceInfo, ModelMetadata, PeriodType
from chapkit.artifact import ArtifactHierarchy
from chapkit.data import DataFrame
from chapkit.ml import FunctionalModelRunner


class BenchConfig(BaseConfig):
    """Bench config."""

    prediction_periods: int = 3
    n_lags: int = 3
    precision: float = 0.01
    mode: str = "fast"


async def on_train(config: BenchConfig, data: DataFrame, geo: Any = None) -> dict[str, float]:
    column = data.columns.index("disease_cases")
    cases = [row[column] for row in data.data if row[column] is not None]
    return {"mean": sum(cases) / len(cases) if cases else 0.0}


async def on_predict(
    config: BenchConfig, model: dict[str, float], historic: DataFrame, future: DataFrame, geo: Any = None
) -> DataFrame:
    mean = model["mean"]
    return DataFrame(
        columns=[*future.columns, "sample_0", "sample_1"],
        data=[[*row, mean, mean + 1.0] for row in future.data],
    )


info = MLServiceInfo(
    id="bench-model",
    display_name="Bench Model",
    version="1.0.0",
    description="The mean of the disease cases",
    model_metadata=ModelMetadata(author="Bench", author_note="Measures the service, not the model"),
    period_type=PeriodType.monthly,
    min_prediction_periods=0,
    max_prediction_periods=100,
    allow_free_additional_continuous_covariates=True,
    required_covariates=["population", "rainfall", "mean_temperature"],
)

app = MLServiceBuilder(
    info=info,
    config_schema=BenchConfig,
    hierarchy=ArtifactHierarchy(
        name="bench", level_labels={0: "ml_training_workspace", 1: "ml_prediction"}
    ),
    runner=FunctionalModelRunner(on_train=on_train, on_predict=on_predict),
    database_url=os.environ["DATABASE_URL"],
).build()
