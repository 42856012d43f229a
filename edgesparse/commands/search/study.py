"""Which variants are tried: Optuna's study, in a file of its own, which any process can go on with.

Sampling is repeatable: each trial has a sampler seeded by the search's seed and the trial's number
(so that nothing hangs on which process asks, or how often one was killed), and trials are chosen in
batches, each from what all earlier batches gave.
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
from edgesparse.spec.auto_variants import Search, SearchDimension, fill_template
from edgesparse.spec.errors import UsageError, missing_extra

if TYPE_CHECKING:
    import optuna

_ROW, _RUN = "trial", "run"
_STEP = 1_000_003
_STARTUP = 10
"""So many trials are chosen blindly before what was good counts."""


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
                study_name="sweep",
                sampler=self._sampler(0),
                directions=list(directions),
                load_if_exists=True,
            )

    def count(self) -> int:
        """Trials that were begun."""
        return len(self._all())

    def done(self) -> list[Trial]:
        """Trials that have ended, in their order."""
        with self._usable(ValueError, LookupError):
            found = self._all(finished=True)
            return [Trial.model_validate_json(one.user_attrs[_ROW]) for one in found]

    def batch(self, most: int, run: str, alive: Callable[[str], bool]) -> list[Asked]:
        """The next trials to make; first those whose process is gone.

        Args:
            most: so many trials there shall be in all.
            run: who makes them.
            alive: whether a run still goes on.
        """
        with self._usable():
            return self._batch(most, run, alive)

    def _batch(self, most: int, run: str, alive: Callable[[str], bool]) -> list[Asked]:
        running = self._all(finished=False)
        lost = [one for one in running if not alive(str(one.user_attrs.get(_RUN, "")))]
        found = []
        for one in lost:
            self._study.sampler = self._sampler(one.number)
            trial = self._optuna.trial.Trial(self._study, one._trial_id)
            found.append(self._chosen(trial, run))
        # What was chosen together is made together, also where a kill came between.
        while self.count() < most and (not found or self.count() % self.search.parallel_trials):
            self._study.sampler = self._sampler(self.count())
            found.append(self._chosen(self._study.ask(), run))
        return found

    def tell(self, asked: Asked, trial: Trial, beyond: float) -> None:
        """What became of a trial. `beyond` is how far it is over its limits."""
        with self._usable():
            self._tell(asked, trial, beyond)

    def _tell(self, asked: Asked, trial: Trial, beyond: float) -> None:
        own = asked.trial
        own.set_user_attr(_ROW, trial.model_dump_json())
        if (
            trial.row is not None and self.search.constraints
        ):  # To the sampler it counts for more than any objective.
            own.set_constraint("limits", beyond)
        states = self._optuna.trial.TrialState
        if trial.values:
            self._study.tell(own, trial.values)
        else:  # Pruned: beyond a limit, which was seen before it was measured.
            pruned = trial.status == "infeasible"
            self._study.tell(own, state=states.PRUNED if pruned else states.FAIL)

    def _chosen(self, trial: optuna.trial.Trial, run: str) -> Asked:
        trial.set_user_attr(_RUN, run)
        chosen: dict[str, Any] = {}

        def choose(hole: SearchDimension) -> Any:
            value = _suggested(trial, hole)
            chosen[hole.path] = hole.options[value] if hole.options else value
            return value

        variant = fill_template(self.search.variant, choose)
        return Asked(trial, trial.number, chosen, variant)

    @contextmanager
    def _usable(self, *more: type[Exception]) -> Iterator[None]:
        """What a damaged file raises, or a full disk, becomes one UsageError."""
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except (self._optuna.exceptions.StorageInternalError, SQLAlchemyError, *more) as error:
            raise unusable(self.path, error.__cause__ or error) from None

    def _all(self, finished: bool | None = None) -> list[optuna.trial.FrozenTrial]:
        found = self._study.get_trials(deepcopy=False)
        return [one for one in found if finished is None or one.state.is_finished() == finished]

    def _sampler(self, number: int) -> Any:
        samplers, seed = self._optuna.samplers, self.search.seed + _STEP * number
        if self.search.sampler == "random":
            return samplers.RandomSampler(seed=seed)
        if self.search.sampler == "nsga2":
            return samplers.NSGAIISampler(population_size=_STARTUP, seed=seed)
        return samplers.TPESampler(n_startup_trials=_STARTUP, seed=seed)


def check(path: Path) -> None:
    """Raises UsageError where a study is there that is damaged: before anything is measured."""
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
    """Of a file that a search keeps what it knows in."""
    reason = str(error).splitlines()[0][:200]
    return UsageError(
        f"{path}: cannot be used: {reason}; if it is damaged, remove {path.parent}: the search "
        "begins anew, and what it trained is cached"
    )


@dataclass(frozen=True)
class Asked:
    """A trial to be made: its number, what was chosen, and the variant that this makes."""

    trial: Any
    number: int
    chosen: dict[str, Any]
    variant: Any

    @property
    def name(self) -> str:
        return f"trial-{self.number:03d}"


def _suggested(trial: optuna.trial.Trial, hole: SearchDimension) -> Any:
    if hole.options:
        # Options may be anything; Optuna keeps texts.
        texts = [json.dumps(option, sort_keys=True) for option in hole.options]
        return texts.index(trial.suggest_categorical(hole.path, texts))
    if hole.whole:
        step = int(hole.step or 1)
        return trial.suggest_int(hole.path, int(hole.low), int(hole.high), step=step, log=hole.log)
    value = trial.suggest_float(hole.path, hole.low, hole.high, step=hole.step, log=hole.log)
    return float(f"{value:.6g}")  # As a person would write it; keys of stages have it, too.


def _library() -> Any:
    try:
        import optuna
    except ImportError:
        raise missing_extra("a search", "Optuna", "sweep") from None
    import warnings

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna
