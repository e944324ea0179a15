"""Cases of the objectives' recording rules, made: the same few for each objective and window.

What a rule adds up comes from two copies; what happened before a window, other buckets and other
outcomes are there too, and large.
"""

from collections.abc import Iterable, Mapping

from tests.promtool import Document, Samples, case, counter, document, now_and_then

_SHORT = ("5m", "30m", "1h", "2h", "6h")
_LONG = ("1d", "3d", "30d")
_SLOS = ("availability", "webhook-success", "webhook-latency", "kpi-freshness")


def documents() -> dict[str, Document]:
    """Return the content of each test file, by its name."""
    rules = "recording_rules/slo.yml"
    return {
        "slo-short.yml": document(rules, "18h", [*_webhook_counts(), _looks(), _downtime()]),
        "slo-long.yml": document(rules, "33d", [_long_counts(), _long_counts_by_location()]),
        "kpi-ages.yml": document(rules, "1m", [_kpi_ages()]),
        "down.yml": document(rules, "1m", [_down()]),
        "gone-for-16h.yml": document(rules, "16h", [_gone("16h", counts=True)]),
        "gone-for-2d.yml": document(rules, "2d", [_gone("2d", counts=False)]),
    }


# Minutes before the end. Between two of them lies the start of a window, of its third and of its
# threefold.
_AGES = (2, 10, 25, 45, 100, 240, 600)
_BAD = dict(zip(_AGES, (1, 10, 100, 1000, 10_000, 100_000, 1_000_000), strict=True))
_GOOD = dict(zip(_AGES, (18, 100, 770, 5778, 15_556, 1_533_332, 10), strict=True))
_COUNTED = {
    "5m": (2, 20, 0.1),
    "30m": (222, 1110, 0.2),
    "1h": (2222, 8888, 0.25),
    "2h": (22_222, 44_444, 0.5),
    "6h": (222_222, 1_777_776, 0.125),
}
_MINUTES = 18 * 60


def _webhook_counts() -> Iterable[Document]:
    """Cases of the objectives that count webhooks; half of the bad ones come from each copy.

    `one` had a single webhook, a bad one; `idle` had some before, and none for 18 hours.
    """
    finished = (
        'ghl_exporter_webhooks_finished_total{job="%s",instance="%s",location="%s",outcome="%s"}'
    )
    one = counter(_MINUTES, {2: 1})
    yield _short(
        "webhook-success",
        {
            finished % ("j", "a", "x", "quarantined"): counter(_MINUTES, _BAD),
            finished % ("j", "b", "x", "refused"): counter(_MINUTES, _BAD),
            finished % ("j", "a", "x", "success"): counter(_MINUTES, _GOOD | {2: 10}),
            finished % ("j", "b", "y", "success"): counter(_MINUTES, {2: 8}),
            finished % ("one", "a", "z", "refused"): one,
            finished % ("idle", "a", "z", "refused"): f"5x{_MINUTES}",
            finished % ("idle", "a", "z", "success"): f"9x{_MINUTES}",
        },
        (
            '{__name__=~"job_location:.*increase5m"}',
            "18h",
            {
                _recorded(f"job_location:slo_{name}:increase5m", job, "webhook-success", place): n
                for job, place, name, n in (
                    ("j", "x", "bad_events", 2),
                    ("j", "x", "events", 12),
                    ("j", "y", "events", 8),
                    ("one", "z", "bad_events", 1),
                    ("one", "z", "events", 1),
                    ("idle", "z", "bad_events", 0),
                    ("idle", "z", "events", 0),
                )
            },
        ),
    )
    duration = 'ghl_exporter_webhook_request_duration_seconds_%s{job="%s",instance="%s"}'
    bucket = 'ghl_exporter_webhook_request_duration_seconds_bucket{job="%s",instance="%s",le="%s"}'
    in_time = {age: count / 2 for age, count in _GOOD.items()}
    all_ = {age: count + in_time[age] for age, count in _BAD.items()}
    series: dict[str, str] = {}
    for instance in ("a", "b"):
        series |= {
            duration % ("count", "j", instance): counter(_MINUTES, all_),
            bucket % ("j", instance, "0.5"): f"0x{_MINUTES}",
            bucket % ("j", instance, "1.0"): counter(_MINUTES, in_time),
            bucket % ("j", instance, "2.0"): counter(_MINUTES, all_),
        }
    yield _short(
        "webhook-latency",
        {
            **series,
            # A scrape that ends between the two can show more in time than there were.
            duration % ("count", "odd", "a"): counter(_MINUTES, {2: 10}),
            bucket % ("odd", "a", "1.0"): counter(_MINUTES, {2: 12}),
            duration % ("count", "one", "a"): one,
            bucket % ("one", "a", "1.0"): f"0x{_MINUTES}",
            duration % ("count", "idle", "a"): f"9x{_MINUTES}",
            bucket % ("idle", "a", "1.0"): f"9x{_MINUTES}",
        },
        (
            f'{{__name__=~"job:slo_bad_events:increase({"|".join(_SHORT)})",job="odd"}}',
            "18h",
            {
                _recorded(f"job:slo_bad_events:increase{window}", "odd", "webhook-latency"): 0
                for window in _SHORT
            },
        ),
        odd=0,
    )


