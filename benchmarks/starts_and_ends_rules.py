"""What the trainings of starts_and_ends.py say: which weights to keep, at which rates, taught how.

    python benchmarks/starts_and_ends_rules.py OUT

Every line is a mean over trainings of a difference on the test images between two rules on the same training, or two
trainings alike in set, split and seed. Intervals are bootstrapped over those pairs of set and seed, since trainings on the
same images are not independent.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from scipy.stats import rankdata

Figures = dict[str, float]
Line = dict


def auc(found: np.ndarray, targets: np.ndarray) -> float:
    """Macro one-against-rest, NaN where one class is there alone."""
    shares, areas = np.exp(log_softmax(found, axis=1)), []
    for label in range(found.shape[1]):
        there = targets == label
        if 0 < there.sum() < len(there):
            ranks = rankdata(shares[:, label])[there].sum()
            areas.append((ranks - there.sum() * (there.sum() + 1) / 2) / there.sum() / (~there).sum())
    return float(np.mean(areas)) if areas else float("nan")


def nll(found: np.ndarray, targets: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    return -log_softmax(found / temperature, axis=1)[np.arange(len(targets)), targets]


def temperature_of(found: np.ndarray, targets: np.ndarray) -> float:
    best = minimize_scalar(lambda t: nll(found, targets, np.exp(t)).mean(), bounds=(-1, 3), method="bounded")
    return float(np.exp(best.x))


def kept_by_rule(record: dict[str, np.ndarray]) -> dict[str, Figures]:
    """The test figures of what each rule would keep."""
    val, test = record["val"].astype(np.float64), record["test"].astype(np.float64)
    targets, truth = record["val_targets"].astype(int), record["test_targets"].astype(int)
    heats = [temperature_of(epoch, targets) for epoch in val]
    plain = np.stack([nll(epoch, targets) for epoch in val])
    calibrated = np.stack([nll(epoch, targets, heat) for epoch, heat in zip(val, heats, strict=True)])
    gains = calibrated[-1] - calibrated  # > 0 where an epoch is better than the last
    clear = gains.mean(1) > 2 * gains.std(1, ddof=1) / len(targets) ** 0.5 + 1e-12
    last, lowest = len(val) - 1, int(calibrated.mean(1).argmin())
    clearest = gains[lowest].mean() > 3 * gains[lowest].std(ddof=1) / len(targets) ** 0.5 + 1e-12
    epochs = {
        "first best validation AUC": int(np.argmax([auc(epoch, targets) for epoch in val])),
        "last best validation AUC": last - int(np.argmax([auc(epoch, targets) for epoch in val[::-1]])),
        "last epoch": last,
        "lowest NLL": int(plain.mean(1).argmin()),
        "lowest calibrated NLL": lowest,
        "last unless clearly worse": int(np.where(clear, calibrated.mean(1), np.inf).argmin()) if clear.any() else last,
        "last unless the lowest is better by 3": lowest if clearest else last,
        "best on test (not allowed)": int(np.argmax([auc(epoch, truth) for epoch in test])),
    }
    pairs = {name: (val[epoch], test[epoch]) for name, epoch in epochs.items()}
    for key, name in (("ema", "moving average"), ("late", "mean of last quarter"), ("last", "last epoch")):
        if f"{key}_val" in record:
            pairs[name] = (record[f"{key}_val"].astype(np.float64), record[f"{key}_test"].astype(np.float64))
        pairs[f"{name}, norms again"] = tuple(record[f"{key}_bn_{s}"].astype(np.float64) for s in ("val", "test"))
    return {name: figures(*pair, targets, truth) for name, pair in pairs.items()}


def figures(val: np.ndarray, test: np.ndarray, targets: np.ndarray, truth: np.ndarray) -> Figures:
    heat = temperature_of(val, targets)
    return {
        "auc": auc(test, truth),
        "accuracy": float((test.argmax(1) == truth).mean()),
        "nll": float(nll(test, truth, heat).mean()),
        "val_auc": auc(val, targets),
    }


def read(folder: Path) -> list[tuple[Line, dict[str, Figures]]]:
    """Every finished training with what each rule keeps of it."""
    lines = {}
    for text in (folder / "results.jsonl").read_text().splitlines():
        line = json.loads(text)
        if "error" not in line:
            lines[line["id"]] = line
    found = []
    for path in sorted(folder.glob("logits-*.tar")):
        with tarfile.open(path) as archive:
            for member in archive.getmembers():
                number = int(member.name.split(".")[0])
                file = archive.extractfile(member)
                if number not in lines or file is None:
                    continue
                with np.load(io.BytesIO(file.read())) as content:
                    record = {key: content[key] for key in content.files}
                if lines[number]["kind"] == "student":
                    found.append((lines[number], kept_by_rule(record)))
                else:
                    logits = [record[key][-1].astype(np.float64) for key in ("val", "test")]
                    truth = [record[f"{key}_targets"].astype(int) for key in ("val", "test")]
                    found.append((lines[number], {"last epoch": figures(*logits, *truth)}))
    return found


def interval(pairs: list[tuple[object, float]], resamples: int = 2000) -> str:
    """Mean and 95 % interval of values, clustered by their keys."""
    by_key = defaultdict(list)
    for key, value in pairs:
        if np.isfinite(value):
            by_key[key].append(value)
    if not by_key:
        return "-"
    sums = np.array([sum(values) for values in by_key.values()])
    counts = np.array([len(values) for values in by_key.values()])
    draws = np.random.default_rng(0).integers(0, len(sums), (resamples, len(sums)))
    means = sums[draws].sum(1) / counts[draws].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return f"{sums.sum() / counts.sum():+.3f} ({low:+.3f} to {high:+.3f})"


SAME = (
    *("data", "seed", "labels", "kind", "network", "start", "head", "lr", "share", "epochs", "views", "teacher"),
    *("alpha", "temperature", "decay", "smoothing"),
)


def paired(
    found: list[tuple[Line, dict[str, Figures]]],
    rule: str,
    change: Callable[[Line], Line | None],
    also: Callable[[Line], bool] = lambda line: True,
) -> dict[str, list[tuple[object, float]]]:
    """Differences of a training to the one that ``change`` names, where both are there, by figure."""
    index = {tuple(line[key] for key in SAME): result for line, result in found}
    differences: dict[str, list[tuple[object, float]]] = defaultdict(list)
    for line, result in found:
        if line["kind"] != "student" or not also(line):
            continue
        other = change(dict(line))
        if other is None:
            continue
        against = index.get(tuple(other[key] for key in SAME))
        if against is None or other == line:
            continue
        for figure in ("auc", "accuracy", "nll"):
            difference = result[rule][figure] - against[rule][figure]
            differences[figure].append(((line["data"], line["seed"]), difference))
    return differences


def row(name: str, differences: dict[str, list[tuple[object, float]]]) -> str:
    cells = [interval(differences[figure]) for figure in ("auc", "accuracy", "nll")]
    return f"| {name} | {len(differences['auc'])} | {' | '.join(cells)} |"


HEAD = "| {} | trainings | AUC | accuracy | calibrated NLL |\n|---|---|---|---|---|"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rule", default="last epoch")
    arguments = parser.parse_args()
    found = read(arguments.out)
    students = [(line, result) for line, result in found if line["kind"] == "student"]
    rule = arguments.rule
    print(f"{len(students)} trainings of students, {len(found) - len(students)} teachers\n")

    print("Rules for what is kept, against the last epoch of the same training:\n")
    print(HEAD.format("rule"))
    for name in students[0][1]:
        differences = {
            figure: [
                ((line["data"], line["seed"]), result[name][figure] - result["last epoch"][figure])
                for line, result in students
            ]
            for figure in ("auc", "accuracy", "nll")
        }
        print(row(name, differences))

    print("\nThe last epoch's figures by set, all labels and 10 %:\n")
    print("| set | labels | network | teacher | views | epochs | AUC | accuracy | seeds |\n" + "|---" * 9 + "|")
    cells = defaultdict(list)
    for line, result in found:
        usual = line["lr"] == 2e-3 and line["share"] == 0.3 and line["alpha"] in (1.0, 0.2) and line["temperature"] == 2
        if usual and line["head"] == "normal" and not line["smoothing"] and line["decay"]:
            who = f"{line['network']}, {line['start']}" if line["kind"] == "student" else f"*teacher {line['kind']}*"
            key = (line["data"], line["labels"], who, line["teacher"], line["views"], line["epochs"])
            cells[key].append(result[rule if line["kind"] == "student" else "last epoch"])
    for key, results in sorted(cells.items(), key=str):
        means = [np.mean([result[figure] for result in results]) for figure in ("auc", "accuracy")]
        print(f"| {' | '.join(map(str, key))} | {means[0]:.3f} | {means[1]:.3f} | {len(results)} |")

    print(f"\nOne change at a time, kept by: {rule}. Each against the training that differs in this alone:\n")
    print(HEAD.format("change"))
    for name, change, also in comparisons():
        print(row(name, paired(students, rule, change, also)))


def comparisons() -> list[tuple[str, Callable[[Line], Line | None], Callable[[Line], bool]]]:
    def to(**values: object) -> Callable[[Line], Line]:
        return lambda line: line | values

    def has(**values: object) -> Callable[[Line], bool]:
        return lambda line: all(line[key] == value for key, value in values.items())

    found: list[tuple[str, Callable[[Line], Line | None], Callable[[Line], bool]]] = []
    for lr, share in [(lr, share) for lr in (5e-4, 1e-3, 2e-3, 4e-3) for share in (0.1, 0.3, 1.0)]:
        found.append(
            (f"lr {lr:g}, share {share:g}, against .002 and .3", to(lr=2e-3, share=0.3), has(lr=lr, share=share))
        )
    found.append(
        ("random start: head of .1/sqrt(n) against timm's", to(head="timm"), has(head="normal", start="random"))
    )
    found.append(
        ("pretrained: head of .1/sqrt(n) against timm's", to(head="timm"), has(head="normal", start="pretrained"))
    )
    for teacher in ("", "edge+mnv2+tuned_edge"):
        who = "taught" if teacher else "control"
        for labels in (1.0, 0.1):
            base = {"teacher": teacher, "labels": labels}
            for views in ("mix", "crop"):
                name = f"{who}, {labels:.0%} labels: {views} against light views"
                found.append((name, to(views="light"), has(views=views, **base)))
            found.append(
                (f"{who}, {labels:.0%} labels: head from a probe", to(head="normal"), has(head="probe", **base))
            )
        for epochs in (10, 40):
            found.append((f"{who}: {epochs} epochs against 20", to(epochs=20), has(epochs=epochs, teacher=teacher)))
    control = to(teacher="", alpha=1.0, temperature=2.0)
    for network in ("mobilenetv2_100", "mobilenetv2_035", "mobilenetv2_050"):
        for labels in (1.0, 0.1):
            for views in ("light", "mix", "crop"):
                base = {"network": network, "labels": labels, "views": views, "epochs": 20, "head": "normal"}
                panel = {"teacher": "edge+mnv2+tuned_edge", "alpha": 0.2, "temperature": 2.0}
                name = f"{network}, {labels:.0%} labels, {views}: panel against control alike"
                found.append((name, control, has(**base, **panel)))
                if views != "light":
                    best = to(teacher="", alpha=1.0, temperature=2.0, views="light")
                    name = f"{network}, {labels:.0%} labels: panel on {views} against control on light views"
                    found.append((name, best, has(**base, **panel)))
    usual = {"network": "mobilenetv2_100", "labels": 1.0, "views": "mix", "epochs": 20}
    for teacher in ("edge96", "edge", "tuned_edge", "edge+mnv2", "edge+mnv2+tuned_edge"):
        found.append(
            (
                f"{teacher} on mix against control on mix",
                control,
                has(teacher=teacher, alpha=0.2, temperature=2.0, **usual),
            )
        )
    for alpha, heat in [(0.0, 1.0), (0.0, 2.0), (0.0, 4.0), (0.2, 1.0), (0.2, 4.0), (0.5, 2.0)]:
        name = f"panel on mix: alpha {alpha:g}, T {heat:g} against .2 and 2"
        found.append(
            (
                name,
                to(alpha=0.2, temperature=2.0),
                lambda line, a=alpha, t=heat: line["teacher"] and line["alpha"] == a and line["temperature"] == t,
            )
        )
    found.append(
        (
            "panel on mix for 40 epochs against control on mix for 40",
            control,
            has(epochs=40, teacher="edge+mnv2+tuned_edge"),
        )
    )
    found.append(("label smoothing .1", to(smoothing=0.0), has(smoothing=0.1)))
    found.append(("no weight decay", to(decay=0.05), has(decay=0.0)))
    return found


if __name__ == "__main__":
    main()
