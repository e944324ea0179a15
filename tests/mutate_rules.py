"""Change each rule in one place at a time, and see whether its cases notice.

    python -m tests.mutate_rules [--only TEXT] [--workers N]

Prints how many changes no case notices, by why that is so, and each of which `tests/survivors.py`
does not say it. Fails where there are such, and where what it says is of none. It takes minutes.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import promql_parser as promql
import yaml

from tests.mutants import mutants, text_of
from tests.promtool import ROOT, RULE_FILES, Document, promtool
from tests.rule_cases import documents
from tests.survivors import EXPLAINED, explanation

Rule = dict[str, Any]


@dataclass(frozen=True)
class Mutant:
    """One rule of a file, changed in one place; in none where `change` is empty."""

    file: str
    group: int
    place: int
    rule: Rule
    change: str = ""

    @property
    def is_alert(self) -> bool:
        """Whether the rule is an alert's."""
        return "alert" in self.rule

    @property
    def name(self) -> str:
        """The alert's name, or the recorded series' with the labels that tell it from others."""
        if self.is_alert:
            return str(self.rule["alert"])
        labels = ",".join(f'{k}="{v}"' for k, v in self.rule["labels"].items() if k != "service")
        return f"{self.rule['record']}{{{labels}}}"


def rules() -> list[Mutant]:
    """Return each rule as it is."""
    return [
        Mutant(file, group, place, rule)
        for file in RULE_FILES
        for group, content in enumerate(_groups(file))
        for place, rule in enumerate(content["rules"])
    ]


@cache
def _groups(file: str) -> list[Document]:
    groups: list[Document] = yaml.safe_load((ROOT / file).read_text("utf-8"))["groups"]
    return groups


def mutants_of(rule: Mutant) -> Iterator[Mutant]:
    """Yield the rule with each change."""

    def changed(change: str, **instead: str) -> Mutant:
        content = {key: value for key, value in (rule.rule | instead).items() if value}
        return Mutant(rule.file, rule.group, rule.place, content, change)

    for change, expression in mutants(rule.rule["expr"]):
        yield changed(change, expr=expression)
    if wait := rule.rule.get("for"):
        yield changed(f"for {wait} → none", **{"for": ""})
        for factor in (0.5, 2, 20):
            other = text_of(promql.parse_duration(wait) * factor)
            yield changed(f"for {wait} → {other}", **{"for": other})


class Bench:
    """Copies of the rule files, in each of which one mutant at a time is tried."""

    def __init__(self, directory: Path, workers: int) -> None:
        # Whether names meet, as the files of several rule files ask, is changed by no mutant.
        self._documents = [
            document for document in documents().values() if len(document["rule_files"]) == 1
        ]
        self._copies: SimpleQueue[Path] = SimpleQueue()
        for number in range(workers):
            copy = directory / str(number)
            for file in RULE_FILES:
                (copy / file).parent.mkdir(parents=True, exist_ok=True)
            (copy / "tests" / "rules").mkdir(parents=True)
            self._copies.put(copy)

    def survives(self, mutant: Mutant) -> bool:
        """Try the cases that there are for the mutant's file, until one fails."""
        copy = self._copies.get()
        try:
            (copy / mutant.file).write_text(json.dumps(_rule_file(mutant)), "utf-8")
            path = copy / "tests" / "rules" / "cases.yml"
            for document in self._covering(mutant):
                path.write_text(json.dumps(document), "utf-8")
                status, _ = promtool("test", "rules", path)
                if status != 0:
                    return False
            return True
        finally:
            self._copies.put(copy)

    def _covering(self, mutant: Mutant) -> Iterator[Document]:
        for document in self._documents:
            of_file = document["rule_files"] == [f"../../{mutant.file}"]
            if of_file and (cases := list(_cases(document, mutant))):
                yield {**document, "tests": cases}


def _cases(document: Document, mutant: Mutant) -> Iterator[Document]:
    """Yield what a file asks of the mutant's alert, or all of it."""
    for case in document["tests"]:
        if not mutant.is_alert:
            yield case
        elif asked := [a for a in case["alert_rule_test"] if a["alertname"] == mutant.name]:
            yield {**case, "alert_rule_test": asked}


def _rule_file(mutant: Mutant) -> Document:
    """Return the mutant's file. An alert is alone in it: that is quicker, and no rule reads it."""
    groups = list(_groups(mutant.file))
    group = groups[mutant.group]
    if mutant.is_alert:
        return {"groups": [{**group, "rules": [mutant.rule]}]}
    content = list(group["rules"])
    content[mutant.place] = mutant.rule
    groups[mutant.group] = {**group, "rules": content}
    return {"groups": groups}


def tried(chosen: Iterable[Mutant], workers: int = 2) -> Iterator[tuple[Mutant, bool]]:
    """Yield each mutant, and whether it survives."""
    chosen = list(chosen)
    with tempfile.TemporaryDirectory() as directory, ThreadPoolExecutor(workers) as threads:
        bench = Bench(Path(directory), workers)
        yield from zip(chosen, threads.map(bench.survives, chosen), strict=True)


def unchanged(chosen: Iterable[Mutant]) -> list[Mutant]:
    """Return the rules that have to pass as they are: each alert, and one of each file's others."""
    found = {rule.name if rule.is_alert else rule.file: rule for rule in chosen}
    return list(found.values())


def main() -> int:
    """Try all of them, and return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", metavar="TEXT", help="part of a rule's file or name")
    parser.add_argument("--workers", type=int, default=2, help="how many promtools run at a time")
    options = parser.parse_args()
    chosen = [rule for rule in rules() if options.only in f"{rule.file} {rule.name}"]
    for rule, passes in tried(unchanged(chosen), options.workers):
        if not passes:
            print(f"{rule.name}: its cases fail as it is")
            return 1
    every = [mutant for rule in chosen for mutant in mutants_of(rule)]
    why: Counter[str] = Counter()
    for number, (mutant, survives) in enumerate(tried(every, options.workers), 1):
        if survives:
            kind = explanation(mutant.name, mutant.change)
            why[kind.why if kind else ""] += 1
            if kind is None:
                print(f"{mutant.name}: {mutant.change}")
        if number % 100 == 0 or number == len(every):
            print(f"{number} of {len(every)} tried, {why.total()} survive", file=sys.stderr)
    print(f"{len(every)} mutants: {len(every) - why.total()} noticed, {why['']} unexplained")
    for reason, number in why.most_common():
        print(f"{number:5}  {reason or 'not explained'}")
    unneeded = {kind.why for kind in EXPLAINED} - set(why) if not options.only else set()
    for reason in unneeded:
        print(f"explains none: {reason}")
    return 1 if why[""] or unneeded else 0


if __name__ == "__main__":
    sys.exit(main())
