#!/usr/bin/env python3
"""Compares the three metric tables below OUTPUT with what oracle.py expects, as DuckDB reads them: a reader that shares no
code with the writer (pip install duckdb duckdb-extension-delta; nothing is downloaded).

    duckdb_read.py EXPECTED.json OUTPUT        prints every difference (10 at most); exit status 1 if there is one
"""
import glob, json, os, sys
from decimal import Decimal
import duckdb
import duckdb_extension_delta


def connect():
    """DuckDB with the extension of the package, which must be of the same version."""
    package = os.path.dirname(duckdb_extension_delta.__file__)
    found = glob.glob(os.path.join(package, "extensions", f"v{duckdb.__version__}", "delta.duckdb_extension"))
    if len(found) != 1:
        sys.exit(f"no delta extension for DuckDB {duckdb.__version__} below {package}")
    c = duckdb.connect(config={"autoinstall_known_extensions": False, "autoload_known_extensions": False})
    c.execute("load '" + found[0].replace("'", "''") + "'")
    return c


def main():
    want, root = json.load(open(sys.argv[1])), sys.argv[2].rstrip("/").replace("'", "''")
    c = connect()
    bad = []

    def table(name):
        return f"delta_scan('{root}/{name}')"

    def query(sql):
        return c.execute(sql).fetchall()

    def same(what, got, exp):
        if got != exp:
            bad.append(f"{what}: got {got!r}, want {exp!r}")

    def money(pence):
        return Decimal(pence).scaleb(-2)

    m1 = want["net_flow"]
    columns = list(m1)
    exp = tuple(money(m1[k]) if k in ("total_deposits", "total_withdrawals", "net_flow") else m1[k] for k in columns)
    same("net_flow", query(f"select id, {', '.join(columns)} from {table('metrics/net_flow')}"), [(1, *exp)])

    users = want["user_metrics"]
    sums = query("select count(*), count(distinct user_id), sum(total_deposits), sum(total_withdrawals), sum(deposit_count), "
                 f"sum(withdrawal_count) from {table('metrics/user_metrics')}")
    same("user_metrics, sums", sums, [(len(users), len(users), exp[0], exp[1], m1["deposit_count"], m1["withdrawal_count"])])
    rows = query("select user_id, total_deposits, total_withdrawals, deposit_count, withdrawal_count, epoch_us(first_seen), "
                 f"epoch_us(last_seen) from {table('metrics/user_metrics')}")
    got = {r[0]: r[1:] for r in rows}
    for user in sorted(got.keys() | users.keys()):
        w = users.get(user)
        w = w and (money(w["total_deposits"]), money(w["total_withdrawals"]), w["deposit_count"], w["withdrawal_count"], w["first_seen"], w["last_seen"])
        same(f"user_metrics, {user}", got.get(user), w)

    m3 = query(f"select channel, event_type, event_count, total_amount from {table('metrics/channel_distribution')} order by 1, 2")
    same("channel_distribution", m3, [(r["channel"], r["event_type"], r["event_count"], money(r["total_amount"])) for r in want["channel_distribution"]])

    for difference in bad[:10]:
        print(difference)
    print(f"different: {len(bad)} differences" if bad else f"equal: {len(got)} users, {sum(r[2] for r in m3)} events")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
