"""One run of a study, from the images to the verdict."""

import errno
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Protocol

from edge_tune.benchmark.backend import check_device
from edge_tune.benchmark.devices import BenchmarkClient, check_alike, measuring
from edge_tune.benchmark.granularity import measure_granularity
from edge_tune.display import console
from edge_tune.display.card import study_card
from edge_tune.display.tensorboard import TensorBoard
from edge_tune.errors import BenchmarkError, EdgeTuneError, ExperimentError, StudyError
from edge_tune.experiment import AUTO, Asha, Benchmark, Experiment, Predicted
from edge_tune.files import write_atomically
from edge_tune.loading import as_json, identity, parameter_as_json, parameters_as_json, without_ranges
from edge_tune.metrics import TRAINED
from edge_tune.networks import training
from edge_tune.networks.datasets import Dataset
from edge_tune.networks.weights import Pretrained
from edge_tune.parameters import Point, from_json
from edge_tune.records.endings import is_paused
from edge_tune.records.entries import FORM, DeviceEntry, Effect, Metrics, Run, Session, Taught
from edge_tune.records.ranking import Standing
from edge_tune.records.results import Record, Report, Results
from edge_tune.records.verdict import Verdict
from edge_tune.search import cluster, conclusion, confirmation, earlier, suggesters, tune
from edge_tune.search.budget import Budget
from edge_tune.search.cluster import Cluster
from edge_tune.search.gate import Gate
from edge_tune.search.live import Board
from edge_tune.search.paused import KEPT, Paused
from edge_tune.search.prediction import Outlook
from edge_tune.search.searcher import count_trials
from edge_tune.search.simulation import Simulation
from edge_tune.search.stopping import StudyLimits
from edge_tune.search.study import Loaded, Study, check, digest_of_network, images_digest, load, prepare
from edge_tune.search.trainable import RunsTrials, baseline_name
from edge_tune.search.trial import Trials
from edge_tune.waiting import told
from edge_tune.wording import counted, verb

Say = Callable[[str], None]
CANNOT_WRITE = (errno.ENOSPC, errno.EROFS, errno.EDQUOT)
RANGED = ("pruner_groups", "retraining")
"""The parts of an experiment whose ranges may change between sessions."""

NEWS_S = 20.0
"""Seconds without news after which a line of progress is due."""


def run(
    experiment: Experiment,
    results: Results,
    about: Session,
    source: bytes,
    say: Say,
    simulated_epoch_s: float | None = None,
    promote: int | None = None,
    warm_start: Sequence[Path] = (),
) -> Verdict:
    """Prepare, measure the unpruned network, search, conclude.

    Trials that have a record in `results` are not run again.

    Args:
        about: What else run.json is to hold: command, versions, commit.
        source: The experiment file as it is, which is kept beside the results.
        simulated_epoch_s: Seconds an epoch, to simulate the trials; None: they are real.
        promote: So many paused trials are continued first, those that promise most, whatever the budget of epochs is.
        warm_start: Results folders of earlier studies that teach a new one.

    Raises:
        ExperimentError: Something that the experiment names does not fit; nothing was started.
        RetrainingError: The training of the unpruned network diverged; nothing was kept.
        BenchmarkError: The unpruned network could not be measured; nothing was kept.
        StudyError: Too many trials failed, their records cannot be written, or an image of the test split cannot be
            read any more; what was written is kept.
        KeyboardInterrupt: The study was interrupted; what was written is kept.
    """
    _check_kind(results, simulated=simulated_epoch_s is not None)
    _check_paused(results, promote)
    earlier.check_folders(warm_start, experiment, simulated=simulated_epoch_s is not None)
    experiment = experiment.ordered(_known_orders(results))
    named_later = experiment.pruner_groups == AUTO or experiment.named_in(()) != experiment
    found_later = {"pruner_groups"} if named_later else set()
    check_same(results, {key: value for key, value in identity(experiment).items() if key not in found_later})
    if not found_later:
        suggesters.make(experiment)  # or a sentence on why that cannot be
    if simulated_epoch_s is not None:
        say = _as_simulated(say)
    else:
        records = [*results.baselines(), *results.trials()]
        _check_baselines(experiment, records, results)
        # The earlier session may have kept no more than these, and more are not needed.
        results.check_networks(Standing(experiment.objective, records, "best").kept)
    results.create()
    with results.held():
        return _run(experiment, results, about, source, say, simulated_epoch_s, promote, warm_start)


