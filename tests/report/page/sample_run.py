"""A run with every kind of content that a page shows."""

from edgesparse.measure.results import DeviceInfo, Results
from edgesparse.measure.rows import Coverage, GateResult, Layer, Score, StoredWeight
from edgesparse.measure.training_details import (
    InputAttribution,
    LayerSensitivity,
    LayerSparsity,
    Provenance,
    Training,
)
from tests.report.test_table import row

HOSTILE = "<script>document.title='owned'</script>$\\frac{1}{2}$<img src=http://192.0.2.1/x>"


def run(device="pi", variants=("dense-f32", "sparse-f32", "sparse-int8", "torn"), **changes):
    """Results; the last of the variants failed."""
    rows = []
    for index, variant in enumerate(variants):
        if variant == variants[-1]:
            rows.append(row(variant, error=f"{device}: its process crashed"))
            continue
        measured = row(variant, p50=2.0 / (index + 1), low=index + 0.9, high=index + 1.1)
        stored = StoredWeight(
            name="dense_1", operator="FULLY_CONNECTED", storage="block-1x16", dense_bytes=1_000_000,
            stored_bytes=123_456, exploited=True, reason=f"{device} skips its zeros",
        )  # fmt: skip
        layers = [
            Layer(
                name="dense_1", operator="FULLY_CONNECTED", weights=1_000_000, zeros=800_000,
                macs=1_000_000, storage="block-1x16", dense_bytes=1_000_000, stored_bytes=123_456,
                time_ms=0.75,
            ),
            Layer(name="out", operator="FULLY_CONNECTED", weights=1000, zeros=20, macs=1000,
                  storage="dense", dense_bytes=1000, stored_bytes=1000),
            Layer(name="probabilities", operator="SOFTMAX"),
        ]  # fmt: skip
        latency = measured.latency_ms.model_copy(update={"by_round": [1.0, 1.02, 0.99]})
        model = measured.model.model_copy(
            update={"experts": {"moe": [0.5, 0.3, 0.2]}, "activations": {"relu": 0.75}}
        )
        rows.append(
            measured.model_copy(
                update={
                    "latency_ms": latency,
                    "model": model,
                    "weights": [stored] if index else [],
                    "layers": layers if index else [],
                    "details": {"confusion": [[9, 1], [3, 7]]},
                    "metrics": [
                        Score(
                            name="accuracy",
                            unit="%",
                            keras_train=0.99,
                            keras=0.975,
                            device=0.97,
                            samples=360,
                        )
                    ],
                    "coverage": Coverage(
                        target=0.9,
                        achieved=0.8,
                        left_dense=[{"name": "out", "share": 0.1, "reason": "it"}],
                    ),
                }
            )
        )
    provenance = Provenance(
        trainings=[
            Training(label="train", variants=[], history={
                "loss": [1.0, 0.5, None], "val_loss": [1.1, 0.6, 0.7], "accuracy": [0.1, 0.5, 0.9],
                "val_accuracy": [0.1, 0.4, 0.8],
            }),
        ],
        layers={v: [LayerSparsity(name="dense_1", pattern="block-1x16", size=1_000_000, target=0.9,
                                  achieved=0.8)] for v in variants[1:3]},
        sensitivities=[LayerSensitivity(
            variants=[variants[1]], metric="accuracy", unit="%", dense=0.97, levels=[0.5, 0.9],
            layers={"dense_1": [0.96, 0.5], "out": [0.9, 0.2]},
        )],
        inputs={variants[1]: [
            InputAttribution(input="pixels", shape=[2, 2, 1], n_values=4, n_connected=3,
                             attribution={"cat": [99, -20, 0, 5], "dog": [-99, 20, 0, -5]},
                             strongest={"cat": [("0", 1.0)]}),
            InputAttribution(input="words", shape=[10], n_values=10, n_connected=3,
                             strongest={"good": [("lovely", 2.5), ("fine", 1.0)]}),
        ]},
        class_names=["cat", "dog"],
    )  # fmt: skip
    gate = GateResult(
        variant=variants[1], metric="accuracy_drop", device=device, runtime="ai-edge-litert",
        threads=1, value=0.01, min=None, max=0.02, passed=True,
    )  # fmt: skip
    results = Results(
        run="20261126-101500-p-123456",
        started="2026-11-26T10:15:00+00:00",
        host={"machine": "x86_64", "system": "Linux"},
        versions={"edgesparse": "0.1.0", "tensorflow": "2.21.0"},
        pipeline="p",
        pipeline_digest="",
        baseline=variants[0],
        devices=[DeviceInfo(name=device, description="", machine="aarch64", cpu=device, cores=4)],
        rows=[entry.model_copy(update={"device": device}) for entry in rows],
        gates=[gate],
        provenance=provenance,
        command="edgesparse deploy p.yaml --device pi",
        pipeline_source=["name: p", f"# {device}"],
    )
    return results.model_copy(update=changes)
