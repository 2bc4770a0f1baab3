"""A Kafka broker of one member per group, as far as a consumer needs one: versions, metadata,
coordinator, join, sync, heartbeat, leave, offsets, and fetches that find nothing. The frames are those of
kafka-python's own definitions; what is kept in memory is nothing but whether a member is known.
"""

import io
import socket
import struct
import sys
import threading
import time

from kafka.protocol import admin, commit, fetch, group, metadata, offset
from kafka.protocol.types import Int16, Int32, String

TOPIC = "topic"
VERSIONS = {1: 4, 2: 1, 3: 1, 8: 2, 9: 1, 10: 0, 11: 1, 12: 1, 13: 0, 14: 0, 18: 0}
LEAST = {1: 4, 8: 2, 9: 1}


def say(text):
    print(text, flush=True)


class Connection:
    def __init__(self, stream, port):
        self.stream, self.port = stream, port

    def serve(self):
        while True:
            length = self.take(4)
            if length is None:
                break
            frame = io.BytesIO(self.take(struct.unpack(">i", length)[0]))
            key, version = Int16.decode(frame), Int16.decode(frame)
            correlation = Int32.decode(frame)
            String("utf-8").decode(frame)
            # Kept: what encodes it refers to it weakly.
            response = self.answer(key, version, frame)
            body = response.encode()
            self.stream.sendall(struct.pack(">ii", len(body) + 4, correlation) + body)
        self.stream.close()

    def take(self, count):
        taken = b""
        while len(taken) < count:
            part = self.stream.recv(count - len(taken))
            if not part:
                return None
            taken += part
        return taken

    def answer(self, key, version, frame):
        if key == 18:
            error = 0 if version == 0 else 35
            known = [(key, LEAST.get(key, 0), most) for key, most in VERSIONS.items()]
            return admin.ApiVersionResponse_v0(error_code=error, api_versions=known)
        if key == 3:
            partition = (0, 0, 1, [1], [1])
            if version == 0:
                return metadata.MetadataResponse_v0(
                    brokers=[(1, "127.0.0.1", self.port)],
                    topics=[(0, TOPIC, [partition])],
                )
            return metadata.MetadataResponse_v1(
                brokers=[(1, "127.0.0.1", self.port, None)],
                controller_id=1,
                topics=[(0, TOPIC, False, [partition])],
            )
        if key == 10:
            return commit.GroupCoordinatorResponse_v0(
                error_code=0, coordinator_id=1, host="127.0.0.1", port=self.port
            )
        if key == 11:
            request = group.JoinGroupRequest[version].decode(frame)
            say(f"joined {request.group} for {request.session_timeout}")
            name, data = request.group_protocols[0]
            return group.JoinGroupResponse_v0(
                error_code=0,
                generation_id=1,
                group_protocol=name,
                leader_id="member-1",
                member_id="member-1",
                members=[("member-1", data)],
            )
        if key == 14:
            request = group.SyncGroupRequest_v0.decode(frame)
            own = [data for member, data in request.group_assignment if member == "member-1"]
            return group.SyncGroupResponse_v0(
                error_code=0, member_assignment=own[0] if own else b""
            )
        if key == 12:
            say("heartbeat")
            if version == 0:
                return group.HeartbeatResponse_v0(error_code=0)
            return group.HeartbeatResponse_v1(throttle_time_ms=0, error_code=0)
        if key == 13:
            say("left")
            return group.LeaveGroupResponse_v0(error_code=0)
        if key == 9:
            request = commit.OffsetFetchRequest_v1.decode(frame)
            topics = [
                (topic, [(partition, -1, "", 0) for partition in partitions])
                for topic, partitions in request.topics
            ]
            return commit.OffsetFetchResponse_v1(topics=topics)
        if key == 8:
            request = commit.OffsetCommitRequest_v2.decode(frame)
            topics = [
                (topic, [(partition[0], 0) for partition in partitions])
                for topic, partitions in request.topics
            ]
            return commit.OffsetCommitResponse_v2(topics=topics)
        if key == 2:
            if version == 0:
                return offset.OffsetResponse_v0(topics=[(TOPIC, [(0, 0, [0])])])
            return offset.OffsetResponse_v1(topics=[(TOPIC, [(0, 0, -1, 0)])])
        if key == 1:
            time.sleep(0.2)
            return fetch.FetchResponse_v4(
                throttle_time_ms=0, topics=[(TOPIC, [(0, 0, 0, 0, [], b"")])]
            )
        raise ValueError(f"request {key} version {version} is not known")


def main():
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    say(f"port {port}")
    while True:
        stream, _ = listener.accept()
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=Connection(stream, port).serve, daemon=True).start()


sys.exit(main())