def _run(
    experiment: Experiment,
    results: Results,
    about: Session,
    source: bytes,
    say: Say,
    simulated_epoch_s: float | None,
    promote: int | None,
    warm_start: Sequence[Path],
) -> Verdict:
    try:
        loaded = None
        if simulated_epoch_s is None:
            loaded = load(experiment, say)
            experiment = loaded.experiment.ordered(_known_orders(results))
            loaded = replace(loaded, experiment=experiment)
            if experiment.weights and not loaded.pretrained:
                earlier.check_network(warm_start, digest_of_network(loaded.network))
        else:
            experiment = check(experiment, say)
        check_same(results, identity(experiment))  # with the groups that were found
        suggesters.make(experiment)
        with joined(experiment, loaded, say) as place:
            here, devices, gpus, found = place.here, place.devices, place.gpus, place.found
            _check_runtime(results, found)
            say(f"{here.says(found.owner_text, experiment.benchmark.boards)}. Results: {results.folder}")
            work: _Work
            if loaded is None:
                work = Simulation(experiment, simulated_epoch_s or 0.0)
            else:
                study = prepare(
                    loaded,
                    say,
                    lambda settings: here.on_device_node(measure_granularity, settings),
                    _train_on(here, experiment.search.cpus_per_trial, gpus) if gpus else None,
                )
                work = _Pruning(study, loaded.dataset)
                check_images(here, loaded.dataset)  # again: nodes may have joined while the network was trained
            check_same(results, {"weights and images": work.digest})
            earlier.check_network(warm_start, work.network_digest, work.digest)
            reference = work.reference()
            with measuring(experiment.benchmark, reference, devices) as device:
                with told(say, "the unpruned network to be measured"):
                    unpruned = _unpruned(work, results, device)
                # Only now, so that an unpruned network that guesses leaves no study.
                write_atomically(results.folder / "unpruned.onnx", reference)
                write_atomically(results.folder / "experiment.py", source)
                _say_changed_ranges(results, experiment, say)
                described = device.describe()  # of several boards, by one of them
                described = replace(described, host=found.host or described.host)
                session = replace(about, cluster=here.entry(), device=described)
                taught_by = _learn(results, work, session, unpruned, warm_start, say)
                _write_run(results, work, session, taught_by)
                return _Session(work, results, here, device, say, gpus).run(unpruned, promote)
    except (EdgeTuneError, KeyboardInterrupt):
        results.discard_if_empty()
        raise
    except OSError as error:
        if error.errno not in CANNOT_WRITE and not _is_in(results.folder, error.filename):
            raise
        raise StudyError(f"{results.folder}: results must be written as they come, but got {error.strerror}") from error


@dataclass(frozen=True)
class Place:
    """Where a study runs, looked at before anything takes long.

    Attributes:
        devices: How many measure.
        gpus: Of each trial.
        room: Trials that the nodes have room for.
        found: What the device says of itself.
    """

    here: Cluster
    devices: int
    gpus: float
    room: int
    found: DeviceEntry


@contextmanager
def joined(experiment: Experiment, loaded: Loaded | None, say: Say) -> Iterator[Place]:
    """Join the cluster, or start Ray here, and check that the trials and the device find all that they need.

    Args:
        loaded: None where the trials are formulas.

    Raises:
        ExperimentError: They do not.
    """
    cpus = experiment.search.cpus_per_trial
    with ExitStack() as ending:
        with told(say, "Ray to start"):
            here = ending.enter_context(cluster.joined(experiment.benchmark))
        nodes_have = here.wait_for_devices(say)
        devices = len(experiment.benchmark.boards) or nodes_have
        here.trials_at_once(cpus)
        here.check_agreement()
        if loaded:
            check_images(here, loaded.dataset)
        gpus = here.gpus_per_trial(experiment.search.gpus_per_trial, say) if loaded else 0
        room = here.trials_at_once(cpus, gpus)
        with told(say, f"{experiment.benchmark.device} to answer"):
            found = _check_device(here, experiment.benchmark, loaded)
        yield Place(here, devices, gpus, room, found)


def _is_in(folder: Path, file: object) -> bool:
    return isinstance(file, str | Path) and folder.absolute() in Path(file).absolute().parents


def _as_simulated(say: Say) -> Say:
    """Have each line say that it is no measurement."""
    return lambda line: say(f"simulated: {line}")


def recorded(experiment: Experiment, results: Results) -> str:
    """Return how far a study has come, as its files tell."""
    ended = sum(record.trial > 0 for record in (*results.baselines(), *results.trials()))
    return _recorded(ended, count_trials(experiment), results)


def _recorded(ended: int, total: int | None, results: Results) -> str:
    trials = counted(ended, "trial") if total is None else f"{ended} of {counted(max(total, ended), 'trial')}"
    return f"{trials} {verb(ended, 'is', 'are')} recorded in {results.folder}"


def _check_device(here: Cluster, settings: Benchmark, loaded: Loaded | None) -> DeviceEntry:
    """Check, before hours are spent on training, that the device runs the unpruned network; return its description.

    Boards are each checked, and must be alike: what is returned is the first's, with the names of all.
    """
    network = (loaded.onnx, loaded.image) if loaded else ()
    try:
        found = [here.on_device_node(check_device, one, *network) for one in settings.each_board or (settings,)]
        check_alike(found, are_boards=True)
        return replace(found[0], host=", ".join(settings.boards) or found[0].host)
    except BenchmarkError as error:
        raise ExperimentError(f"benchmark: {error}") from error


def _train_on(here: Cluster, cpus: int, gpus: float) -> training.Train:
    """Return what trains a network without weights where the trials are trained, with as much of a GPU."""

    def train(experiment: Experiment, dataset: Dataset, say: Say, pretrained: Pretrained | None) -> bytes:
        untested = replace(dataset, test=dataset.validation)  # the test stays here
        return here.as_a_trial(cpus, gpus, training.train_with, cpus, gpus, experiment, untested, pretrained, say=say)

    return train


def check_images(here: Cluster, dataset: Dataset) -> None:
    """Check that each node that trains finds the same files; images in memory reach it through Ray, as they are.

    Raises:
        ExperimentError: One does not; the sentence names it and what differs.
    """
    if len(here.nodes) == 1 or not dataset.streams:
        return
    mine = images_digest(dataset.train, dataset.validation)
    train = [node for node in here.nodes if node.cpus]
    found = here.on_each_node(images_digest, dataset.train, dataset.validation, nodes=train)
    ExperimentError.raise_if(
        f"node {node.host}: the images must be the same on each node, but their digest is {digest[:12]} there and "
        f"{mine[:12]} here; copy them anew."
        for node, digest in found
        if digest != mine
    )


def check_same(results: Results, mine: Mapping[str, object]) -> None:
    """Check that the folder is new or holds a study that is `mine`, but for the ranges of its parameters.

    A grid's must be the same too: they number its points.

    Raises:
        ExperimentError: It holds another one; the sentence says what differs.
    """
    if not results.exists():
        return
    theirs = results.identity()
    ranged = () if results.run().searched.method == "grid" else RANGED
    pairs = {key: (mine[key], theirs.get(key)) for key in mine}
    pairs |= {key: (without_ranges(pairs[key][0]), without_ranges(pairs[key][1])) for key in ranged if key in pairs}
    differing = [key for key, (one, other) in pairs.items() if one != other or _keys(one) != _keys(other)]
    if differing:
        raise ExperimentError(
            f"{results.folder}: a resumed study must be the one that was started, but got another "
            f"{', '.join(differing)}; give the same options or choose another folder with --results."
        )


def _check_runtime(results: Results, found: DeviceEntry) -> None:
    """Check that the runtime which measured a study that is resumed, still does; its version may change.

    Raises:
        ExperimentError: Another one does.
    """
    sessions = results.run().sessions if results.exists() else ()
    then, now = (sessions[-1].device.measured_by[0] if sessions else None), found.measured_by[0]
    if then not in (None, now):
        raise ExperimentError(
            f"{results.folder}: a resumed study must be measured by the runtime that it began with, {then}, but the "
            f"interpreter has {now} measure {found.device}; give it {then} again or choose another folder with "
            f"--results."
        )


def _say_changed_ranges(results: Results, experiment: Experiment, say: Say) -> None:
    """Say which ranges are others than in the last session, and how many recorded points lie outside of them."""
    before = {name: from_json(plain) for name, plain in results.run().parameters.items()} if results.exists() else {}
    now = experiment.parameters
    changed = [
        f"{name} {old.shown}, now {now[name].shown}"
        for name, old in before.items()
        if old is not None and name in now and parameter_as_json(old) != parameter_as_json(now[name])
    ]
    if changed:
        outside = sum(
            any(record.point[name] not in parameter for name, parameter in now.items() if name in record.point)
            for record in results.trials()
        )
        points = f"{counted(outside, 'recorded point')} {verb(outside, 'lies', 'lie')} outside"
        say(f"Changed since the last session: {'; '.join(changed)}. {points}, and what came of them still counts.")


def _known_orders(results: Results) -> dict[str, Sequence[str]]:
    """Return label -> the order in which blocks go, as an earlier session of the study found it."""
    groups = results.run().settings.pruner_groups if results.exists() else {}
    return {label: group.order for label, group in groups.items() if group.order}


def _check_baselines(experiment: Experiment, records: Sequence[Record], results: Results) -> None:
    """Check that no baseline has failed that the target compares with: nothing could be best.

    Raises:
        ExperimentError: One has.
    """
    ExperimentError.raise_if(
        f"{results.folder}: the target compares with {record.name}, which must not have failed, but did: "
        f"{str(record.reason).rstrip('.')}; mend that and remove its line from baselines.jsonl, and it runs again."
        for record in records
        if record.status == "failed" and record.baseline in experiment.objective.baselines
    )


def _check_kind(results: Results, *, simulated: bool) -> None:
    """Check that a simulation is resumed as one, and a real study as one.

    Raises:
        ExperimentError: It does not.
    """
    if results.exists() and results.run().simulated != simulated:
        kind, how = ("real", "without") if simulated else ("simulated", "with")
        raise ExperimentError(
            f"{results.folder}: holds a {kind} study, which must be resumed {how} --simulate; choose another folder "
            f"with --results."
        )


def _check_paused(results: Results, promote: int | None) -> None:
    """Check that there is a paused trial if some are to be continued.

    Raises:
        ExperimentError: There is none.
    """
    if promote and not any(map(is_paused, results.trials())):
        raise ExperimentError(
            f"{results.folder}: --promote continues trials that ASHA or the prediction has paused, but there is none; "
            f"resume it without."
        )


def _keys(value: object) -> list[str]:
    """Return the keys of a mapping in their order: it numbers the baselines and shuffles a grid."""
    return list(value) if isinstance(value, Mapping) else []


class _Work(Protocol):
    """What a session needs to know of its trials, real or simulated."""

    @property
    def experiment(self) -> Experiment:
        """What is searched."""

    @property
    def digest(self) -> str:
        """Of everything that decides what a trial reports, but for the search itself."""

    @property
    def simulated(self) -> bool:
        """Whether what a trial reports follows from formulas."""

    @property
    def network_digest(self) -> str:
        """Of the unpruned network alone."""

    @property
    def images(self) -> str:
        """Digest of the images that trials see."""

    @property
    def effects(self) -> Mapping[str, Effect]:
        """Block -> what the network does without it alone, where this session measured that."""

    @property
    def trials(self) -> RunsTrials:
        """What runs them."""

    def reference(self) -> bytes:
        """Return the unpruned network as ONNX."""

    def conclude(self, results: Results, device: BenchmarkClient) -> Verdict:
        """Return what the study comes to."""


@dataclass(frozen=True)
class _Pruning:
    """The real thing."""

    study: Study
    dataset: Dataset

    simulated = False

    @property
    def experiment(self) -> Experiment:
        return self.study.experiment

    @property
    def digest(self) -> str:
        return self.study.digest

    @property
    def network_digest(self) -> str:
        return self.study.network_digest

    @property
    def images(self) -> str:
        return self.study.images

    @property
    def effects(self) -> Mapping[str, Effect]:
        return self.study.effects

    @property
    def trials(self) -> Trials:
        return Trials(self.study)

    def reference(self) -> bytes:
        return self.study.reference()

    def conclude(self, results: Results, device: BenchmarkClient) -> Verdict:
        computes = self.experiment.benchmark.device != "fake"
        return conclusion.conclude(self.study, self.dataset, results, device if computes else None)


@dataclass
class _Session:
    work: _Work
    results: Results
    here: Cluster
    device: BenchmarkClient
    say: Say
    gpus: float

    def run(self, unpruned: Report | None, promote: int | None) -> Verdict:
        """Search and conclude; `unpruned` is the report on the unpruned network unless it is recorded."""
        experiment = self.work.experiment
        self.tensorboard = TensorBoard(self.results.folder / "tensorboard", experiment.parameters)
        self._show_study()
        if unpruned:
            self._keep_unpruned(unpruned)
        records = [*self.results.baselines(), *self.results.trials()]
        since = confirmation.last_time(experiment, records)
        self.standing = Standing(experiment.objective, records, experiment.keep_weights, since)
        self.results.keep_networks(self.standing.kept, among=records)
        self.ended_before = self.standing.ended
        self.running: set[int] = set()
        self.reported: dict[int, float] = {}
        self.board = Board()
        self.began = self.spoke = time.monotonic()
        total = count_trials(experiment)
        self.total = None if total is None else max(total, self.ended_before)
        self.budget = Budget(experiment, records)
        if promote:
            self._promote(records, promote)
        limits = StudyLimits(experiment.search.time_budget_s, experiment.search.max_failed_trials)
        under_way = self._checkpoints()
        self._say_what_is_ahead(under_way)
        exhausted = None
        if self._is_there_more():
            exhausted = tune.run_search(
                self.work.trials,
                self.results,
                self.device,
                self.board,
                at_once=self._at_once(),
                gpus=self.gpus,
                limits=limits,
                under_way=under_way,
                listener=self,
            )
        if limits.reason and not limits.time_is_over:
            raise StudyError(f"{self._recorded()}. The study was ended: {limits.reason}")
        reason = limits.reason or (None if self.results.unfinished() else exhausted)
        self._show_study()
        if reason:
            self.say(f"{self._recorded()}: {reason}.")
        try:
            self._confirm()
            if not self.work.simulated:
                self.say("Reading the test split for the baselines and the best network.")
            verdict = self.work.conclude(self.results, self.device)
        except (BenchmarkError, ExperimentError) as error:  # a device that is gone, an image that could be read before
            raise StudyError(f"{self._recorded()}. {error}") from error
        self._show_study(verdict)
        return verdict

    def on_start(self, trial: int, point: Point, expected: Metrics | None) -> None:
        """Note the point, so that a resumed study runs it again if it does not end, and what is expected of it."""
        self.results.add_started(trial, point, expected)
        self.running.add(trial)

    def on_promoted(self, record: Record) -> None:
        """Note that a paused trial is continued, so that a resumed study goes on with it."""
        has_checkpoint = self.results.checkpoint_file(record.trial).is_file()
        self.results.add_promoted(record.trial, anew=record.epoch > 0 and not has_checkpoint)
        how = "is continued" if has_checkpoint else "begins anew, since it has no checkpoint"
        done = counted(record.epoch, "epoch")
        self.say(f"{record.name}, paused after {done}, {how}: of the paused trials, it promises most.")

    def on_let_go(self, trial: int) -> None:
        """Delete the checkpoint of a paused trial that others promise more than."""
        self.results.checkpoint_file(trial).unlink(missing_ok=True)

    def on_note(self, note: str) -> None:
        """Say what the method of search says of itself."""
        self.say(note)

    def on_wait(self, trial: int, point: Point, other: int) -> None:
        """Note the point as one that began: a resumed study goes on with its number."""
        self.results.add_started(trial, point)
        self.say(console.wait_line(self._name(trial), self._name(other), point, self.work.experiment))

    def on_report(self, record: Record, checkpoint: bytes | None) -> None:
        """Follow a trial on its way."""
        self.reported[record.trial] = time.time()
        if checkpoint:
            self.results.write_checkpoint(record.trial, checkpoint)
        self.tensorboard.add(record)

    def on_step(self) -> None:
        """Say where the study, and each running trial, stands when there was no news for long."""
        if time.monotonic() - self.spoke > NEWS_S:
            self._say_progress()
            for trial, note in sorted(self.board.take().items()):
                if trial in self.running and note.at > self.reported.get(trial, 0.0):
                    self.say(f"  {self._name(trial)}: {note.line.strip()}")

    def on_lost(self, trial: int, reason: str) -> None:
        """Say that a trial will be run again."""
        self.running.discard(trial)
        self.say(f"trial {trial} will be run again: {reason}")

    def on_end(self, record: Record, weights: bytes | None) -> None:
        """Keep what came of a trial."""
        self.running.discard(record.trial)
        self._write(record, weights)
        self.say(console.trial_line(record, self.work.experiment))
        self._say_progress()

    def on_repeat(self, record: Record) -> None:
        """Keep the record, and what a baseline is kept for: as a trial, its network may be the best."""
        assert record.same_as is not None
        original = replace(record, trial=record.same_as, baseline=baseline_name(self.work.experiment, record.same_as))
        weights = self.results.network_file(original)
        if original.baseline and weights.is_file():
            write_atomically(self.results.network_file(record), weights.read_bytes())
        self._keep(record)
        self.say(console.repeat_line(record, original.name, self.work.experiment))

    def _promote(self, records: Sequence[Record], most: int) -> None:
        """Have the paused trials that promise most continued, of those that may still become the best."""
        experiment = self.work.experiment
        continued = self.results.promoted()
        known = [record for record in records if record.trial not in continued]
        taught = earlier.numbered(self.results.earlier())
        outlook = Outlook(experiment.objective, experiment.retraining.epochs, known, taught)
        paused = Paused(outlook, Gate(experiment.objective, known), known).ordered()
        for record in paused[:most]:
            self.on_promoted(record)
        if left_out := sum(map(is_paused, known)) - len(paused):
            self.say(
                f"{counted(left_out, 'paused trial')} cannot become the best any more, whatever training does, and "
                f"{verb(left_out, 'is', 'are')} not continued."
            )

    def _confirm(self) -> None:
        """Measure again which networks may be the best; let the weights go of those that are not."""
        if self.standing.rivals_since is None:
            return
        confirmed = confirmation.confirm(self.standing, self.results, self.device, self.say)
        for record in (*confirmed, *confirmation.repeats(confirmed, self.results.trials())):
            self.results.layers_file(record).unlink(missing_ok=True)  # they are written anew
            self.results.add(record)
            self.tensorboard.add(record)
        records = [*self.results.baselines(), *self.results.trials()]
        self.standing = Standing(self.work.experiment.objective, records, self.work.experiment.keep_weights)
        self.results.keep_networks(self.standing.kept, among=records)

    def _is_there_more(self) -> bool:
        """Tell whether there is anything to run, as far as one can tell before the search."""
        if self.total is None or self.standing.ended < self.total or self.results.unfinished():
            return True
        return self.work.experiment.search.epochs is not None

    def _name(self, trial: int) -> str:
        return Record(trial=trial, baseline=baseline_name(self.work.experiment, trial)).name

    def _show_study(self, verdict: Verdict | None = None) -> None:
        """Bring TensorBoard's card and plots of the study up to date."""
        card = study_card(self.results.folder.resolve().name, self.results.run(), verdict)
        records = [*self.results.baselines(), *self.results.trials()]
        self.tensorboard.add_study(card, records, self.work.experiment.objective)

    def _keep_unpruned(self, report: Report) -> None:
        if report.weights:  # before the record, so that a record's weights are always there
            write_atomically(self.results.network_file(report.record), report.weights)
        self.results.add(report.record)
        self.tensorboard.add(report.record)
        self.say(console.trial_line(report.record, self.work.experiment))

    def _checkpoints(self) -> list[Record]:
        """Return what is known of the trials that an earlier session began and did not end."""
        files = map(self.results.checkpoint_file, self.results.unfinished())
        return [self._record_of(file) for file in files if file.is_file()]

    def _record_of(self, checkpoint: Path) -> Record:
        try:
            return self.work.trials.record_of(checkpoint.read_bytes())
        except Exception as error:  # PyTorch raises this and that for a damaged file
            raise ExperimentError(
                f"{checkpoint}: must be the checkpoint of a trial, but cannot be read as one ({type(error).__name__}); "
                f"delete it, and the trial begins anew."
            ) from error

    def _at_once(self) -> int:
        """Return how many trials run at the same time: what is asked, within the CPUs and GPUs there are."""
        asked = self.work.experiment.search
        room = self.here.trials_at_once(asked.cpus_per_trial, self.gpus)
        return min(asked.max_concurrent_trials or room, room)

    def _say_what_is_ahead(self, under_way: list[Record]) -> None:
        experiment = self.work.experiment
        unfinished = len(self.results.unfinished())
        if self.ended_before + unfinished:
            self.say(
                f"Resumed: {counted(self.ended_before, 'trial')} recorded, to teach the searcher and ASHA as before; "
                f"{unfinished} under way, to be run again, {len(under_way)} of them from their last epoch."
            )
        for problem in self.results.problems():
            self.say(problem)
        baselines = f"(baselines: {len(experiment.baseline_names)}), {self._at_once()} at a time."
        if self.total is None:
            self.say(f"As many trials to run as the epochs afford {baselines}")
        else:
            ahead = self.total - self.ended_before + len(self.results.promoted())
            self.say(f"{ahead} of {counted(self.total, 'trial')} to run {baselines}")
        if self.budget.epochs is not None:
            self.say(
                f"{self.budget.left:,} of {self.budget.epochs:,} epochs of retraining are left: "
                f"{self.budget.of_a_trial} for each trial that comes to its end, what remains then for paused ones."
            )
        if experiment.rule(Asha) or experiment.rule(Predicted):
            self.say(
                f"Of the trials that ASHA or the prediction pauses, the {KEPT} that promise most keep their "
                f"checkpoint: --resume --promote N continues N of them."
            )
        if experiment.rule(Predicted) and not TRAINED & set(experiment.objective.metrics):
            self.say("The prediction pauses nothing: the target speaks of no figure that retraining changes.")
        asha = experiment.rule(Asha)
        if asha and asha.grace_epochs >= experiment.retraining.epochs:
            self.say(
                f"ASHA stops nothing: its grace of {counted(asha.grace_epochs, 'epoch')} lasts to the end of the "
                f"retraining, {counted(experiment.retraining.epochs, 'epoch')}."
            )

    def _write(self, record: Record, weights: bytes | None) -> None:
        """Keep the weights before the record, so that a record's weights are always there."""
        if weights:
            write_atomically(self.results.network_file(record), weights)
        self._keep(record)
        if not is_paused(record):
            self.results.checkpoint_file(record.trial).unlink(missing_ok=True)
        self.tensorboard.add(record)

    def _keep(self, record: Record) -> None:
        self.results.add(record)
        self.budget.know(record)
        dropped = self.standing.add(record)
        self.results.keep_networks([] if record in dropped else [record], among=dropped)

    def _recorded(self) -> str:
        return _recorded(self.standing.ended, self.total, self.results)

    def _say_progress(self) -> None:
        self.spoke = time.monotonic()
        done_now = self.standing.ended - self.ended_before
        left = (self.total or 0) - self.standing.ended
        seconds_left = (self.spoke - self.began) / done_now * left if done_now > 0 and left > 0 else None
        self.say(
            console.progress_line(
                self.standing,
                total=self.total,
                running=len(self.running),
                seconds_left=seconds_left,
                epochs_left=None if self.budget.epochs is None else (self.budget.left, self.budget.epochs),
            )
        )


def _unpruned(work: _Work, results: Results, device: BenchmarkClient) -> Report | None:
    """Evaluate and measure the unpruned network; None if an earlier session did.

    Raises:
        ExperimentError: It is no better than guessing, by the rule for a collapsed trial: there is nothing to prune.
    """
    if any(record.trial == 0 for record in results.baselines()):
        return None
    (report,) = work.trials.begin({}, device, trial=0, baseline="unpruned", checkpoint=None)
    if report.record.collapsed:
        raise ExperimentError(
            f"the unpruned network must do better than guessing, but got: {report.record.collapsed}. "
            f"{_remedy(work.experiment)} Where validation images are too few to tell, raise validation_fraction."
        )
    return report


def _remedy(experiment: Experiment) -> str:
    """Return what to do about an unpruned network that guesses."""
    if experiment.weights:
        data = experiment.data
        return (
            f"Check that the weights are of this network, for these classes in this order, and for RGB images in 0..1 "
            f"normalised by mean {data.mean} and std {data.std} (in the experiment file: et.Data(..., mean=..., "
            f"std=...)); where a new classifier was trained, train longer or at another rate "
            f"(training=et.Retraining(...))."
        )
    recipe = training.training_recipe(experiment)
    return (
        f"It was trained for {counted(recipe.epochs, 'epoch')} from lr {recipe.lr_at(0):g}: train it longer, at "
        f"another rate or on more images (in the experiment file: training=et.Retraining(...)), or give weights."
    )


def _learn(
    results: Results, work: _Work, session: Session, unpruned: Report | None, warm_start: Sequence[Path], say: Say
) -> Sequence[Taught]:
    """Keep what earlier studies teach and say it, or what is not used. Returns which studies taught this one.

    A study that is resumed was taught when it began.
    """
    if not warm_start or unpruned is None:
        return results.run().taught_by if results.exists() else ()
    mine = earlier.Mine(
        experiment=work.experiment,
        planner=work.trials.planner(),
        network=work.network_digest,
        images=work.images,
        device=session.device,
        unpruned=unpruned.record.metrics,
    )
    found = [earlier.lessons(folder, mine) for folder in warm_start]
    for one in found:
        for line in one.lines:
            say(line)
    results.write_earlier([record for one in found for record in one.records])
    return [one.study for one in found if one.records]


def _write_run(results: Results, work: _Work, session: Session, taught_by: Sequence[Taught]) -> None:
    """Write what is run; a resumed study keeps the notes of the sessions before and adds its own."""
    before = results.run() if results.exists() else Run()
    run = Run(
        form=FORM,
        simulated=work.simulated,
        identity={**identity(work.experiment), "weights and images": work.digest},
        seed=work.experiment.search.seed,
        search=as_json(work.experiment)["search"],
        parameters=parameters_as_json(work.experiment),
        effects={**before.effects, **work.effects},
        network=work.network_digest,
        images=work.images,
        taught_by=taught_by,
        sessions=[
            *before.sessions,
            replace(session, started_at=datetime.now(timezone.utc).isoformat(timespec="seconds")),
        ],
    )
    results.write_json("run.json", run)
