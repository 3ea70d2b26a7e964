"""What is asked of a link, as commands for tc."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest

from tidings.errors import ConfigError
from tidings.links.kernel import Device, Lane, ceiling, changed, check, commands, readdressed
from tidings.links.shape import LinkShape, NicShape
from tidings.runtime.plan import NodePlan
from tidings.units import NS_PER_S

pytestmark = pytest.mark.unit

DEVICE = Device("eth0", 1500)
#: frames of 1448 bytes travel in packets of 1514
WIRE = 1514 / 1448
FIRST, SECOND = (Lane(f"198.18.0.{number}", LinkShape(rate_bit_per_s=8e6)) for number in (2, 3))
UNLIMITED = NicShape()


def made(*lanes: Lane, nic: NicShape = UNLIMITED, scale: float = 1.0) -> tuple[list[str], str]:
    ip, tc = commands(DEVICE, lanes, nic, "198.18.0.1", scale)
    return ip, "\n".join(tc)


def classes(text: str, device: str = "eth0") -> dict[str, tuple[str, int, int]]:
    """Parent, rate and ceiling in bit/s by class."""
    pattern = rf"class add dev {device} parent (\S+) classid (\S+) htb rate (\d+)bit ceil (\d+)bit"
    return {own: (parent, int(rate), int(ceil))
            for parent, own, rate, ceil in re.findall(pattern, text)}  # fmt: skip


def test_a_link_of_which_nothing_is_asked_has_a_class_that_a_fault_can_change() -> None:
    ip, text = made(Lane("198.18.0.2", LinkShape(loss=0.5)))
    assert ip == []
    assert classes(text) == {"7d1d:10": ("7d1d:", 100 * 10**9, 100 * 10**9)}


def test_another_shape_changes_a_links_class_and_what_queues_in_it() -> None:
    shape = LinkShape(rate_bit_per_s=2e6, queue_bytes=5000)
    nic = NicShape(egress_bit_per_s=10e6)
    change, replace_ = changed(DEVICE, 1, shape, 2, nic, 2.0)
    rate = round(1e6 * WIRE)
    made_so = f"class change dev eth0 parent 7d1d:1 classid 7d1d:11 htb rate {rate}bit ceil {rate}"
    assert change.startswith(made_so)
    assert replace_ == "qdisc replace dev eth0 parent 7d1d:11 bfifo limit 5000"
    assert ceiling(shape, DEVICE, nic, 2.0) == rate
    # the rest is as it was made
    _, text = made(FIRST, replace(SECOND, shape=shape), nic=nic, scale=2.0)
    assert change.replace("change", "add", 1) in text
    delayed = changed(DEVICE, 0, LinkShape(delay_ns=NS_PER_S // 50), 2, nic)[1]
    assert delayed.startswith("qdisc replace dev eth0 parent 7d1d:10 netem limit ")


def test_a_neighbour_that_is_elsewhere_now_keeps_its_class() -> None:
    _, text = made(FIRST, SECOND, nic=NicShape(ingress_bit_per_s=6e6))
    lines = readdressed(DEVICE, 1, "198.18.0.9", NicShape(ingress_bit_per_s=6e6))
    assert [line.split()[:4] for line in lines] == [
        ["filter", "del", "dev", "eth0"], ["filter", "add", "dev", "eth0"],
        ["filter", "del", "dev", "tidings-in"], ["filter", "add", "dev", "tidings-in"],
    ]  # fmt: skip
    for line in lines[1::2]:
        assert line.replace("198.18.0.9", "198.18.0.3") in text.splitlines()


def test_each_link_has_a_class_by_destination_at_the_rate_of_its_frames() -> None:
    _, text = made(FIRST, SECOND)
    rate = round(8e6 * WIRE)
    assert classes(text) == {"7d1d:10": ("7d1d:", rate, rate), "7d1d:11": ("7d1d:", rate, rate)}
    assert "match ip dst 198.18.0.3/32 flowid 7d1d:11" in text
    # whom nobody asked to shape is not shaped: the coordinator, a scrape
    assert "root handle 7d1d: htb default 0 " in text
    assert "ifb" not in text


def test_links_share_the_card_and_may_borrow_up_to_their_own_rate() -> None:
    _, text = made(FIRST, SECOND, nic=NicShape(egress_bit_per_s=10e6))
    card, share, own = (round(value * WIRE) for value in (10e6, 5e6, 8e6))
    assert classes(text) == {
        "7d1d:1": ("7d1d:", card, card),
        "7d1d:10": ("7d1d:1", share, own),
        "7d1d:11": ("7d1d:1", share, own),
    }


def test_what_is_promised_to_the_links_is_never_more_than_the_card_has() -> None:
    lanes = [Lane(f"198.18.0.{n}", LinkShape(rate_bit_per_s=n * 1e6)) for n in range(2, 30)]
    found = classes(made(*lanes, nic=NicShape(egress_bit_per_s=20e6))[1])
    promised = sum(rate for parent, rate, _ in found.values() if parent == "7d1d:1")
    # each is rounded to whole bits
    assert promised <= found["7d1d:1"][1] + len(lanes)


def test_incoming_traffic_but_the_coordinators_passes_the_card_too() -> None:
    ip, text = made(FIRST, SECOND, nic=NicShape(ingress_bit_per_s=6e6))
    assert "link add tidings-in type ifb" in ip
    found = classes(text, "tidings-in")
    assert found["7d1d:1"][1] == round(6e6 * WIRE)
    # a class for each neighbour, and one for those to whom there is no link back
    assert len(found) == 4
    assert "match ip src 198.18.0.3/32 flowid 7d1d:11" in text
    lines = text.splitlines()
    spared = next(i for i, line in enumerate(lines) if "src 198.18.0.1/32" in line)
    caught = next(i for i, line in enumerate(lines) if "mirred egress redirect" in line)
    assert spared < caught
    assert "prio 1" in lines[spared]
    assert "prio 2" in lines[caught]


def test_stretched_time_means_slower_and_longer() -> None:
    shape = LinkShape(8e6, delay_ns=NS_PER_S // 50)
    _, text = made(Lane("198.18.0.2", shape), scale=10)
    assert classes(text)["7d1d:10"][1] == round(8e5 * WIRE)
    assert "delay 200000us" in text


def test_packets_last_no_longer_than_the_burst() -> None:
    for rate, segments in ((1e6, 1), (100e6, 8), (10e9, 44)):
        lane = replace(FIRST, shape=LinkShape(rate_bit_per_s=rate))
        assert f"link set dev eth0 gso_max_segs {segments}" in made(lane)[0]


def test_delay_and_jitter_are_netems_with_room_for_what_is_on_its_way() -> None:
    shape = LinkShape(120e6, NS_PER_S // 10, NS_PER_S // 1000, "normal", queue_bytes=1500)
    _, text = made(Lane("198.18.0.2", shape))
    limit = int(re.findall(r"netem limit (\d+) delay 100000us 1000us distribution normal", text)[0])
    assert 1000 <= limit <= 1100


def test_what_the_kernel_cannot_draw_is_refused() -> None:
    shape = LinkShape(jitter_ns=1, jitter_kind="exponential")
    check(LinkShape(rate_bit_per_s=1e6, loss=0.1))
    with pytest.raises(ConfigError, match=r".*'exponential'.*normal") as refusal:
        check(shape)
    assert refusal.value.path == ("jitter_kind",)


def test_the_pacer_is_left_with_losses_and_queues_only() -> None:
    shape = LinkShape(1e6, 5, 3, loss=0.25, queue_bytes=77)
    plan = NodePlan.model_construct(links={1: shape}, nic=NicShape(1e6, 1e6), enforce="kernel")
    assert plan.paced_links == {1: LinkShape(loss=0.25, queue_bytes=77)}
    assert plan.paced_nic == NicShape(math.inf, math.inf)
    user = plan.model_copy(update={"enforce": "user"})
    assert (user.paced_links, user.paced_nic) == (plan.links, plan.nic)
