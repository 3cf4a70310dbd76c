"""A status as a notebook and a terminal show it: short, escaped, honest about what is left out."""

from cluster.vocabulary.status import Status, WorkerStatus
from cluster.vocabulary.task import Gpu


def worker(number, **facts):
    gpu = Gpu("polaris", 8 << 30)
    plain = (number, "<script>host", 4_000 + number, 1, 2, 1, 1, 1_234, False, 0.25)
    return WorkerStatus(f"worker-{number}", *plain, ["echo"], [], [gpu], **facts)


def status(*workers):
    counters = {"accepted": 1_240, "done": 1_234, "dead-lettered": 2, "lost": 3, "late_results": 1}
    queued = {"HIGH": 1, "NORMAL": 2}
    return Status("least-loaded", 1, 2, queued, 1, 0, 10, 10, counters, list(workers))


def test_a_status_is_one_line_and_a_table_of_the_first_workers():
    few = status(worker(0, service_s_p50=0.0125, trouble="<b>"))
    line = "1 worker; tasks: 3 queued, 1 assigned, 1,234 done, 2 dead-lettered"
    assert (str(few), repr(few)) == (line, f"<Status: {line}>")
    html = few._repr_html_()
    assert f"<caption>{line}</caption>" in html
    assert "<td>&lt;script&gt;host</td>" in html
    assert "<td>12.5</td><td></td><td>0.2</td><td>&lt;b&gt;</td>" in html  # no p99 is no figure
    many = status(*map(worker, range(25)))._repr_html_()
    assert many.count("<tr>") == 21
    assert (
        "25 workers; tasks: 3 queued, 1 assigned, 1,234 done, 2 dead-lettered; not shown: 5 "
        in many
    )
