"""The parts of a run's settings, one dataclass each. The command line's flags and the reference pages are derived from them.

Light on purpose: importing this module imports neither torch nor pandas.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stillroom.errors import UsageError
from stillroom.ranges import LARGEST_SIDE, MOST_OFTEN, at_least, between, not_negative, positive, positive_share
from stillroom.settings.network_names import listing, parse
from stillroom.settings.windows import parse_window
from stillroom.settings.wishes import check_wishes, group_wishes

AnswersKind = Literal["probabilities", "logits", "votes", "embedding"]
ReaderWeights = Literal["equal", "confidence"]


@dataclass(frozen=True)
class DataSettings:
    """What to read and how to turn it into arrays.

    Attributes:
        size: side of the square images in pixels, where the student or a teacher asks for no other.
        fit: how a non-square image becomes square: `pad` keeps its shape and adds black borders, `resize` stretches it.
        resolution: side of the MedMNIST file to read (28, 64, 128 or 224). Default: the one that equals `size`, else
            the next larger one. All networks see this file: give a larger one where a teacher's input is larger.
        data_dir: folder of MedMNIST .npz files. Default: $STILLROOM_DATA/medmnist, then ~/.medmnist.
        task: what the labels mean; `auto` reads it off the source. `ordinal` takes the classes as ordered grades.
        classes: class names in the order wanted, e.g. grades from mild to severe; of two, the second is the positive one.
        positive: of two classes, the one that counts as positive, like `--classes` with this one last.
        drop_class: classes whose images are left out. With several labels per image the label is taken off, and only images
            that have no other are left out.
        merge: classes to join, each as `old=new`: images of class `old` count as `new`, which may be new or there already.
        path_column: column of a table that holds the image path, relative to the table's folder or absolute. Where it
            is missing, one of a like name whose files exist is used, such as `filename`.
        label_column: column that holds the label; several labels are joined by `;` or `|`. Where it is missing, one of a
            like name is used, such as `diagnosis`.
        patient_column: column that holds the patient (group) id, used where the table has it. A column of a like name, such
            as `subject_id`, is used where it has three values or more, or pointed at; `none` uses none.
        split_column: column that holds train, val or test, used where the table has it. A column of a like name, such as
            `subset`, is used, one of any name that holds such words is pointed at; `none` uses none.
        mask_column: column that holds the mask's path, used where the table has it, or one of a like name whose files
            exist; `none` uses none.
        groups: columns of a table by which subgroups of the test images are judged, such as `site sex age`. Ages are cut at
            18, 40, 65 and 80, other numbers into thirds of the training images, or where you say: `age=50,70`.
        val_fraction: share of the training images put aside for validation where the source has no validation split.
        test_fraction: share of all images put aside for the test where the source has no test split.
        group_duplicates: keep near-identical images on one side when Stillroom makes the split.
        window: which values of grey DICOM images go from black to white: `CENTER,WIDTH` (`--window=-600,1500`), or of CT
            `lung`, `mediastinum`, `bone`, `brain`, `stroke`, `subdural`, `soft-tissue`, `liver`. Default: what files say.
        drop_leaks: leave out training and validation images that the audit finds again in the test split, and training
            images that it finds again in validation. Patients on two sides are not touched.
    """

    size: int = 64
    fit: Literal["pad", "resize"] = "pad"
    resolution: Literal[28, 64, 128, 224] | None = None
    data_dir: Path | None = None
    task: Literal["auto", "multiclass", "ordinal", "multilabel"] = "auto"
    classes: tuple[str, ...] = ()
    positive: str = ""
    drop_class: tuple[str, ...] = ()
    merge: tuple[str, ...] = ()
    path_column: str = "path"
    label_column: str = "label"
    patient_column: str = "patient"
    split_column: str = "split"
    mask_column: str = "mask"
    groups: tuple[str, ...] = ()
    val_fraction: float = 0.15
    test_fraction: float = 0.2
    group_duplicates: bool = True
    drop_leaks: bool = False
    window: str = ""

    def __post_init__(self) -> None:
        at_least("size", self.size, 16, LARGEST_SIDE)
        between("val_fraction", self.val_fraction, 0.9)
        between("test_fraction", self.test_fraction, 0.9)
        parse_window(self.window)
        check_wishes(self.merge, self.drop_class, self.classes, self.positive)
        group_wishes(self.groups)

    @property
    def merges(self) -> dict[str, str]:
        """Class to what its images count as."""
        return {old: new for old, _, new in (text.partition("=") for text in self.merge)}


@dataclass(frozen=True)
class ViewSettings:
    """How training images are varied. Every view is a pure function of seed, image and view number, so a teacher's
    answer to it can be stored and replayed exactly.

    Attributes:
        augment: `none`; `light` shifts, scales, rotates a little and varies brightness and contrast; `strong` does more
            of it and hides a patch.
        views: number of different views per image; epoch e trains on view e modulo this number, and the teacher is
            asked once for each. 0 makes a new view every epoch, for which the teacher is asked online: slow.
        flips: mirror images left to right at random. Off, because it destroys laterality (heart, eye, ear side).
        crop: smallest share of an image's area that a random crop keeps, its proportions kept; 1 crops nothing.
        mix: mix every training image with another: `mixup` blends them, `cutmix` pastes a square of one into the other,
            `both` takes one or the other at random. Labels count by their share of the picture; the teacher is asked
            about the very same mixture.
    """

    augment: Literal["none", "light", "strong"] = "light"
    views: int = 8
    flips: bool = False
    crop: float = 1.0
    mix: Literal["none", "mixup", "cutmix", "both"] = "none"

    def __post_init__(self) -> None:
        at_least("views", self.views, 0, MOST_OFTEN)
        positive_share("crop", self.crop)

    @property
    def still(self) -> bool:
        """Whether training images are shown as they are."""
        return self.augment == "none" and self.crop == 1 and self.mix == "none" and not self.flips


@dataclass(frozen=True)
class TrainingSettings:
    """How a network is fitted.

    Attributes:
        epochs: passes over all images that teach: those with labels and, in recipes with a teacher, the others too.
        steps: optimiser steps instead of epochs: as many whole passes as come nearest, at least one.
        batch_size: images per step.
        lr: peak learning rate of what starts from random weights.
        pretrained_lr: peak learning rate of weights that are pretrained, as a share of `lr`.
        layer_decay: factor on the rate of pretrained weights for every layer further from the head. Default: 0.75 for
            transformers, 1 for others.
        optimizer: `adamw`, `adam` or `sgd` (momentum 0.9, Nesterov).
        schedule: `cosine` with a short warm-up, `step` (x0.1 at 50 % and 75 %, as MedMNIST's script does) or `constant`.
        weight_decay: decoupled for adamw, L2 otherwise; never on biases and norms.
        class_weights: weigh the labels' loss against class imbalance.
        patience: stop after this many epochs in a row whose validation likelihood is clearly worse than the best one's; 0
            never stops early.
        label_fraction: share of the training images whose labels are used, every class kept. A smaller share's images are
            among a larger one's.
        teach_rest: let the teacher also teach the training images whose labels are not used, in recipes with a teacher.
        unlabelled: folder of more images, without labels, from which the student learns the teacher's answers. What the
            validation or test images show again is left out.
        precision: `32`, or `bf16` for bfloat16 autocast.
    """

    epochs: int = 30
    steps: int | None = None
    batch_size: int = 64
    lr: float = 1e-3
    pretrained_lr: float = 0.5
    layer_decay: float | None = None
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    weight_decay: float = 0.05
    class_weights: bool = False
    patience: int = 0
    label_fraction: float = 1.0
    teach_rest: bool = True
    unlabelled: Path | None = None
    precision: Literal["32", "bf16"] = "32"

    def epochs_of(self, steps_in_an_epoch: int) -> int:
        """How many epochs to train: `epochs`, or what comes nearest to `steps`."""
        return self.epochs if self.steps is None else max(1, round(self.steps / steps_in_an_epoch))

    def __post_init__(self) -> None:
        at_least("epochs", self.epochs, 1)
        if self.steps is not None:
            at_least("steps", self.steps, 1)
        at_least("batch_size", self.batch_size, 2)
        at_least("patience", self.patience, 0)
        positive_share("label_fraction", self.label_fraction)
        positive("lr", self.lr)
        for name, value in (("pretrained_lr", self.pretrained_lr), ("layer_decay", self.layer_decay)):
            if value is not None:
                positive_share(name, value)
        not_negative("weight_decay", self.weight_decay)


@dataclass(frozen=True)
class TeacherSettings:
    """Who teaches.

    Attributes:
        teacher: a network by name: one of timm's or ours (`stillroom models`), `hf-hub:OWNER/NAME[@revision]`, a folder with
            config.json and weights (`./uni`), `hf:OWNER/NAME` of transformers, `open_clip:OWNER/NAME`, an ONNX file, or
            `package.module:function`, which makes one. What it does not say itself follows as `?key=value&key=value`: a
            keyword of its constructor, or `outputs`, `classes`, `mean`, `std`, `size`. Default: the recipe's.
        teacher_mode: `frozen` fits a linear head on the backbone's cached features; `finetune` trains all of it. Default:
            the recipe's.
        teacher_size: side in pixels of the images that the teacher sees, read from the source at that side. Default: the
            network's own, where it is fixed, else `size`.
        features: what the linear head sees of a transformer: its class token, the mean of its patches, or both.
            A convolutional network has one pooled vector and ignores this. Default: what its publisher takes, of a teacher of
            the medical catalogue; else the class token.
        head_solver: `lbfgs` finds the best linear head, its L2 penalty chosen by likelihood; `adam` trains it as
            the MedAlmighty paper does (lr 1e-3).
        teacher_epochs: epochs of fine-tuning, or of the adam head. Default: as many as the student's.
        teacher_lr: peak learning rate of fine-tuning. Default: the student's.
        weights: a file or a folder of pretrained weights (.safetensors or weights-only .pth), named like the model.
            Default: timm's hub.
        pretrained: whether the teacher starts from pretrained weights. `--no-pretrained` starts from random ones.
        teacher_outputs: what a teacher of your own answers: `features`, for which a head is made, or `logits` or
            `probabilities` by class, which teach as they are. Default: `features`, or what an ONNX file says of itself.
        teacher_classes: the classes that such a teacher answers for, in its order. Default: what it says, else the run's.
        teacher_mean: what it subtracts from pixels in [0, 1], one number or three. Default: its own.
        teacher_std: what it divides them by, one number or three. Default: its own.
        teacher_answers: a table of answers (.csv, .tsv, .parquet or .npz) that teaches in place of a network: of a model that
            cannot be run here, or votes of several readers. See "Let a table of answers teach" in docs/how-to.md.
        answers_kind: what the table's numbers are. Default: read off the values, where these leave no doubt.
        answers_of: whose columns are read, where the table has some for several networks as `NAME:CLASS`, such as a run's
            predictions.parquet: `teacher`, `student`.
        reader_weights: how much each of several readers counts: `equal`, or by `confidence`: the more the better they knew
            the training labels.
        feature_layers: how many of a transformer's last blocks the linear head sees, side by side; the features are those
            of each, after the final norm. Linear probes of DINOv2 see four.
        teacher_precision: what a frozen teacher's weights are held in and it is asked in: `bf16` takes half the memory.
        teacher_lora: fine-tune the teacher by low-rank adapters (LoRA) of this rank beside its attention, 8 for example,
            where memory is short; its own weights stand still. Needs `pip install 'stillroom[peft]'`. Default: train all.
    """

    teacher: str = ""
    teacher_mode: Literal["frozen", "finetune"] | None = None
    teacher_size: int | None = None
    features: Literal["cls", "mean", "both"] | None = None
    head_solver: Literal["lbfgs", "adam"] = "lbfgs"
    teacher_epochs: int | None = None
    teacher_lr: float | None = None
    weights: Path | None = None
    pretrained: bool = True
    teacher_outputs: Literal["features", "logits", "probabilities"] | None = None
    teacher_classes: tuple[str, ...] = ()
    teacher_mean: tuple[float, ...] = ()
    teacher_std: tuple[float, ...] = ()
    teacher_answers: Path | None = None
    answers_kind: AnswersKind | None = None
    answers_of: str = ""
    reader_weights: ReaderWeights = "equal"
    feature_layers: int = 1
    teacher_precision: Literal["32", "bf16"] = "32"
    teacher_lora: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "teacher", str(self.teacher))  # a FromModule is a teacher too
        if self.teacher_answers and self.teacher:
            raise UsageError("--teacher and --teacher-answers both say who teaches: give one.")
        if self.teacher:
            parse(self.teacher)
        if self.teacher_epochs is not None:
            at_least("teacher_epochs", self.teacher_epochs, 1)
        if self.teacher_lr is not None:
            positive("teacher_lr", self.teacher_lr)
        if self.teacher_size is not None:
            at_least("teacher_size", self.teacher_size, 16, LARGEST_SIDE)
        at_least("feature_layers", self.feature_layers, 1, MOST_OFTEN)
        if self.teacher_lora is not None:
            at_least("teacher_lora", self.teacher_lora, 1)
        if self.mode_told and self.teacher_mode not in (None, self.mode_told):
            flag = "--teacher-lora" if self.teacher_lora else "--teacher-precision bf16"
            raise UsageError(f"{flag} is for --teacher-mode {self.mode_told}: leave it out, or give that mode.")
        for name in ("teacher_mean", "teacher_std"):
            value = getattr(self, name)
            if not isinstance(value, tuple | list) or len(value) not in (0, 1, 3):
                raise UsageError(f"{name} is one number or three, got {value!r}.")

    @property
    def mode_told(self) -> Literal["frozen", "finetune"] | None:
        """The mode that another setting is for; None where either will do.

        Raises:
            UsageError: two settings are for two modes.
        """
        if self.teacher_lora and self.teacher_precision == "bf16":
            raise UsageError("--teacher-lora fine-tunes in float32: leave out --teacher-precision bf16.")
        return "finetune" if self.teacher_lora else "frozen" if self.teacher_precision == "bf16" else None

    @property
    def options(self) -> dict[str, str]:
        """What these settings say of the teacher's network, as it stands in a name."""
        told = {
            "outputs": self.teacher_outputs or "",
            "classes": listing(self.teacher_classes),
            "mean": ",".join(repr(float(value)) for value in self.teacher_mean),
            "std": ",".join(repr(float(value)) for value in self.teacher_std),
        }
        return {key: value for key, value in told.items() if value}


@dataclass(frozen=True)
class StudentSettings:
    """What is taught.

    Attributes:
        student: a network by name, as for the teacher; see `stillroom models`. Default: the recipe's.
        student_size: side in pixels of the images that the student sees, read from the source at that side. Default:
            `size`.
        student_pretrained: start the student from pretrained weights, not random ones.
        student_from: a larger pretrained network of the same family, out of which the student is cut by weight selection
            before it is trained.
        student_weights: a file or a folder of the student's pretrained weights. Default: `weights`, else timm's hub.
    """

    student: str = ""
    student_size: int | None = None
    student_pretrained: bool = False
    student_from: str = ""
    student_weights: Path | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "student", str(self.student))  # a FromFactory is a student too
        if self.student:
            parse(self.student)
        if self.student_size is not None:
            at_least("student_size", self.student_size, 16, LARGEST_SIDE)
        if self.student_from and self.student_pretrained:
            raise UsageError("--student-pretrained and --student-from both say where the student starts: give one.")

    @property
    def starts_pretrained(self) -> bool:
        """Whether it starts from pretrained weights, its own or those it is cut out of."""
        return self.student_pretrained or bool(self.student_from)