def _short(
    slo: str,
    series: Mapping[str, str],
    *more: tuple[str, str, Samples],
    counted: Mapping[str, tuple[float, float, float]] = _COUNTED,
    **ratios: float,
) -> Document:
    """Make the case of an objective's short windows. `ratios`: of further jobs, in every window."""
    ratios = {"one": 1, **ratios}
    windows = "|".join(_SHORT)
    counts, shares = {}, {}
    for window, (bad, all_, ratio) in counted.items():
        counts[_recorded(f"job:slo_bad_events:increase{window}", "j", slo)] = bad
        counts[_recorded(f"job:slo_events:increase{window}", "j", slo)] = all_
        name = f"job:slo_bad_events:ratio_increase{window}"
        shares[_recorded(name, "j", slo)] = ratio
        shares |= {_recorded(name, job, slo): value for job, value in ratios.items()}
    return case(
        f"{slo}, windows up to six hours",
        "1m",
        series,
        (f'{{__name__=~"job:slo_(bad_)?events:increase({windows})",job="j"}}', "18h", counts),
        (
            f'{{__name__=~"job:slo_bad_events:ratio_increase({windows})",slo="{slo}"}}',
            "18h",
            shares,
        ),
        *more,
    )


def _recorded(name: str, job: str, slo: str, location: str = "") -> str:
    place = f',location="{location}"' if location else ""
    return f'{name}{{job="{job}"{place},service="ghl-exporter",slo="{slo}"}}'


def _looks() -> Document:
    """Make the case of the KPIs' freshness: what was counted at each look is added up."""
    stale = (1, 1, 100, 120, 2000, 20_000, 200_000, 1_000_000)
    all_ = (10, 10, 500, 590, 7778, 35_556, 1_733_332, 1_000_000)
    series: dict[str, str] = {}
    for name, looks in (("kpis_stale", stale), ("kpis", all_)):
        told = dict(zip((1, *_AGES), looks, strict=True))
        series |= {
            f'job:ghl_exporter_{name}:count{{job="j"}}': now_and_then(_MINUTES, told),
            f'job:ghl_exporter_{name}:count{{job="one"}}': now_and_then(_MINUTES, {2: 1}),
            f'job:ghl_exporter_{name}:count{{job="idle"}}': now_and_then(_MINUTES, {2: 0}),
        }
    return _short("kpi-freshness", series)


# Looks at the service by their age in minutes: 1 where no copy was up. None lies at the start of a
# window, of its third or of its threefold.
_DOWN = (
    {1: 1, 2: 1, 3: 0, 4: 0}
    | {12: 1, 13: 0, 25: 0, 26: 1}
    | {45: 1, 46: 0}
    | {100: 1, 101: 1}
    | {240: 1, 241: 0, 242: 0, 243: 0}
    | {600: 1}
)
_DOWN_COUNTED = {
    "5m": (2, 4, 0.5),
    "30m": (4, 8, 0.5),
    "1h": (5, 10, 0.5),
    "2h": (7, 12, 7 / 12),
    "6h": (8, 16, 0.5),
}


def _downtime() -> Document:
    """Make the case of looks at the service, of which some found no copy up."""
    series = {
        'job:ghl_exporter_down:min{job="j"}': now_and_then(_MINUTES, _DOWN),
        'job:ghl_exporter_down:min{job="one"}': now_and_then(_MINUTES, {2: 1}),
        'job:ghl_exporter_down:min{job="up"}': now_and_then(_MINUTES, {2: 0}),
    }
    return _short("availability", series, counted=_DOWN_COUNTED, up=0)


