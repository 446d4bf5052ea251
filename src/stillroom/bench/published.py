"""The papers' figures for the twelve MedMNIST sets, with what must be known to read them. None of them is ours."""

from __future__ import annotations

from dataclasses import dataclass

MEDALMIGHTY = "MedAlmighty (2025), Table 2"
MEDMNIST = "MedMNIST v2 (2023)"

_TABLE_2_NAMES = ("ResNet-50", "SENet-50", "SKNet-50", "DINOv2-S", "DINOv2-B", "DINOv2-L", "CA-MKD", "MedAlmighty")
# AUC/ACC, means of three runs; last the standard deviations of MedAlmighty, the only ones kept here.
_TABLE_2 = """
pathmnist      .978/.854 .982/.863 .986/.844 .986/.857 .981/.870 .979/.862 .966/.832 .955/.871 .03/.02
chestmnist     .768/.947 .774/.948 .768/.947 .666/.946 .654/.943 .649/.962 .762/.947 .643/.927 .05/.02
dermamnist     .901/.721 .989/.731 .986/.719 .903/.727 .905/.725 .901/.732 .898/.700 .905/.735 .007/.005
octmnist       .948/.776 .949/.780 .942/.770 .924/.659 .929/.629 .933/.663 .933/.766 .951/.781 .008/.003
pneumoniamnist .962/.884 .949/.816 .958/.839 .963/.893 .962/.890 .963/.872 .962/.882 .946/.915 .003/.003
retinamnist    .713/.500 .729/.524 .728/.520 .738/.514 .735/.489 .730/.450 .701/.489 .645/.510 .1/.025
breastmnist    .883/.843 .876/.827 .859/.818 .871/.853 .893/.827 .853/.842 .877/.830 .837/.833 .03/.01
bloodmnist     .994/.950 .995/.960 .993/.956 .992/.926 .993/.930 .994/.928 .991/.949 .995/.960 .002/.004
tissuemnist    .931/.680 .926/.687 .925/.687 .902/.610 .916/.647 .911/.632 .928/.662 .932/.693 .002/.005
organamnist    .997/.944 .997/.941 .997/.935 .992/.880 .989/.889 .991/.892 .997/.931 .998/.952 .001/.002
organcmnist    .991/.910 .992/.905 .991/.907 .982/.863 .981/.851 .978/.842 .991/.908 .994/.915 .001/.002
organsmnist    .963/.766 .963/.765 .954/.778 .961/.754 .962/.750 .960/.748 .954/.744 .975/.782 .001/.001
"""

_MEDMNIST_NAMES = (
    "ResNet-18 (28)", "ResNet-18 (224)", "ResNet-50 (28)", "ResNet-50 (224)",
    "auto-sklearn", "AutoKeras", "Google AutoML Vision",
)  # fmt: skip
# AUC/ACC.
_MEDMNIST = """
pathmnist      .983/.907 .989/.909 .990/.911 .989/.892 .934/.716 .959/.834 .944/.728
chestmnist     .768/.947 .773/.947 .769/.947 .773/.948 .649/.779 .742/.937 .778/.948
dermamnist     .917/.735 .920/.754 .913/.735 .912/.731 .902/.719 .915/.749 .914/.768
octmnist       .943/.743 .958/.763 .952/.762 .958/.776 .887/.601 .955/.763 .963/.771
pneumoniamnist .944/.854 .956/.864 .948/.854 .962/.884 .942/.855 .947/.878 .991/.946
retinamnist    .717/.524 .710/.493 .726/.528 .716/.511 .690/.515 .719/.503 .750/.531
breastmnist    .901/.863 .891/.833 .857/.812 .866/.842 .836/.803 .871/.831 .919/.861
bloodmnist     .998/.958 .998/.963 .997/.956 .997/.950 .984/.878 .998/.961 .998/.966
tissuemnist    .930/.676 .933/.681 .931/.680 .932/.680 .828/.532 .941/.703 .924/.673
organamnist    .997/.935 .998/.951 .997/.935 .998/.947 .963/.762 .994/.905 .990/.886
organcmnist    .992/.900 .994/.920 .992/.905 .993/.911 .976/.829 .990/.879 .988/.877
organsmnist    .972/.782 .974/.778 .972/.770 .975/.785 .945/.672 .974/.813 .964/.749
"""

