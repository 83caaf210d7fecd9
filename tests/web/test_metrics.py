"""Metrics: what is counted, and that it stays bounded."""

from __future__ import annotations

import json
import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from boot_stories import booted, hostile, mac, records, refused
from bootwire import facts
from bootwire.facts import Record
from bootwire.observe.boots import Boots
from bootwire.observe.story import brief
from bootwire.web.metrics import Metrics

GRAFANA = Path(__file__).parents[2] / "docs/grafana/bootwire.json"


class Rig:
    def __init__(self) -> None:
        self.boots = Boots()
        self.metrics = Metrics(lambda: [brief(boot) for boot in self.boots.machines()], lambda: {"journal": 3})

    def take(self, story: list[Record]) -> None:
        for record in story:
            for verdict in self.boots.take(record):
                self.metrics.take(Record(record.wall, record.at, verdict))
            self.metrics.take(record)

    def samples(self) -> dict[str, float]:
        """By name and labels, as they are written."""
        text = self.metrics.text()[0].decode()
        return {
            sample.name + "".join(f" {key}={value}" for key, value in sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }


def test_a_boot_is_counted_by_what_it_took_and_what_became_of_it() -> None:
    rig = Rig()
    rig.take(records(booted(1)) + records(booted(2), 100))
    found = rig.samples()
    assert found["bootwire_verdicts_total cause= state=booted"] == 2
    assert found["bootwire_machines state=booted"] == 2
    assert found["bootwire_transfers_total outcome=done protocol=http"] == 4
    assert found["bootwire_transfer_octets_total file=initrd protocol=http"] == 2 * 40_700_000
    assert found["bootwire_resent_octets_total protocol=tftp"] == 2 * 1_468
    assert found["bootwire_boot_seconds_count"] == 2
    assert found["bootwire_boot_seconds_bucket le=10"] == 2
    assert found["bootwire_boot_seconds_bucket le=5"] == 0
    assert found["bootwire_transfer_seconds_bucket le=+Inf protocol=http"] == 4
    assert found["bootwire_facts_total kind=discover"] == 4
    assert found["bootwire_lost_total where=journal"] == 3


def test_boots_under_way_are_counted_by_their_stage() -> None:
    rig = Rig()
    rig.take(records(refused(1)))
    assert rig.samples()["bootwire_boots_running stage=loader"] == 1


def test_nothing_a_peer_says_makes_a_series() -> None:
    rig = Rig()
    before = len(rig.samples())
    for number in range(50):
        rig.take(records(hostile(number)))
        rig.take(
            [Record(0, 0, facts.Refused(mac(number), f"service {number}", f"10.0.0.{number}", f"because {number}"))]
        )
    assert len(rig.samples()) <= before + 12


def test_every_kind_of_fact_is_counted() -> None:
    rig = Rig()
    assert {f"bootwire_facts_total kind={kind.kind}" for kind in facts.KINDS} <= set(rig.samples())


def test_the_dashboard_asks_for_what_there_is() -> None:
    rig = Rig()
    rig.take(records(booted(1)))
    written = rig.metrics.text()[0].decode()
    board = json.loads(GRAFANA.read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    assert len(queries) > 8
    labels = set(re.findall(r'[{,](\w+)="', written))
    legends = [target.get("legendFormat", "") for panel in board["panels"] for target in panel.get("targets", [])]
    for text in queries + legends:
        used = (
            re.findall(r"\bby \(([^)]*)\)", text)
            + re.findall(r"{{(\w+)}}", text)
            + re.findall(r"[{,] *(\w+) *[=!]", text)
        )
        assert {name.strip() for names in used for name in names.split(",")} <= labels, text
    for query in queries:
        names = re.findall(r"\b(?:bootwire|process)_[a-z_]+", query)
        assert names
        for name in names:
            assert re.search(rf"^{name}(?:{{| )", written, re.MULTILINE), name