# Steps of five minutes before the end, off the quarters of an hour.
_LONG_AGES = (62, 242, 602, 2306, 4322, 8930)
_LONG_BAD = dict(zip(_LONG_AGES, (1, 10, 100, 1000, 10_000, 100_000), strict=True))
_LONG_ALL = dict(zip(_LONG_AGES, (10, 100, 445, 1_000_000, 1_221_645, 9_000_000), strict=True))
_LONG_COUNTED = {"1d": (11, 110, 0.1), "3d": (111, 555, 0.2), "30d": (11_111, 2_222_200, 0.005)}
_STEPS = 33 * 24 * 12


def _long_counts() -> Document:
    """Make the case of the long windows and the budgets.

    `j` had bad events on some days and nothing on others, `one` a single event, a bad one, `steady`
    a good one, `idle` none. In the last six hours the first two had one bad event in fifty.
    """
    series: dict[str, str] = {}
    counts: dict[str, float] = {}
    shares: dict[str, float] = {}
    left: dict[str, float] = {}
    lasts: dict[str, float] = {}
    for slo in _SLOS:
        series |= _tiles("job", f'job="j",slo="{slo}"', _LONG_BAD, _LONG_ALL)
        series |= _tiles("job", f'job="one",slo="{slo}"', {62: 1}, {62: 1})
        series |= _tiles("job", f'job="steady",slo="{slo}"', {62: 0}, {62: 1})
        series |= _tiles("job", f'job="idle",slo="{slo}"', {62: 0}, {62: 0})
        for job, ratio in (("j", 0.02), ("one", 0.02), ("steady", 0)):
            key = _recorded("job:slo_bad_events:ratio_increase6h", job, slo)
            series[key] = now_and_then(_STEPS, {0: ratio})
        for window, (bad, all_, ratio) in _LONG_COUNTED.items():
            counts[_recorded(f"job:slo_bad_events:increase{window}", "j", slo)] = bad
            counts[_recorded(f"job:slo_events:increase{window}", "j", slo)] = all_
            name = f"job:slo_bad_events:ratio_increase{window}"
            for job, value in (("j", ratio), ("one", 1), ("steady", 0)):
                shares[_recorded(name, job, slo)] = value
        # 0.5 % of bad events are half of a budget of 1 %, a tenth of one of 5 %. At 2 % it burns
        # twice as fast as it would last 30 days, or at two fifths of that pace.
        of_j, of_one, days = (0.9, -19, 67.5) if slo == "webhook-latency" else (0.5, -99, 7.5)
        for job, value in (("j", of_j), ("one", of_one), ("steady", 1)):
            left[_recorded("job:slo_budget_left:ratio", job, slo)] = value
        for job, value in (("j", days * 86_400), ("one", 0)):
            lasts[_recorded("", job, slo)] = value
    # What another objective's rules, of a group of their own, recorded the time before.
    other = _recorded("job:slo_bad_events:ratio_increase30d", "j", "other")
    series[other] = now_and_then(_STEPS, {0: 0.7})
    windows = "|".join(_LONG)
    return case(
        "windows of days, and the budget",
        "5m",
        series,
        (f'{{__name__=~"job:slo_(bad_)?events:increase({windows})",job="j"}}', "33d", counts),
        (
            f'{{__name__=~"job:slo_bad_events:ratio_increase({windows})",slo!="other"}}',
            "33d",
            shares,
        ),
        ("job:slo_budget_left:ratio", "33d", left),
        ("round(job:slo_budget_lasts:seconds)", "33d", lasts),
    )


def _long_counts_by_location() -> Document:
    """Make the same case of two locations, of which the second had twice as many bad webhooks."""
    slo, windows = "webhook-success", ("1d", "30d")
    series: dict[str, str] = {}
    counts: dict[str, float] = {}
    shares: dict[str, float] = {}
    for place, factor in (("x", 1), ("y", 2)):
        bad_events = {age: count * factor for age, count in _LONG_BAD.items()}
        labels = f'job="j",location="{place}",slo="{slo}"'
        series |= _tiles("job_location", labels, bad_events, _LONG_ALL)
        for window in windows:
            bad, all_, ratio = _LONG_COUNTED[window]
            name = f"job_location:slo_bad_events:increase{window}"
            counts[_recorded(name, "j", slo, place)] = bad * factor
            name = f"job_location:slo_events:increase{window}"
            counts[_recorded(name, "j", slo, place)] = all_
            name = f"job_location:slo_bad_events:ratio_increase{window}"
            shares[_recorded(name, "j", slo, place)] = ratio * factor
            shares[_recorded(name, "one", slo, "z")] = 1
    series |= _tiles("job_location", f'job="one",location="z",slo="{slo}"', {62: 1}, {62: 1})
    series |= _tiles("job_location", f'job="idle",location="z",slo="{slo}"', {62: 0}, {62: 0})
    # Another objective may get locations too.
    series |= _tiles("job_location", 'job="j",location="x",slo="other"', {62: 7}, {62: 7})
    own = f'slo="{slo}"'
    return case(
        "windows of days by location",
        "5m",
        series,
        (
            f'{{__name__=~"job_location:slo_(bad_)?events:increase(1d|30d)",job="j",{own}}}',
            "33d",
            counts,
        ),
        (f'{{__name__=~"job_location:.*ratio_increase(1d|30d)",{own}}}', "33d", shares),
    )


