#!/usr/bin/env python3
"""Everything goes wrong while events stream from a broker into tables; then the tables must equal the oracle's.

    hub_storm.py --binary target/release/tidemark --dir STORM [--events 2000000] [--partitions 4] [--detaches 20]
                 [--cuts 20] [--kills 3] [--absence 4] [--redeliver 0.05] [--batch 2000] [--seed 1]

Starts the program's broker with its control port, sends generated events with the azure-eventhub package (a process for
each partition), runs the pipeline, and meanwhile detaches links, cuts connections, lets the broker be absent, throttles it,
has it deliver a share of the events again, and kills the pipeline with SIGKILL. Since a sender whose connection was cut may
send a batch twice, what counts is what the broker holds in the end: it is read back with azure-eventhub. The cuts are those
that `checkpoint show --json` exports. Exit status 1 when anything differs.
"""
import argparse, json, os, random, shutil, signal, socket, subprocess, sys, time

HERE = os.path.dirname(os.path.abspath(__file__))
LEVEL = "warn,tidemark=info,deltalake_core=error,buoyant_kernel=off,azure_messaging_eventhubs=off,azure_core_amqp=off,fe2o3_amqp=off"


def script(name, *args, env=None):
    subprocess.run([sys.executable, os.path.join(HERE, name), *map(str, args)], check=True, env=env, stdout=sys.stderr)


class Broker:
    def __init__(self, binary, partitions):
        self.process = subprocess.Popen(
            [binary, "broker", "--listen", "127.0.0.1:0", "--control", "127.0.0.1:0", "--partitions", str(partitions)],
            stdout=subprocess.PIPE, text=True)
        self.string = self.process.stdout.readline().strip().split("=", 1)[1]
        host, port = self.process.stdout.readline().strip().split("=", 1)[1].rsplit(":", 1)
        self.lines = socket.create_connection((host, int(port))).makefile("rw")

    def tell(self, line):
        self.lines.write(line + "\n")
        self.lines.flush()
        answer = self.lines.readline().strip()
        assert answer.startswith("ok"), (line, answer)
        return answer[2:].strip()

    def statistics(self):
        return dict(word.split("=", 1) for word in self.tell("statistics").split() if "=" in word)


