"""All packets of a run in one file."""

import pytest

from streamvggt.app.packet_file import PacketFile


def test_packets_are_read_back_and_the_latest_of_a_frame_replaces_earlier_ones(tmp_path):
    packets = PacketFile(tmp_path / "packets.bin")
    packets.add(1, "depth", b"first")
    packets.add(0, "depth", b"")
    packets.add(1, "head", b"other source")
    packets.add(1, "depth", b"second")
    assert packets.read(0, "depth") == b""
    assert packets.read(1, "depth") == b"second"
    assert packets.read(1, "head") == b"other source"
    assert (0, "head") not in packets
    with pytest.raises(KeyError):
        packets.read(0, "head")


def test_a_failed_write_adds_no_packet(tmp_path):
    packets = PacketFile(tmp_path / "gone" / "packets.bin")
    with pytest.raises(FileNotFoundError):
        packets.add(0, "depth", b"packet")
    assert (0, "depth") not in packets