def _tiles(
    level: str, labels: str, bad: Mapping[int, float], all_: Mapping[int, float]
) -> dict[str, str]:
    """Make the counts of five minutes that the long windows are summed up from."""
    return {
        f"{level}:slo_{name}:increase5m{{{labels}}}": now_and_then(_STEPS, told, "stale")
        for name, told in (("bad_events", bad), ("events", all_))
    }


def _kpi_ages() -> Document:
    """Make the case of the KPIs and of those that are stale, which they are after 120 s.

    `revenue` and `leads` are refreshed until 10 minutes, `leads` by the copy that leads, `deals`
    until half a minute before. Then nobody can scrape them. `k` has a KPI that is refreshed rarely.
    """
    interval = 'ghl_exporter_kpi_interval_seconds{job="%s",instance="%s"}'
    success = 'ghl_exporter_kpi_last_success_timestamp_seconds{job="%s",instance="%s",kpi="%s"}'
    kpis, stale = "job:ghl_exporter_kpis:count", "job:ghl_exporter_kpis_stale:count"

    def of_j(name: str, value: float) -> Samples:
        return {f'{name}{{job="j",service="ghl-exporter"}}': value}

    return case(
        "KPIs that are refreshed until nobody scrapes them any more",
        "1m",
        {
            interval % ("j", "a"): "15x4 45x5 stale",
            interval % ("j", "b"): "15x10 stale",
            success % ("j", "a", "revenue"): "0+60x10 stale",
            success % ("j", "a", "leads"): "0x10 stale",
            success % ("j", "b", "leads"): "0+60x10 stale",
            success % ("j", "a", "deals"): "0+60x9 570 stale",
            interval % ("k", "a"): "9000x80",
            success % ("k", "a", "revenue"): "0x80",
        },
        (f'{kpis}{{job="j"}}', "12m", of_j(kpis, 3)),
        (f'{stale}{{job="j"}}', "11m", of_j(stale, 0)),
        (f'{stale}{{job="j"}}', "12m", of_j(stale, 1)),
        (f'{stale}{{job="j"}}', "13m", of_j(stale, 3)),
        (f'{stale}{{job="j"}}', "69m", of_j(stale, 3)),
        (f'{kpis}{{job="j"}}', "69m", of_j(kpis, 3)),
        (f'{stale}{{job="j"}}', "71m", {}),
        (f'{kpis}{{job="j"}}', "71m", {}),
        (stale, "71m", {f'{stale}{{job="k",service="ghl-exporter"}}': 0}),
    )


_DOWN_RECORD = "job:ghl_exporter_down:min"


def _found(value: float) -> Samples:
    return {f'{_DOWN_RECORD}{{job="ghl-exporter",service="ghl-exporter"}}': value}


def _down() -> Document:
    """Make the case of the service's copies: none yet, one down, both, none, and no target."""
    return case(
        "copies that are down, and gone",
        "1m",
        {
            'up{job="ghl-exporter",instance="a"}': "_ 1 0 1 stale",
            'up{job="ghl-exporter",instance="b"}': "_ 0 0 1 stale",
            'up{job="other",instance="c"}': "1x2 0x1 1x10",
        },
        (_DOWN_RECORD, "0m", {}),
        (_DOWN_RECORD, "1m", _found(0)),
        (_DOWN_RECORD, "2m", _found(1)),
        (_DOWN_RECORD, "3m", _found(0)),
        (_DOWN_RECORD, "4m", _found(1)),
    )


def _gone(after: str, counts: bool) -> Document:
    """Make the case of a Prometheus that looks again so long after the last target."""
    return case(
        f"no target after {after}",
        after,
        {'up{job="ghl-exporter",instance="a"}': "1 stale"},
        (_DOWN_RECORD, "0m", _found(0)),
        (_DOWN_RECORD, after, _found(1) if counts else {}),
    )