class Pipeline:
    def __init__(self, options, broker):
        self.options, self.env = options, dict(os.environ, EVENT_HUB_CONNECTION_STRING=broker.string)
        self.output, self.cuts, self.starts = os.path.join(options.dir, "tables"), {}, 0
        self.log = open(os.path.join(options.dir, "pipeline.log"), "ab")

    def start(self, *more):
        self.gather()
        self.starts += 1
        first = self.starts == 1
        self.process = subprocess.Popen(
            [self.options.binary, "run", "--source", "eventhubs", "--output", self.output, "--trigger", "250ms",
             "--checkpoint-interval", "1h" if first else "1s", "--set", "checkpoint.keep=1000", "--set", "eventhubs.quiet_after=2s",
             "--log-level", LEVEL, *more], env=self.env, stdout=subprocess.DEVNULL, stderr=self.log)

    def show(self):
        shown = subprocess.run([self.options.binary, "checkpoint", "show", "--json", "--output", self.output], capture_output=True, text=True)
        return json.loads(shown.stdout) if shown.returncode == 0 and shown.stdout else None

    def gather(self):
        shown = self.show()
        for cut in shown["cuts"] if shown else []:
            ranges = [(int(r["partition"]), r["from"], r["to"]) for r in cut["ranges"]]
            found = ranges, [index for index, _ in cut["behind"]]
            assert self.cuts.setdefault(cut["epoch"], found) == found, "an epoch was cut twice"

    def read(self):
        """Events that are in cuts; those after the newest manifest as well."""
        self.gather()
        return sum(to - start for ranges, _ in self.cuts.values() for _, start, to in ranges)


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--binary", required=True)
    a.add_argument("--dir", required=True)
    for name, default in (("events", 2_000_000), ("partitions", 4), ("detaches", 20), ("cuts", 20), ("kills", 3), ("seed", 1), ("batch", 2_000)):
        a.add_argument(f"--{name}", type=int, default=default)
    a.add_argument("--absence", type=float, default=4)
    a.add_argument("--redeliver", type=float, default=0.05)
    o = a.parse_args()
    o.binary, o.dir, chance = os.path.abspath(o.binary), os.path.abspath(o.dir), random.Random(o.seed)
    shutil.rmtree(o.dir, ignore_errors=True)
    os.makedirs(o.dir)
    sent = os.path.join(o.dir, "sent")
    script("gen.py", "--out", sent, "--events", o.events, "--partitions", o.partitions, "--segments", 1, "--users", 500)
    broker = Broker(o.binary, o.partitions)
    pipeline = Pipeline(o, broker)
    # A first run with a single checkpoint: from then on every cut can be exported.
    broker.tell("append 0 {}")
    pipeline.start()
    while pipeline.read() < 1:
        time.sleep(0.2)
    pipeline.process.send_signal(signal.SIGTERM)
    assert pipeline.process.wait() == 0
    pipeline.start()

    files = sorted(os.path.join(sent, name) for name in os.listdir(sent) if name.endswith(".ndjson"))
    begun = time.time()
    senders = [subprocess.Popen([sys.executable, os.path.join(HERE, "hub_send.py"), "--partition", str(i), path],
                                env=pipeline.env, stdout=sys.stderr) for i, path in enumerate(files)]
    faults = ["detach"] * o.detaches + ["cut"] * o.cuts + ["kill"] * o.kills + ["away", "throttle", "busy"]
    pieces = max(1, int(o.events * o.redeliver / o.batch))
    faults += ["redeliver"] * pieces
    chance.shuffle(faults)
    done, planned = {}, len(faults)
    while faults:
        # Faults are spread over the events: each has its share of them to come before.
        arrived = int(broker.statistics()["events_in"]) / o.events
        due = int(min(1.0, arrived / 0.98) * planned) - (planned - len(faults))
        for _ in range(min(due, 3)):
            fault = faults.pop()
            done[fault] = done.get(fault, 0) + 1
            partition = chance.randrange(o.partitions)
            if fault == "detach":
                broker.tell(f"detach * {chance.choice(['amqp:internal-error', 'com.microsoft:server-busy', 'amqp:link:detach-forced'])}")
            elif fault == "cut":
                broker.tell("cut")
            elif fault == "away":
                broker.tell(f"away {int(o.absence * 1000)}")
            elif fault == "throttle":
                broker.tell("throttle 5000")
                time.sleep(2)
                broker.tell("throttle off")
            elif fault == "busy":
                broker.tell("busy all 1500")
            elif fault == "redeliver":
                end = int(broker.statistics()["events_in"]) // o.partitions
                first = chance.randrange(max(1, end - o.batch))
                broker.tell(f"redeliver {partition} {first} {first + o.batch - 1}")
            elif fault == "kill":
                pipeline.process.kill()
                pipeline.process.wait()
                pipeline.start()
            if pipeline.process.poll() is not None:
                sys.exit(f"the pipeline ended with status {pipeline.process.returncode}")
        time.sleep(0.2)
    assert all(sender.wait() == 0 for sender in senders), "a sender failed"
    held = int(broker.statistics()["events_in"])
    print(f"sent in {time.time() - begun:.0f} s; the broker holds {held} events", file=sys.stderr)
    while pipeline.read() < held:
        if pipeline.process.poll() is not None:
            sys.exit(f"the pipeline ended with status {pipeline.process.returncode}")
        time.sleep(1)
    pipeline.process.send_signal(signal.SIGTERM)
    assert pipeline.process.wait() == 0
    pipeline.gather()
    read = os.path.join(o.dir, "read")
    script("hub_read.py", read, held, env=pipeline.env)
    broker.process.terminate()
    assert sorted(pipeline.cuts) == list(range(1, len(pipeline.cuts) + 1)), "cuts are missing"
    reached, cuts = [0] * o.partitions, []
    for epoch in sorted(pipeline.cuts):
        counts = {}
        ranges, behind = pipeline.cuts[epoch]
        for partition, start, to in ranges:
            assert reached[partition] == start, f"a hole in partition {partition} at {reached[partition]}"
            reached[partition] = to
            counts[f"p{partition}.ndjson"] = to - start
        cuts.append(dict(counts=counts, behind={f"p{partition}.ndjson": None for partition in behind}))
    with open(os.path.join(o.dir, "cuts.json"), "w") as f:
        json.dump(cuts, f)
    expected, names = os.path.join(o.dir, "expected.json"), sorted(os.path.join(read, n) for n in os.listdir(read))
    script("oracle.py", "--out", expected, "--cuts", os.path.join(o.dir, "cuts.json"), *names)
    evidence = subprocess.run([o.binary, "evidence", "--output", pipeline.output], stdout=subprocess.DEVNULL).returncode
    same = subprocess.run([sys.executable, os.path.join(HERE, "check.py"), expected, pipeline.output]).returncode
    print(f"{pipeline.starts} starts, {len(cuts)} epochs, faults {dict(sorted(done.items()))}, evidence {evidence}: "
          f"{'PASSED' if same == evidence == 0 else 'FAILED'}")
    sys.exit(1 if same or evidence else 0)


if __name__ == "__main__":
    main()