_TABLE_2_NOTES = (
    "MedAlmighty's Table 2 gives means of three runs. Its Table 4 gives other figures for the same settings on eight of the "
    "twelve sets, mostly higher; those look like a best run and are not shown.",
    "In MedAlmighty's paper the convolutional rows were trained with binary cross-entropy on binary and multi-label sets and "
    "with batches of 128, the DINOv2 and MedAlmighty rows with cross-entropy and batches of 32: the rows differ in more "
    "than the method.",
    "MedAlmighty says that 28 px images were resized to 224. Its figures agree with images enlarged from 28 px, not with "
    "MedMNIST's larger versions.",
    "MedAlmighty's text says that it consistently outperforms. Against its own ResNet-50 row it is higher in AUC on 7 of "
    "the 12 sets and in accuracy on 10.",
)
_CA_MKD_NOTE = "Who taught CA-MKD is not clear: three ResNet32x4 cannot have the 138 M parameters that the paper gives."
_MEDMNIST_NOTES = (
    "MedMNIST's figures: 28 or 224 is the side of the network's input; the images are the 28 px ones in both cases. "
    "Networks start from random weights; the epoch is the one with the best validation AUC.",
)
_RECALLED = "These MedMNIST v2 figures were noted from memory: check them against the paper before quoting them."
_COPIED = "These MedMNIST v2 figures were taken from tables that copy the paper's, not from the paper."
_CHESTMNIST = (
    "ChestMNIST has 14 labels that do not exclude each other. MedAlmighty and the DINOv2 rows trained one softmax over all "
    "of them, which is wrong for such data; `paper_softmax` repeats it.",
    "On ChestMNIST an accuracy of .947 is what predicting no finding at all gives: read the AUC. The accuracy of .962 for "
    "DINOv2-L lies above what every other model reaches and is not plausible.",
)
_OF_SET = {
    "chestmnist": _CHESTMNIST,
    "dermamnist": (
        "The AUCs of .989 and .986 for SENet-50 and SKNet-50 are not plausible: other networks of that accuracy have about "
        ".90. They may be misprints of .889 and .886.",
        "DermaMNIST is known to hold the same images in more than one split.",
    ),
    "pneumoniamnist": ("The accuracy of .816 for SENet-50 has a standard deviation of .058 over its runs.",),
}
_FROM_MEMORY = ("chestmnist", "dermamnist", "breastmnist", "bloodmnist", "organcmnist", "organsmnist")


@dataclass(frozen=True)
class Published:
    """One published row for one data set. Not measured here.

    Attributes:
        source: the paper.
        system: the row's name there.
        auc, accuracy: in [0, 1].
        auc_sd, accuracy_sd: over the paper's runs; None where not kept.
    """

    source: str
    system: str
    auc: float
    accuracy: float
    auc_sd: float | None = None
    accuracy_sd: float | None = None


def published(source: str) -> list[Published]:
    """The published rows for a MedMNIST set; empty for any other source."""
    rows = []
    if table := _rows(_TABLE_2).get(source):
        *pairs, sd = table
        rows = [
            Published(MEDALMIGHTY, name, *pair, *(sd if name == "MedAlmighty" else (None, None)))
            for name, pair in zip(_TABLE_2_NAMES, pairs, strict=True)
        ]
    if pairs := _rows(_MEDMNIST).get(source, []):
        rows += [Published(MEDMNIST, name, *pair) for name, pair in zip(_MEDMNIST_NAMES, pairs, strict=True)]
    return rows


def caveats(source: str) -> list[str]:
    """What must be known to read the published rows of a set, most particular first."""
    if not published(source):
        return []
    quality = _RECALLED if source in _FROM_MEMORY else _COPIED
    return [*_OF_SET.get(source, ()), quality, *_MEDMNIST_NOTES, *_TABLE_2_NOTES, _CA_MKD_NOTE]


def _rows(text: str) -> dict[str, list[tuple[float, float]]]:
    split = (line.split() for line in text.strip().splitlines())
    return {name: [_pair(cell) for cell in cells] for name, *cells in split}


def _pair(cell: str) -> tuple[float, float]:
    first, second = cell.split("/")
    return float(first), float(second)
