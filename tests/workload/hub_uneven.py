#!/usr/bin/env python3
"""A backlog in partitions of which one is a hundred times as busy as another: nothing may be late for having been read late.

    hub_uneven.py --binary target/release/tidemark --dir UNEVEN FILE... [--processes N] [-- ARGUMENT...]

The lines of the n-th file go to partition n of the program's broker, enqueued at their event times. One more partition is
added while the pipeline runs, and gets the lines of the last file once more with other ids. The pipeline runs with further
ARGUMENTs until everything is in the tables. Exit status 1 where an event is missing, or one is rejected that obeys the
contract.
"""
import argparse, datetime, json, os, shutil, signal, socket, subprocess, sys, time
from deltalake import DeltaTable
from hub_storm import LEVEL, Broker


def milliseconds(line):
    at = datetime.datetime.fromisoformat(json.loads(line)["event_time"].replace("Z", "+00:00"))
    return int(at.timestamp() * 1000)


def fill(broker, partition, lines):
    """Appends lines at their event times, many without waiting for an answer."""
    for start in range(0, len(lines), 500):
        some = lines[start : start + 500]
        for line in some:
            broker.lines.write(f"clock {milliseconds(line)}\nappend {partition} {line}\n")
        broker.lines.flush()
        for _ in range(2 * len(some)):
            answer = broker.lines.readline()
            assert answer.startswith("ok"), answer
    broker.tell("clock off")


def lines_of(path):
    return [line for line in open(path, encoding="utf-8").read().split("\n") if line.strip()]


def received(output):
    path = os.path.join(output, "monitoring/run_manifest")
    if not os.path.isdir(os.path.join(path, "_delta_log")):
        return 0
    rows = DeltaTable(path).to_pyarrow_table(columns=["total_events_received"]).to_pylist()
    return rows[0]["total_events_received"] if rows else 0


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def main():
    more = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    a = argparse.ArgumentParser(description=__doc__)
    a.add_argument("--binary", required=True)
    a.add_argument("--dir", required=True)
    a.add_argument("--processes", type=int, default=1)
    a.add_argument("--patience", type=int, default=600)
    a.add_argument("files", nargs="+")
    o = a.parse_args(sys.argv[1:more])
    arguments = sys.argv[more + 1 :]
    binary, folder = os.path.abspath(o.binary), os.path.abspath(o.dir)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    output = os.path.join(folder, "tables")
    files = [lines_of(path) for path in sorted(o.files)]
    broker = Broker(binary, len(files))
    for partition, lines in enumerate(files):
        fill(broker, partition, lines)
    env = dict(os.environ, EVENT_HUB_CONNECTION_STRING=broker.string, TIDEMARK__CLUSTER__SECRET="0123456789abcdef")
    hosts = ",".join(f"127.0.0.1:{port}" for port in free_ports(o.processes))
    begun = time.time()
    processes = []
    for process in range(o.processes):
        command = [binary, "run", "--source", "eventhubs", "--output", output, "--log-level", LEVEL, "--console", "off", *arguments]
        if o.processes > 1:
            command += ["--processes", str(o.processes), "--process", str(process), "--hosts", hosts]
        log = open(os.path.join(folder, f"process-{process}.log"), "wb")
        processes.append(subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=log))
    sent = sum(map(len, files))

    def wait(what, condition):
        while not condition():
            if any(process.poll() is not None for process in processes):
                sys.exit(f"the pipeline has ended while it was waited for {what}; see {folder}/process-*.log")
            if time.time() - begun > o.patience:
                sys.exit(f"waited in vain for {what}: {received(output)} of {sent} events are in the tables")
            time.sleep(0.2)

    wait("the first events", lambda: received(output) > 0)
    broker.tell(f"partitions {len(files) + 1}")
    again = [json.dumps({**json.loads(line), "event_id": f"again-{i}"}) for i, line in enumerate(files[-1])]
    fill(broker, len(files), again)
    sent += len(again)
    wait("all events", lambda: received(output) >= sent)
    took = time.time() - begun
    for process in processes[:1] if o.processes > 1 else processes:
        process.send_signal(signal.SIGTERM)
    statuses = [process.wait(60) for process in processes]
    broker.process.terminate()
    late = {}
    if os.path.isdir(os.path.join(output, "monitoring/rejected_events/_delta_log")):
        for row in DeltaTable(os.path.join(output, "monitoring/rejected_events")).to_pyarrow_table().to_pylist():
            key = (row["source_partition"], row["rejection_reason"])
            late[key] = late.get(key, 0) + 1
    print(json.dumps({"events": received(output), "sent": sent, "seconds": round(took, 1), "statuses": statuses,
                      "rejected": {f"{partition} {reason}": count for (partition, reason), count in sorted(late.items())}}))
    if received(output) != sent or late or any(statuses):
        sys.exit(1)


if __name__ == "__main__":
    main()
