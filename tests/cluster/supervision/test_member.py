"""When a worker is started again."""

from cluster.supervision.member import Member
from cluster.supervision.output import CrewLog


def test_restarts_wait_longer_each_time_and_are_at_most_ten_a_minute():
    member = Member("w", CrewLog(None, "off", 2))
    waits = [member.restart_after_s(tenth / 10) for tenth in range(12)]
    assert waits[:8] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert 50 < waits[10] < 60
    assert member.restart_after_s(200.0) == 0.1
