"""Two small networks cut out of a large one, and self-knowledge distillation (2026). See docs/recipes.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from stillroom.errors import UsageError
from stillroom.ranges import at_least, not_negative, numeric, positive, share
from stillroom.recipes.base import Claim, Recipe

if TYPE_CHECKING:
    from stillroom.distillation.objectives.self_distillation import SelfDistillation
    from stillroom.models.network import Network
    from stillroom.recipes.contract import Moves, RunSettings
    from stillroom.task import Task

_SEEDS_APART = 1000  # between main and auxiliary network: runs with seeds 0, 1, 2 must not share one
_LABEL_FREE = ("byol", "dino")


@dataclass(frozen=True)
class DualModelSKD(Recipe):
    """Two small networks are cut out of one large one; the main one learns from the other, then from the labels.

    The teacher settings name the large network.

    Attributes:
        initial: where the small networks start: `dual` cuts both out of the large one, each by its own choice; `single`
            cuts the main one and starts the auxiliary one as its copy; `scratch` starts both from random weights.
        layers: which blocks of the large network the main one takes, in every stage.
        elements: which of the large network's channels the main one takes.
        auxiliary_layers: which blocks the auxiliary network takes, with `--initial dual`.
        auxiliary_elements: which channels the auxiliary network takes, with `--initial dual`.
        skd: the loss of self-knowledge distillation: `byol` and `dino` read no labels, `kl_logit` and `bake` do;
            `none` leaves the stage out.
        skd_epochs: passes over the training images in that stage; `epochs` are those of the fine-tuning after it.
        skd_lr: peak learning rate of that stage. Default: that of the fine-tuning.
        momentum: how slowly the auxiliary network follows the main one: its share of itself that it keeps in a step.
        momentum_schedule: `constant`, or `cosine`, which climbs from `momentum` to 1.
        projector_width: hidden width of the projectors of `byol` and `dino`.
        projection: dimensions in which their projections are compared.
        skd_temperature: softens the answers that `kl_logit` and `bake` compare.
        skd_weight: weight of the auxiliary network's answers beside the labels in `kl_logit` and `bake`.
        bake_omega: how much of an image's target in `bake` comes from other images of the batch.
        dino_temperature: of the main network's distribution in `dino`.
        dino_auxiliary_temperature: of the auxiliary network's; lower, so that it is sharper.
        dino_centre_momentum: how slowly the centre of the auxiliary network's projections moves.
        teach: let the large network, trained as `teacher_mode` says, teach the main one during fine-tuning.
        kd_alpha: weight of the labels then; the large network's answers weigh the rest.
        kd_temperature: softens both networks' answers then.
    """

    name: ClassVar[str] = "dual_model_skd"
    title: ClassVar[str] = "A small network cut out of a large one learns from a second cut, then from the labels"
    citation: ClassVar[str] = (
        "Dual-Model Weight Selection and Self-Knowledge Distillation, Computers in Biology and Medicine, 2026 "
        "(reconstructed from the abstract)"
    )
    default_teacher: ClassVar[str] = "vit_small_patch16_224"
    default_teacher_mode: ClassVar[Literal["frozen", "finetune"]] = "finetune"
    default_student: ClassVar[str] = "vit_tiny_patch16_224"

    initial: Literal["dual", "single", "scratch"] = "dual"
    layers: Literal["first", "uniform", "last"] = "first"
    elements: Literal["uniform", "consecutive", "random", "complement"] = "uniform"
    auxiliary_layers: Literal["first", "uniform", "last"] = "first"
    auxiliary_elements: Literal["uniform", "consecutive", "random", "complement"] = "consecutive"
    skd: Literal["byol", "dino", "kl_logit", "bake", "none"] = "byol"
    skd_epochs: int = 40
    skd_lr: float | None = None
    momentum: float = 0.99
    momentum_schedule: Literal["constant", "cosine"] = "constant"
    projector_width: int = 2048
    projection: int = 256
    skd_temperature: float = 4.0
    skd_weight: float = 1.0
    bake_omega: float = 0.5
    dino_temperature: float = 0.1
    dino_auxiliary_temperature: float = 0.04
    dino_centre_momentum: float = 0.9
    teach: bool = False
    kd_alpha: float = 0.5
    kd_temperature: float = 4.0

    def __post_init__(self) -> None:
        for name in ("skd_epochs", "projector_width", "projection"):
            at_least(name, getattr(self, name), 1, 1 << 16)
        for name in ("momentum", "dino_centre_momentum", "kd_alpha"):
            share(name, getattr(self, name))
        for name in ("skd_temperature", "dino_temperature", "dino_auxiliary_temperature", "kd_temperature"):
            positive(name, getattr(self, name))
        if self.skd_lr is not None:
            positive("skd_lr", self.skd_lr)
        not_negative("skd_weight", self.skd_weight)
        numeric("bake_omega", self.bake_omega)
        if not 0 <= self.bake_omega < 1:
            raise UsageError(f"bake_omega must be at least 0 and below 1, got {self.bake_omega}.")
        if self.skd == "none" and self.initial == "dual":
            raise UsageError(
                "Without self-distillation there is no auxiliary network: give --skd none --initial single."
            )
        if self.skd == "none" and self.initial == "scratch" and not self.teach:
            raise UsageError("--initial scratch --skd none is the baseline: give --recipe baseline, or add --teach.")
        same = (self.layers, self.elements) == (self.auxiliary_layers, self.auxiliary_elements)
        if self.initial == "dual" and same and self.elements != "random":
            raise UsageError(
                "Both networks would be cut out alike: give another --auxiliary-elements, or --initial single."
            )

    def adapt(self, task: Task) -> Task:
        if self.skd == "bake" and not task.exclusive:
            raise UsageError(
                "--skd bake needs one class per image; give --skd byol, dino or kl_logit for several labels."
            )
        return super().adapt(task)

    def controls_by_itself(self, settings: RunSettings) -> bool:
        return self.skd != "none"

    def unused(self, settings: RunSettings) -> list[str]:
        scratch, projected = self.initial == "scratch", self.skd in _LABEL_FREE
        switches = dict.fromkeys(("layers", "elements"), scratch)
        switches |= dict.fromkeys(("auxiliary_layers", "auxiliary_elements"), self.initial != "dual")
        switches |= dict.fromkeys(("skd_epochs", "skd_lr", "momentum", "momentum_schedule"), self.skd == "none")
        switches |= dict.fromkeys(("projector_width", "projection"), not projected)
        switches |= dict.fromkeys(("skd_temperature", "skd_weight"), projected or self.skd == "none")
        dino = ("dino_temperature", "dino_auxiliary_temperature", "dino_centre_momentum")
        switches |= dict.fromkeys(dino, self.skd != "dino") | {"bake_omega": self.skd != "bake"}
        switches |= dict.fromkeys(("kd_alpha", "kd_temperature"), not self.teach)
        if self.teach:
            return super().unused(settings) + self._idle(switches)
        read = ("features",) if scratch else ("teacher", "weights", "pretrained", "features")
        return self._idle(switches) + self._idle_teacher(settings, *read)

    def claim(self, settings: RunSettings) -> Claim:
        steps = {
            "weight selection": self.initial != "scratch",
            "self-distillation": self.skd != "none",
            "the large network's teaching": self.teach,
        }
        adds = [step for step, taken in steps.items() if taken]
        large = settings.teacher.teacher
        cut = f"Cut out of {large}" if self.initial != "scratch" else "Self-distilled"
        return Claim(
            " and ".join([", ".join(adds[:-1]), adds[-1]] if len(adds) > 1 else adds),
            "the same student from random weights, on the labels, for as many image passes as all its stages have together",
            f"Distilled from {large}" if self.teach else cut,
        )

    def check(self, settings: RunSettings) -> None:
        super().check(settings)
        if settings.student.starts_pretrained:
            raise UsageError(
                "--initial decides the weights that the student of this recipe starts from: leave out "
                "--student-pretrained and --student-from, or give --recipe baseline."
            )
        if self.initial != "scratch" and not settings.teacher.pretrained:
            raise UsageError("Weights are selected from a pretrained network: leave out --no-pretrained.")
        if self.skd != "none" and settings.views.augment == "none":
            raise UsageError("Self-distillation compares two views of each image: give --augment light or strong.")
        if self.skd != "none" and settings.views.mix != "none":
            raise UsageError(
                "Self-distillation compares two views of one image, and --mix shows two images: give --mix none."
            )
        if settings.training.unlabelled and not (self.skd in _LABEL_FREE or self.teach):
            raise UsageError("Images without labels serve --skd byol, --skd dino or --teach: leave out --unlabelled.")

    def beyond_answers(self, settings: RunSettings) -> str:
        return "the large network itself"

    def teacher_names(self, settings: RunSettings) -> tuple[str, ...]:
        return super().teacher_names(settings) if self.initial != "scratch" or self.teach else ()

    def has_start(self, settings: RunSettings) -> bool:
        return self.initial != "scratch"

    def start(self, bench: Moves) -> Network:
        return self.networks(bench)[0]

    def run(self, bench: Moves) -> Network:
        from stillroom.distillation.objectives.hybrid import HybridLoss
        from stillroom.distillation.objectives.labels import LabelLoss

        main, auxiliary = self.networks(bench)
        if self.skd != "none":
            fresh = bench.student().classifier().state_dict()
            objective = self._objective(auxiliary, bench.seed)
            rows = bench.training_rows if objective.label_free else None
            main = bench.fit("skd", main, objective, epochs=self.skd_epochs, rows=rows, lr=self.skd_lr)
            main.classifier().load_state_dict(fresh)
        if not self.teach:
            return bench.fit("student", main, LabelLoss())
        return bench.fit("student", main, HybridLoss(self.kd_alpha, self.kd_temperature), teachers=[bench.teacher()])

    def control(self, bench: Moves) -> Network:
        """The same student from random weights, on the labels, for as many image passes as all its stages have together.

        An epoch of self-distillation passes two views of every image that it sees, those without labels too.
        """
        from stillroom.distillation.objectives.labels import LabelLoss

        return bench.fit("control", bench.student(), LabelLoss(), epochs=bench.control_epochs())

    def networks(self, bench: Moves) -> tuple[Network, Network]:
        """The main and the auxiliary network as they start; what was cut out goes into the run's manifest.

        Raises:
            UsageError: the student cannot be cut out of the large network.
        """
        from stillroom.distillation.cutting import cut_out
        from stillroom.distillation.objectives.momentum import frozen_copy

        seed, main = bench.seed, bench.student()
        if self.initial == "scratch":
            return main, bench.student(seed=seed + _SEEDS_APART)
        large = bench.pretrained()
        taken = {"main": cut_out(main, large, layers=self.layers, elements=self.elements, seed=seed)}
        if self.initial == "single":
            auxiliary = frozen_copy(main)
        else:
            auxiliary, layers, elements = bench.student(), self.auxiliary_layers, self.auxiliary_elements
            taken["auxiliary"] = cut_out(auxiliary, large, layers=layers, elements=elements, seed=seed + _SEEDS_APART)
        bench.run.note(weight_selection=taken)
        return main, auxiliary

    def _objective(self, auxiliary: Network, seed: int) -> SelfDistillation:
        from stillroom.distillation.objectives.byol import ByolLoss
        from stillroom.distillation.objectives.dino import DinoLoss
        from stillroom.distillation.objectives.self_logits import BatchEnsembling, LogitSelfDistillation

        follower = (auxiliary, self.momentum, self.momentum_schedule)
        width, projection = self.projector_width, self.projection
        temperature, weight = self.skd_temperature, self.skd_weight
        if self.skd == "byol":
            return ByolLoss(*follower, width=width, projection=projection, seed=seed)
        if self.skd == "dino":
            return DinoLoss(
                *follower,
                width=width,
                projection=projection,
                seed=seed,
                temperature=self.dino_temperature,
                auxiliary_temperature=self.dino_auxiliary_temperature,
                centre_momentum=self.dino_centre_momentum,
            )
        if self.skd == "kl_logit":
            return LogitSelfDistillation(*follower, temperature=temperature, weight=weight)
        return BatchEnsembling(*follower, temperature=temperature, weight=weight, omega=self.bake_omega)
