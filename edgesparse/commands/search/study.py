"""Optuna study of a search, in a file that any process can resume.

Sampling is repeatable: each trial has a sampler seeded by the search's seed and the trial's number
(so that the process, or how often it was killed, does not matter), and trials are chosen in
batches, each from the results of all earlier batches.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgesparse.measure.rows import Direction
from edgesparse.measure.trials import Trial
from edgesparse.spec.errors import UsageError, missing_extra, require_extra
from edgesparse.spec.search import Search, SearchDimension, fill_template

if TYPE_CHECKING:
    import optuna

_ROW, _RUN = "trial", "run"
_STEP = 1_000_003
_STARTUP = 10
"""Random trials before the sampler uses results."""


class Study:
    """The trials of a search on a device."""

    def __init__(self, path: Path, search: Search, directions: Sequence[Direction]) -> None:
        """Raises UsageError where Optuna is not installed, or the file is damaged."""
        self._optuna = _library()
        self.path, self.search = path, search
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._usable(RuntimeError, ValueError, LookupError):
            self._study = self._optuna.create_study(
                storage=f"sqlite:///{path.absolute()}",
                study_name="search",
                sampler=self._sampler(0),
                directions=list(directions),
                load_if_exists=True,
            )

    def count(self) -> int:
        """Number of trials that were started."""
        return len(self._all())

    def done(self) -> list[Trial]:
        """Finished trials, in order."""
        with self._usable(ValueError, LookupError):
            trials = self._all(finished=True)
            return [Trial.model_validate_json(trial.user_attrs[_ROW]) for trial in trials]

    def batch(self, most: int, run: str, alive: Callable[[str], bool]) -> list[TrialRequest]:
        """Choose the next trials; first those whose process has ended.

        Args:
            most: total number of trials.
            run: id of the run that executes them.
            alive: whether a run is still active.
        """
        with self._usable():
            return self._batch(most, run, alive)

    def _batch(self, most: int, run: str, alive: Callable[[str], bool]) -> list[TrialRequest]:
        running = self._all(finished=False)
        lost = [trial for trial in running if not alive(str(trial.user_attrs.get(_RUN, "")))]
        requests = []
        for trial in lost:
            self._study.sampler = self._sampler(trial.number)
            restarted = self._optuna.trial.Trial(self._study, trial._trial_id)
            requests.append(self._chosen(restarted, run))
        # Trials chosen together are executed together, also after a kill.
        while self.count() < most and (not requests or self.count() % self.search.parallel_trials):
            self._study.sampler = self._sampler(self.count())
            requests.append(self._chosen(self._study.ask(), run))
        return requests

    def tell(self, request: TrialRequest, trial: Trial, beyond: float) -> None:
        """Report the result of a trial; `beyond` is the amount by which it violates constraints."""
        with self._usable():
            self._tell(request, trial, beyond)

    def _tell(self, request: TrialRequest, trial: Trial, beyond: float) -> None:
        optuna_trial = request.trial
        optuna_trial.set_user_attr(_ROW, trial.model_dump_json())
        if (
            trial.row is not None and self.search.constraints
        ):  # It counts more than any objective for the sampler.
            optuna_trial.set_constraint("limits", beyond)
        states = self._optuna.trial.TrialState
        if trial.values:
            self._study.tell(optuna_trial, trial.values)
        else:  # Pruned: a constraint is violated by a prediction.
            pruned = trial.status == "infeasible"
            self._study.tell(optuna_trial, state=states.PRUNED if pruned else states.FAIL)

    def _chosen(self, trial: optuna.trial.Trial, run: str) -> TrialRequest:
        trial.set_user_attr(_RUN, run)
        chosen: dict[str, Any] = {}

        def choose(dimension: SearchDimension) -> Any:
            value = _suggested(trial, dimension)
            chosen[dimension.path] = dimension.options[value] if dimension.options else value
            return value

        variant = fill_template(self.search.variant, choose)
        return TrialRequest(trial, trial.number, chosen, variant)

    @contextmanager
    def _usable(self, *more: type[Exception]) -> Iterator[None]:
        """Turn errors of a damaged file or a full disk into one UsageError."""
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except (self._optuna.exceptions.StorageInternalError, SQLAlchemyError, *more) as error:
            raise unusable(self.path, error.__cause__ or error) from None

    def _all(self, finished: bool | None = None) -> list[optuna.trial.FrozenTrial]:
        trials = self._study.get_trials(deepcopy=False)
        return [
            trial for trial in trials if finished is None or trial.state.is_finished() == finished
        ]

    def _sampler(self, number: int) -> Any:
        samplers, seed = self._optuna.samplers, self.search.seed + _STEP * number
        if self.search.sampler == "random":
            return samplers.RandomSampler(seed=seed)
        if self.search.sampler == "nsga2":
            return samplers.NSGAIISampler(population_size=_STARTUP, seed=seed)
        return samplers.TPESampler(n_startup_trials=_STARTUP, seed=seed)


def check(path: Path) -> None:
    """Raise UsageError for a damaged study, or where Optuna is not installed, before anything is
    trained."""
    require_extra("a search", "Optuna", "optuna", "search")
    if not path.exists():
        return
    try:
        with closing(sqlite3.connect(path)) as study:
            (answer,) = study.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        if "locked" in str(error):  # Another run is at work on it.
            return
        raise unusable(path, error) from None
    if answer != "ok":
        raise unusable(path, ValueError("database disk image is malformed"))


def unusable(path: Path, error: BaseException) -> UsageError:
    """Error for a damaged file of a search."""
    reason = str(error).splitlines()[0][:200]
    return UsageError(
        f"{path}: cannot be used: {reason}; if it is damaged, remove {path.parent}: the search "
        "starts again, and trained models are cached"
    )


@dataclass(frozen=True)
class TrialRequest:
    """A trial to execute: its number, the chosen values and the resulting variant."""

    trial: Any
    number: int
    chosen: dict[str, Any]
    variant: Any

    @property
    def name(self) -> str:
        """Name of the trial's variant."""
        return f"trial-{self.number:03d}"


def _suggested(trial: optuna.trial.Trial, dimension: SearchDimension) -> Any:
    if dimension.options:
        # Options can be of any type; Optuna stores texts.
        texts = [json.dumps(option, sort_keys=True) for option in dimension.options]
        return texts.index(trial.suggest_categorical(dimension.path, texts))
    if dimension.whole:
        step = int(dimension.step or 1)
        return trial.suggest_int(
            dimension.path, int(dimension.low), int(dimension.high), step=step, log=dimension.log
        )
    value = trial.suggest_float(
        dimension.path, dimension.low, dimension.high, step=dimension.step, log=dimension.log
    )
    return float(f"{value:.6g}")  # Rounded, since keys of stages contain it.


def _library() -> Any:
    try:
        import optuna
    except ImportError:
        raise missing_extra("a search", "Optuna", "search") from None
    import warnings

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna
