"""What is trained, and how: the one place where the numbers of the main job live."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..data import Planes, transforms
from ..data.axes import MICROBOONE
from ..data.detector import DETECTOR_SIZE
from ..data.event import CLASSES
from ..engine.model import Model
from ..kernels.types import Shape
from ..nn import networks
from ..simulate.samples import Sample
from ..train import optim
from ..watch import MINUTES

#: Learning rate after the warm-up, by optimizer.
LEARNING_RATES = {"adam": 0.0005, "sgd": 0.01, "lars": 1.0}
SCHEDULES = ("cosine", "constant")
#: Training and validation events that are simulated where no file is named; of a file, where no
#: numbers are given, one event in so many validates.
SIMULATED_TRAINING, SIMULATED_VALIDATION = 3500, 500
ONE_VALIDATES_IN = 6
#: Side in pixels of the images that the numbers below are meant for: MicroBooNE's, one wire a row.
FULL_SIZE = DETECTOR_SIZE
#: Parameters of the network at FULL_SIZE, with one plane and five classes.
FULL_SIZE_PARAMETERS = 1_245_705
#: At FULL_SIZE pixels are multiplied by INPUT_SCALE, after values above INPUT_KNEE (ADC) have been
#: compressed. Pixels of smaller images are sums of these: ``input_scale``, ``input_knee``.
INPUT_SCALE, INPUT_KNEE = 0.1, 100.0
#: The Dense layer whose weights are the same at all positions during the first epochs.
SHARED_LAYER = "fc1"
SHARED_FRACTION = 0.75  # of the epochs
COSINE_FALL = 50  # the learning rate of the first step / that of the last
RAMP_STEPS = 100  # over which the rate of a large batch rises (events_of_rate)
SHIFT = 20  # augmented events are shifted by up to the side / SHIFT
GAIN_JITTER = 0.05  # relative spread of an augmented event's gain


def input_scale(size: int) -> float:
    """Return what pixels of an image of ``size`` x ``size`` are multiplied by."""
    return INPUT_SCALE * size / FULL_SIZE


def input_knee(size: int) -> float:
    """Return the ADC above which pixels of an image of ``size`` x ``size`` are compressed."""
    return INPUT_KNEE * FULL_SIZE / size


@dataclass(frozen=True)
class Recipe:
    """The settings that make a trained model what it is; None stands for the value that the
    properties below derive.

    size: side of the images in pixels. planes, classes: of the events, which say them; views:
    whether planes are images of their own behind one trunk, see networks.microboone; fixed_start:
    whether all their particles start in one place, so that they may not be moved; mirror_x: the x
    in cm about which they may then be mirrored, if any. batch_size: events per step and rank,
    ``accumulate`` such batches make one step. learning_rate: of the first steps after the
    ``warmup`` (in steps). events_of_rate: the events per step, of all ranks, that the learning rate
    is meant for; it then grows with their number. shared_epochs: epochs in which the first Dense
    layer has the same weights at all positions of the image. keep_rest: weights move in coordinates
    in which they do not move the outputs of an empty image (train/rest_coordinates.py). clip:
    longest gradient, see Optimizer.clip. average: epochs over which weights are averaged, see
    Optimizer.average. scale, knee: of the pixels. augment: mirror and shift
    training events (of a fixed start as far as may be; ``mirror_start``: mirror these about it) and
    jitter their gain, anew in every epoch.
    balance: share events and make steps so that ranks have equal work (data.balance).
    """

    size: int = FULL_SIZE
    planes: int = 1
    views: bool = False
    classes: int = len(CLASSES)
    fixed_start: bool = False
    mirror_x: float | None = None
    epochs: int = 4
    batch_size: int = 4
    accumulate: int = 1
    optimizer: str = "adam"
    learning_rate: float | None = None
    momentum: float = 0.9
    schedule: str = "cosine"
    warmup: int = 50
    events_of_rate: int | None = None
    shared_epochs: int | None = None
    keep_rest: bool = True
    clip: float | None = None
    average: float | None = None
    scale: float | None = None
    knee: float | None = None
    augment: bool = True
    mirror_start: bool = True
    balance: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.optimizer not in LEARNING_RATES:
            raise ValueError(
                f"optimizer must be one of {', '.join(LEARNING_RATES)}, got {self.optimizer!r}"
            )
        if self.schedule not in SCHEDULES:
            raise ValueError(
                f"schedule must be one of {', '.join(SCHEDULES)}, got {self.schedule!r}"
            )
        for name in ("size", "planes", "classes", "epochs", "batch_size", "accumulate"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def rate(self) -> float:
        """The learning rate of the first steps after the warm-up, for one step's usual batch."""
        if self.learning_rate is None:
            return LEARNING_RATES[self.optimizer]
        return self.learning_rate

    @property
    def input_scale(self) -> float:
        """What pixels are multiplied by."""
        return input_scale(self.size) if self.scale is None else self.scale

    @property
    def input_knee(self) -> float:
        """The ADC above which pixels are compressed."""
        return input_knee(self.size) if self.knee is None else self.knee

    @property
    def epochs_with_shared_weights(self) -> int:
        """Epochs in which SHARED_LAYER has the same weights at all positions."""
        if self.shared_epochs is None:
            return round(SHARED_FRACTION * self.epochs)
        return self.shared_epochs

    @property
    def input_shapes(self) -> list[Shape]:
        """(H, W, C) of each input of the model."""
        planes, inputs = (1, self.planes) if self.views else (self.planes, 1)
        return [(self.size, self.size, planes)] * inputs

    def record(self) -> dict[str, Any]:
        """Return all settings by name, with the values that None stands for."""
        return asdict(self) | {
            "learning_rate": self.rate,
            "shared_epochs": self.epochs_with_shared_weights,
            "scale": self.input_scale,
            "knee": self.input_knee,
        }

    def events_per_step(self, ranks: int = 1) -> int:
        """Return the events of all ranks that make one update."""
        return self.batch_size * self.accumulate * ranks

    def steps_per_epoch(self, events: int, ranks: int = 1) -> int:
        """Return the steps of an epoch of so many training events: of the rank with the most."""
        events_of_rank = -(-events // ranks)
        return -(-events_of_rank // self.events_per_step())

    def build_optimizer(self, steps_per_epoch: int, ranks: int = 1) -> optim.Optimizer:
        """Return the optimizer with its schedule, for ``epochs`` of so many steps."""
        steps = steps_per_epoch * self.epochs
        schedule: Any = self.rate
        if self.schedule == "cosine":
            schedule = optim.cosine(self.rate, steps, self.rate / COSINE_FALL)
        factor = 1.0
        if self.events_of_rate:
            factor = self.events_per_step(ranks) / self.events_of_rate
        schedule = optim.linear_scaling(schedule, factor, RAMP_STEPS)
        schedule = optim.warmup(schedule, max(self.warmup, 1))
        made: optim.Optimizer
        if self.optimizer == "adam":
            made = optim.Adam(schedule)
        elif self.optimizer == "sgd":
            made = optim.SGD(schedule, self.momentum)
        else:
            made = optim.LARS(schedule, self.momentum)
        made.share(SHARED_LAYER, self.epochs_with_shared_weights * steps // self.epochs)
        if self.keep_rest:
            made.keep_rest()
        if self.average is not None:
            made.average(self.average * steps_per_epoch)
        return made if self.clip is None else made.clip(self.clip)

    def build_model(self, optimizer: optim.Optimizer | None = None, **options: Any) -> Model:
        """Return the talk's network with weights drawn from ``seed``; ``options`` (device,
        precision, ...) go to Model.
        """
        return networks.microboone(
            self.size,
            self.planes,
            self.classes,
            self.views,
            seed=self.seed,
            input_scale=self.input_scale,
            input_knee=self.input_knee,
            optimizer=optimizer,
            **options,
        )

    def for_training(self, store: Any) -> Any:
        """Return the data set ``store`` as the model takes it, with its events mirrored, shifted by
        up to a twentieth of the image, and changed in gain by 5 %, anew in every epoch; not changed
        without ``augment``. Events of a fixed start are not shifted, and mirrored at most about it.
        """
        if self.augment:
            shift, moves = self.size // SHIFT, []
            if not self.fixed_start:
                moves = [
                    transforms.MirrorWire(),
                    transforms.MirrorTime(),
                    transforms.Shift(shift, shift),
                ]
            elif self.mirror_x is not None:
                moves = [transforms.MirrorTime(about=self._column(self.mirror_x))]
            changes = [*moves, transforms.GainJitter(GAIN_JITTER)]
            store = transforms.Augmented(store, transforms.Compose(changes), self.seed)
        return self.for_validation(store)

    def _column(self, x: float) -> float:
        """Return the edge or middle of a pixel that is nearest to x in cm along the drift."""
        drift = MICROBOONE[1].summed(FULL_SIZE / self.size)
        return round(2 * (x - drift.origin) / drift.cm) / 2

    def for_validation(self, store: Any) -> Any:
        """Return the data set ``store`` as the model takes it: plane by plane with ``views``."""
        return Planes(store, self.planes) if self.views else store


@dataclass(frozen=True)
class TrainOptions:
    """Where a job's events come from, how it runs, and where its results go: what is not recipe.

    events: a file in any format that minicnn reads; None: simulate, and keep the file in ``cache``.
    sample: what is simulated, None: DEFAULT_SAMPLE; a file of another one is an error.
    train, validation: numbers of events; None: those of recipe.py. weights: a model to start from.
    resume: go on with the step that is saved in ``out``, as it is every ``save_every`` minutes, at
    every epoch's end, and after SIGINT, SIGTERM or SIGUSR1. stall_limit: minutes without progress
    after which all ranks end (watch.py). sync, allow, sync_every, bucket (in kB), transport: see
    parallel.make_sync. threads: per rank; None: the cores of the node / its ranks. store: "sparse"
    or "dense". codec: NAME or NAME:LEVEL. ledger: say where every step's time goes. bad_events:
    "stop" at an event that cannot be read or has no class, or "skip" it (bad_events.py).
    tensorboard: write the figures for TensorBoard, too.
    """

    events: Path | None = None
    sample: Sample | None = None
    cache: Path = Path("data")
    train: int | None = None
    validation: int | None = None
    out: Path = Path("runs/microboone")
    weights: Path | None = None
    resume: bool = False
    save_every: float = 5.0
    stall_limit: float = MINUTES
    sync: str = "gradients"
    allow: tuple[str, ...] = ()
    sync_every: int = 1
    bucket: int | None = None
    transport: str = "mpi"
    device: str = "auto"
    precision: str = "float32"
    threads: int | None = None
    store: str = "sparse"
    shared_store: bool = False
    codec: str = "zstd"
    ledger: bool = False
    bad_events: str = "stop"
    tensorboard: bool = False
